"""FCOS with ResNet-50 on COCO, trained for 12 epochs as mmdet's baseline is; batches are per process."""

_base_ = [
    "../_base_/data/coco_retrain.py",
    "../_base_/model/fcos.py",
    "../_base_/schedule/detection_1x.py",
    "../_base_/runtime/detection.py",
]

optim_wrapper = dict(paramwise_cfg=dict(bias_lr_mult=2.0, bias_decay_mult=0.0), clip_grad=dict(max_norm=35, norm_type=2))
