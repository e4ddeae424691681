"""Batch-norm recalibration: a sub-network's running statistics from scratch (Single Path One-Shot, arXiv 1904.00420, 3.4)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

Batch = TypeVar("Batch")


@torch.no_grad()
def recalibrate(model: nn.Module, batches: Iterable[Batch], forward: Callable[[Batch], object]) -> int:
    """Replace the running statistics of `model` by the plain average over `batches`.

    `forward(batch)` runs the model on a batch, in train mode, which this function sets and puts back. Returns the number
    of batches seen. Raises ValueError when there is none, with the statistics as they were.
    """
    batches = iter(batches)
    first = next(batches, None)
    if first is None:
        raise ValueError("recalibration needs at least one batch, and there is none")
    training = model.training
    model.train()
    # a model may keep norms in eval mode (frozen stages): theirs are not recomputed
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats and m.training]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's cumulative average
    try:
        forward(first)
        count = 1
        for batch in batches:
            forward(batch)
            count += 1
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        model.train(training)
    return count
