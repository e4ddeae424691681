"""A searchable classification backbone as a detector's: cells at strides 8, 16 and 32 under a small RetinaNet."""

_base_ = "retinanet_resnet18.py"

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
