"""Training a PC-DARTS cell on CIFAR-10 with the official settings: as DARTS, but drop path 0.3.

Difference from the official code: an epoch's last batch is left out when it isn't full, 520 steps of 96 instead of 521.
"""

_base_ = "cells_darts_cifar10_retrain.py"

model = dict(backbone=dict(drop_path=0.3))
