"""Training a DARTS cell on ImageNet with the paper's settings: 250 epochs, SGD 0.1, 3 % less each epoch.

The paper searches on CIFAR-10 and moves the cell here; there is no search of its own on ImageNet. Difference
from the official code: an epoch's last batch is left out when it isn't full, 10,009 steps instead of 10,010.
"""

_base_ = [
    "../_base_/data/imagenet_retrain.py",
    "../_base_/model/cell_net_imagenet.py",
    "../_base_/runtime/default.py",
]

train_cfg = dict(type="search.TrainLoop", max_epochs=250)
optim_wrapper = dict(
    optimizer=dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=3e-5),
    clip_grad=dict(max_norm=5),
)
auto_scale_lr = dict(base_batch_size=128)
param_scheduler = [dict(type="ExponentialLR", gamma=0.97, by_epoch=True)]
