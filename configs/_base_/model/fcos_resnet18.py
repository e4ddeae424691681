"""A small FCOS for CPUs: ResNet-18 from scratch, a pyramid of 64 channels, two convolutions in each branch of the head."""

_base_ = "fcos.py"

model = dict(
    backbone=dict(depth=18, frozen_stages=-1, norm_eval=False, init_cfg=None),
    neck=dict(in_channels=[64, 128, 256, 512], out_channels=64),
    bbox_head=dict(in_channels=64, feat_channels=64, stacked_convs=2),
)
