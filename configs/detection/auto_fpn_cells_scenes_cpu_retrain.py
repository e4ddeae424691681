"""Training a detector of which backbone, neck and head were searched, on the embedded
scenes, in minutes on 2 cores."""

_base_ = [
    "../_base_/data/scenes_coco_retrain.py",
    "../_base_/model/auto_fpn_cell_detector.py",
    "../_base_/schedule/detection_cpu_retrain.py",
    "../_base_/runtime/detection.py",
]
