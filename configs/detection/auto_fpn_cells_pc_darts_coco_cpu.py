"""Backbone, neck and head in one search: cells, an Auto-FPN-style neck and RetinaNet's towers, by PC-DARTS, on any folder in
COCO's layout, in minutes on 2 cores: --cfg-options data_root=FOLDER."""

_base_ = [
    "../_base_/data/coco_folder_cpu_search.py",
    "../_base_/model/auto_fpn_cell_detector.py",
    "../_base_/strategy/pc_darts.py",
    "../_base_/schedule/detection_cpu_search.py",
    "../_base_/runtime/detection.py",
]

model = dict(
    backbone=dict(channels=8, affine=False, partial=4, plan="auto"),
    neck=dict(in_channels=[8, 32, 64, 128], affine=False, partial=4, plan="auto"),
    bbox_head=dict(
        cls_cell=dict(affine=False, partial=4, plan="auto"),
        reg_cell=dict(affine=False, partial=4, plan="auto"),
    ),
)
strategy = dict(freeze_epochs=2)
# a few dozen steps: the logits must move faster than in the paper
arch_optimizer = dict(lr=0.03)
