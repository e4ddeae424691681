"""A small RetinaNet for CPUs with an Auto-FPN-style neck and head: ResNet-18 from scratch, 64 channels."""

_base_ = "auto_fpn_retinanet.py"

model = dict(
    backbone=dict(depth=18, frozen_stages=-1, norm_eval=False, init_cfg=None),
    neck=dict(in_channels=[64, 128, 256, 512], channels=64),
    bbox_head=dict(in_channels=64, feat_channels=64),
)
