"""A plain baseline: FCOS with ResNet-18, trained from scratch on the embedded scenes, in minutes on 2 cores."""

_base_ = [
    "../_base_/data/scenes_coco_retrain.py",
    "../_base_/model/fcos_resnet18.py",
    "../_base_/schedule/detection_cpu_retrain.py",
    "../_base_/runtime/detection.py",
]
