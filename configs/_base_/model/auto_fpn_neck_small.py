"""A small RetinaNet for CPUs of which the neck alone is Auto-FPN-style: ResNet-18 from scratch, 64 channels."""

_base_ = "retinanet_resnet18.py"

model = dict(
    neck=dict(
        _delete_=True,
        type="search.AutoFPN",
        # written from the backbone
        in_channels=[64, 128, 256, 512],
        channels=64,
        start_level=1,
        fused=4,
        num_outs=5,
    )
)
