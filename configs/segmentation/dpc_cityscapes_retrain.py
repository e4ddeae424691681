"""Training a dense prediction cell on MobileNetV2 on Cityscapes, as DeepLab's official code trains.

The backbone begins from ImageNet's weights: make the file as configs/_base_/model/dpc_pretrained.py says, or train from scratch
by --cfg-options model.backbone.init_cfg=None.
"""

_base_ = [
    "../_base_/data/cityscapes_retrain.py",
    "../_base_/model/dpc_pretrained.py",
    "../_base_/schedule/deeplab_retrain.py",
    "../_base_/runtime/segmentation.py",
]

score = dict(key="mIoU")
