"""Faster R-CNN with ResNet-50 on COCO, trained for 12 epochs as mmdet's baseline is; batches are per process."""

_base_ = [
    "../_base_/data/coco_retrain.py",
    "../_base_/model/faster_rcnn.py",
    "../_base_/schedule/detection_1x.py",
    "../_base_/runtime/detection.py",
]

optim_wrapper = dict(optimizer=dict(lr=0.02))
