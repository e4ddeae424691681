"""A RetinaNet with an Auto-FPN-style neck and head: ResNet-50, 256 channels."""

_base_ = "retinanet.py"

model = dict(
    neck=dict(
        _delete_=True,
        type="search.AutoFPN",
        # written from the backbone
        in_channels=[256, 512, 1024, 2048],
        channels=256,
        start_level=1,
        fused=4,
        num_outs=5,
    ),
    bbox_head=dict(
        _delete_=True,
        type="search.CellRetinaHead",
        cls_cell=dict(type="search.HeadCell", part="cls_cell"),
        reg_cell=dict(type="search.HeadCell", part="reg_cell"),
        # read from the data
        num_classes=80,
        in_channels=256,
        feat_channels=256,
        anchor_generator={{_base_.model.bbox_head.anchor_generator}},
        loss_cls={{_base_.model.bbox_head.loss_cls}},
        loss_bbox={{_base_.model.bbox_head.loss_bbox}},
    ),
)
