"""NAS-FPN by DARTS, first order, with partial channels, on the embedded scenes, in minutes on 2 cores."""

_base_ = [
    "../_base_/data/scenes_coco_search.py",
    "../_base_/model/nas_fpn_small.py",
    "../_base_/strategy/darts.py",
    "../_base_/schedule/detection_cpu_search.py",
    "../_base_/runtime/detection.py",
]

model = dict(neck=dict(affine=False, partial=2))
strategy = dict(order=1, freeze_epochs=2)
# a few dozen steps: the logits must move faster than in the paper, and of a hundred pairs of inputs each has small gradients
arch_optimizer = dict(lr=0.03, weight_decay=0.0)
