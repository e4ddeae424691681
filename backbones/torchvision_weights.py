"""Torchvision's models as the source of weights for the same networks here.

Both have the same layers in the same order under other names, so entries are paired by their order.
"""

from __future__ import annotations

from itertools import zip_longest

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def load_torchvision(model: nn.Module, source: nn.Module) -> None:
    """Copy every parameter and buffer of `source`, and its norms' eps and momentum, into `model`, in order.

    `source`: a model of torchvision (MobileNetV2 and V3, EfficientNet and V2, ShuffleNetV2, ResNet); `model`: the same network
    as a classifier of ours. Nothing is copied where they differ: ValueError names the first pair of entries whose last names
    (such as "running_mean") or shapes aren't equal.
    """
    pairs = list(zip_longest(model.state_dict().items(), source.state_dict().items(), fillvalue=(None, None)))
    for (ours, target), (theirs, value) in pairs:
        if ours is None or theirs is None or ours.split(".")[-1] != theirs.split(".")[-1] or target.shape != value.shape:
            raise ValueError(
                f"{_described(ours, target)} here meets {_described(theirs, value)} in {type(source).__name__}: "
                "these aren't the same network"
            )
    norms = [[m for m in network.modules() if isinstance(m, _BatchNorm)] for network in (model, source)]
    with torch.no_grad():
        for (_, target), (_, value) in pairs:
            target.copy_(value)
    for ours, theirs in zip(*norms, strict=True):
        ours.eps, ours.momentum = theirs.eps, theirs.momentum


def _described(name: str | None, value: torch.Tensor | None) -> str:
    return "nothing" if name is None else f"{name} {list(value.shape)}"
