"""A plain baseline: FCOS with ResNet-18, trained from scratch on any folder in COCO's layout, in minutes on 2 cores:
--cfg-options data_root=FOLDER."""

_base_ = [
    "../_base_/data/coco_folder_cpu_retrain.py",
    "../_base_/model/fcos_resnet18.py",
    "../_base_/schedule/detection_cpu_retrain.py",
    "../_base_/runtime/detection.py",
]
