"""The detector of NAS-FPN's proxy task: a small ResNet, three repeats of 256 channels."""

_base_ = "retinanet_nas_fpn.py"

model = dict(
    backbone=dict(depth=18, init_cfg=dict(checkpoint="torchvision://resnet18")),
    neck=dict(in_channels=[64, 128, 256, 512], repeats=3),
)
