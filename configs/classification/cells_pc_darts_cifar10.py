"""PC-DARTS on CIFAR-10 with the official settings (yuhuixu1993/PC-DARTS): K = 4, batches of 256.

Difference from the official code: an epoch's last batch is left out when it isn't full, 97 steps instead of 98.
"""

_base_ = [
    "../_base_/data/cifar10_search.py",
    "../_base_/model/cell_supernet.py",
    "../_base_/strategy/pc_darts.py",
    "../_base_/schedule/pc_darts_search.py",
    "../_base_/runtime/default.py",
]

model = dict(backbone=dict(partial=4))
train_dataloader = dict(batch_size=256)
arch_dataloader = dict(batch_size=256)
