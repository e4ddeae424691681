"""A small NAS-FPN for CPUs: ResNet-18 of half its width from scratch, 32 channels, three repeats as in the paper's search."""

_base_ = "retinanet_nas_fpn.py"

model = dict(
    data_preprocessor=dict(pad_size_divisor=32),
    backbone=dict(depth=18, base_channels=32, frozen_stages=-1, init_cfg=None),
    # as the other small detectors
    train_cfg=dict(assigner=dict(neg_iou_thr=0.4)),
    neck=dict(in_channels=[32, 64, 128, 256], channels=32, repeats=3),
    bbox_head=dict(in_channels=32, feat_channels=32, stacked_convs=2),
)
