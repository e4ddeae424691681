"""Training a RetinaNet of which the head alone was searched, on any folder in COCO's layout, in minutes on 2 cores:
--cfg-options data_root=FOLDER."""

_base_ = [
    "../_base_/data/coco_folder_cpu_retrain.py",
    "../_base_/model/auto_fpn_head_small.py",
    "../_base_/schedule/detection_cpu_retrain.py",
    "../_base_/runtime/detection.py",
]
