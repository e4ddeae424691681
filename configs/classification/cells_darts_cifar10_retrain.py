"""Training a DARTS cell on CIFAR-10 with the paper's settings: 600 epochs, drop path 0.2, cutout, auxiliary
head.

All 50,000 training images are trained on; the test images are read once, by tools/test.py.

Difference from the official code: an epoch's last batch is left out when it isn't full, 520 steps of 96 instead of 521.
"""

_base_ = [
    "../_base_/data/cifar10_retrain.py",
    "../_base_/model/cell_net_cifar.py",
    "../_base_/schedule/cifar_retrain.py",
    "../_base_/runtime/default.py",
]
