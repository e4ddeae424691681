"""A Faster R-CNN with an Auto-FPN-style neck and heads: ResNet-50, 256 channels."""

_base_ = "faster_rcnn.py"

model = dict(
    neck=dict(
        _delete_=True,
        type="search.AutoFPN",
        # written from the backbone
        in_channels=[256, 512, 1024, 2048],
        channels=256,
        fused=4,
        num_outs=5,
    ),
    rpn_head=dict(type="search.CellRPNHead", cell=dict(type="search.HeadCell", part="rpn_cell", nodes=1)),
    roi_head=dict(
        bbox_head=dict(
            _delete_=True,
            type="search.CellBBoxHead",
            cell=dict(type="search.HeadCell", part="box_cell"),
            in_channels=256,
            channels=256,
            # read from the data
            num_classes=80,
            bbox_coder={{_base_.model.roi_head.bbox_head.bbox_coder}},
            reg_class_agnostic=False,
            loss_cls={{_base_.model.roi_head.bbox_head.loss_cls}},
            loss_bbox={{_base_.model.roi_head.bbox_head.loss_bbox}},
        ),
    ),
)
