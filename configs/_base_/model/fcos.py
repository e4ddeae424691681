"""FCOS with ResNet-50 and a feature pyramid (arXiv 1904.01355), as mmdet's baseline has it, on torchvision's weights."""

_base_ = "retinanet.py"

model = dict(
    type="mmdet.FCOS",
    neck=dict(add_extra_convs="on_output", relu_before_extra_convs=True),
    bbox_head=dict(
        _delete_=True,
        type="mmdet.FCOSHead",
        # read from the data
        num_classes=80,
        in_channels=256,
        stacked_convs=4,
        feat_channels=256,
        strides=[8, 16, 32, 64, 128],
        loss_cls=dict(type="mmdet.FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type="mmdet.IoULoss", loss_weight=1.0),
        loss_centerness=dict(type="mmdet.CrossEntropyLoss", use_sigmoid=True, loss_weight=1.0),
    ),
    train_cfg=None,
)
