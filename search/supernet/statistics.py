"""Batch-norm running statistics: only the weight step on training data may move them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def suspended_statistics(model: nn.Module) -> Iterator[None]:
    """In train mode norms use the batch's statistics but move no buffer (architecture, unrolled and scoring forwards)."""
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
