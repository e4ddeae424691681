"""Dense prediction cell by DARTS, first order, on the embedded scenes, in minutes on 2 cores."""

_base_ = [
    "../_base_/data/scenes_search.py",
    "../_base_/model/dpc_segmentor_small.py",
    "../_base_/strategy/darts.py",
    "../_base_/schedule/segmentation_cpu_search.py",
    "../_base_/runtime/segmentation.py",
]

model = dict(neck=dict(affine=False, plan="auto"))
strategy = dict(order=1, freeze_epochs=2)
# a few dozen steps: the logits must move faster than in the paper; and with so many options their gradients are a hundredth of
# those in DARTS's cells, so that its weight decay would hold them where they are
arch_optimizer = dict(lr=0.03, weight_decay=0.0)
