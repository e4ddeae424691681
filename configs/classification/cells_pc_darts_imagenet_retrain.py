"""Training a PC-DARTS cell on ImageNet with the official settings: 8 processes of 128 images, SGD 0.5.

The rate rises over 5 epochs, falls linearly to 1/245 over epochs 0 to 244 and to a fifth of that over the
last 5. Difference from the official code: an epoch's last batch is left out when it isn't full, 1251 steps instead of 1252.
"""

_base_ = [
    "../_base_/data/imagenet_retrain.py",
    "../_base_/model/cell_net_imagenet.py",
    "../_base_/runtime/default.py",
]

train_cfg = dict(type="search.TrainLoop", max_epochs=250)
optim_wrapper = dict(
    optimizer=dict(type="SGD", lr=0.5, momentum=0.9, weight_decay=3e-5),
    clip_grad=dict(max_norm=5),
)
auto_scale_lr = dict(base_batch_size=1024)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.2, begin=0, end=5, by_epoch=True),
    dict(type="LinearLR", start_factor=1.0, end_factor=1 / 245, begin=0, end=245, by_epoch=True),
    dict(type="LinearLR", start_factor=1.0, end_factor=0.2, begin=245, end=250, by_epoch=True),
]
