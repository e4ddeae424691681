"""Training a detector of which backbone, neck and head were searched, on any folder in COCO's
layout, in minutes on 2 cores: --cfg-options data_root=FOLDER."""

_base_ = [
    "../_base_/data/coco_folder_cpu_retrain.py",
    "../_base_/model/auto_fpn_cell_detector.py",
    "../_base_/schedule/detection_cpu_retrain.py",
    "../_base_/runtime/detection.py",
]
