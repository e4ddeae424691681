"""PC-DARTS on CIFAR-10 at 16x16: the reduced setting of the README's comparison."""

_base_ = [
    "../_base_/data/cifar10_16_search.py",
    "../_base_/model/cell_supernet.py",
    "../_base_/strategy/pc_darts.py",
    "../_base_/schedule/cpu_search.py",
    "../_base_/runtime/default.py",
]

model = dict(backbone=dict(channels=8, layers=4, partial=4))
strategy = dict(freeze_epochs=3)
# a hundred steps: the logits must move faster than in the paper
arch_optimizer = dict(lr=0.03)
train_cfg = dict(max_epochs=8, val_interval=4)
param_scheduler = [dict(type="CosineAnnealingLR", T_max=8, eta_min=0.001, by_epoch=True)]
