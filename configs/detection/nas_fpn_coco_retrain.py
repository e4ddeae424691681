"""Training NAS-FPN on COCO in the paper's size, 7 repeats of 256 channels on ResNet-50 at 640 pixels; batches are per process.

The published cells are ``--arch backbones/archs/nas_fpn_cells.json``. Of the paper's schedule only 50 epochs at rate 0.08 are
known second hand; the rest is that of mmdet's NAS-FPN.
"""

_base_ = [
    "../_base_/data/coco_640_retrain.py",
    "../_base_/model/retinanet_nas_fpn.py",
    "../_base_/schedule/detection_50e.py",
    "../_base_/runtime/detection.py",
]
