"""Training a searched architecture as Auto-DeepLab-S, F = 20, on Cityscapes (arXiv 1901.02985, section 4.2.3)."""

_base_ = [
    "../_base_/data/cityscapes_retrain.py",
    "../_base_/model/auto_deeplab_derived.py",
    "../_base_/schedule/auto_deeplab_retrain.py",
    "../_base_/runtime/segmentation.py",
]

model = dict(backbone=dict(filters=20), decode_head=dict(in_channels=[100, 200]))
score = dict(key="mIoU")
