"""A small RetinaNet for CPUs of which the head alone is Auto-FPN-style: ResNet-18 from scratch, a pyramid of 64 channels."""

_base_ = "auto_fpn_retinanet_small.py"

model = dict(
    neck=dict(
        _delete_=True,
        type="mmdet.FPN",
        in_channels=[64, 128, 256, 512],
        out_channels=64,
        start_level=1,
        add_extra_convs="on_input",
        num_outs=5,
    )
)
