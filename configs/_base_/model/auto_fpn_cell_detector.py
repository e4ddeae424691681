"""A small RetinaNet of which all parts are searchable: cells as the backbone, an Auto-FPN-style neck and head."""

_base_ = "auto_fpn_retinanet_small.py"

model = dict(
    backbone=dict(
        _delete_=True,
        type="search.CellNet",
        channels=16,
        layers=5,
        stem="imagenet",
        reductions=(1, 3),
        out_indices=(0, 1, 2, 3),
    ),
    # written from the backbone
    neck=dict(in_channels=[16, 64, 128, 256]),
)
