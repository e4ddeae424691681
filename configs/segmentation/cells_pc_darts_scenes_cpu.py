"""PC-DARTS on a segmentor's backbone, on the embedded scenes, in minutes on 2 cores."""

_base_ = [
    "../_base_/data/scenes_search.py",
    "../_base_/model/cell_segmentor.py",
    "../_base_/strategy/pc_darts.py",
    "../_base_/schedule/segmentation_cpu_search.py",
    "../_base_/runtime/segmentation.py",
]

model = dict(backbone=dict(channels=8, affine=False, partial=4, plan="auto"), decode_head=dict(in_channels=[8, 32, 64]))
strategy = dict(freeze_epochs=2)
# a few dozen steps: the logits must move faster than in the paper
arch_optimizer = dict(lr=0.03)
