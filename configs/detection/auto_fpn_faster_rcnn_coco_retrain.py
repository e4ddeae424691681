"""Training a searched Auto-FPN-style Faster R-CNN on COCO as mmdet's baselines are: ResNet-50, 256 channels, 12 epochs."""

_base_ = [
    "../_base_/data/coco_retrain.py",
    "../_base_/model/auto_fpn_faster_rcnn.py",
    "../_base_/schedule/detection_1x.py",
    "../_base_/runtime/detection.py",
]

optim_wrapper = dict(optimizer=dict(lr=0.02))
