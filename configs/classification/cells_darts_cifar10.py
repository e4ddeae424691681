"""DARTS on CIFAR-10 with the paper's settings (arXiv 1806.09055, section 3.2 and A.1.1).

Half of the training images for the weights, half for the logits; batches of 64 for both; scored on the
logits' half, as in the official code (quark0/darts).

Difference from the official code: an epoch's last batch is left out when it isn't full, 390 steps instead of 391.
"""

_base_ = [
    "../_base_/data/cifar10_search.py",
    "../_base_/model/cell_supernet.py",
    "../_base_/strategy/darts.py",
    "../_base_/schedule/darts_search.py",
    "../_base_/runtime/default.py",
]
