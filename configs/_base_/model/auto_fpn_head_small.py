"""A small RetinaNet for CPUs of which the head alone is Auto-FPN-style: ResNet-18 from scratch, a pyramid of 64 channels."""

_base_ = "retinanet_resnet18.py"

model = dict(
    bbox_head=dict(
        _delete_=True,
        type="search.CellRetinaHead",
        cls_cell=dict(type="search.HeadCell", part="cls_cell"),
        reg_cell=dict(type="search.HeadCell", part="reg_cell"),
        # read from the data
        num_classes=80,
        in_channels=64,
        feat_channels=64,
        anchor_generator={{_base_.model.bbox_head.anchor_generator}},
        loss_cls={{_base_.model.bbox_head.loss_cls}},
        loss_bbox={{_base_.model.bbox_head.loss_bbox}},
    )
)
