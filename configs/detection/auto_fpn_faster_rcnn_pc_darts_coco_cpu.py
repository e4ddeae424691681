"""An Auto-FPN-style Faster R-CNN, neck and head, by PC-DARTS on any folder in COCO's layout, in minutes on 2 cores:
--cfg-options data_root=FOLDER."""

_base_ = [
    "../_base_/data/coco_folder_cpu_search.py",
    "../_base_/model/auto_fpn_faster_rcnn_small.py",
    "../_base_/strategy/pc_darts.py",
    "../_base_/schedule/detection_cpu_search.py",
    "../_base_/runtime/detection.py",
]

model = dict(
    neck=dict(affine=False, partial=4, plan="auto"),
    rpn_head=dict(cell=dict(affine=False, partial=4, plan="auto")),
    roi_head=dict(bbox_head=dict(cell=dict(affine=False, partial=4, plan="auto"))),
)
strategy = dict(freeze_epochs=2)
# a few dozen steps: the logits must move faster than in the paper
arch_optimizer = dict(lr=0.03)
