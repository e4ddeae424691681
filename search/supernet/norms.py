"""Batch norms of equal settings as one, and the moves of their running statistics, gathered for a whole graph.

Letters: T norms, C channels of each.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Norms:
    """Several norms of equal settings: their tensors side by side.

    Attributes:
        weight, bias: [T*C], or None where the norms aren't affine.
        training: whether the batch's statistics normalise.
        running: mean and variance [T*C], copies; None where nothing needs them.
        batch: mean and unbiased variance [T*C] of a batch, if whoever normalised left them here.
    """

    def __init__(self, norms: Sequence[nn.BatchNorm2d]) -> None:
        self.norms = norms
        first = norms[0]
        self.eps = first.eps
        self.tracked = first.training and first.track_running_stats and first.running_mean is not None
        self.training = first.training or first.running_mean is None
        self.momentum = momentum_of(first) if self.tracked else 0.0
        self.batch: tuple[Tensor, Tensor] | None = None
        self.running: tuple[Tensor, Tensor] | None = None
        self.weight = torch.cat([norm.weight for norm in norms]) if first.affine else None
        self.bias = torch.cat([norm.bias for norm in norms]) if first.affine else None

    def read_running(self) -> tuple[Tensor, Tensor]:
        """The running statistics, copied once."""
        if self.running is None:
            self.running = (
                torch.cat([norm.running_mean for norm in self.norms]),
                torch.cat([norm.running_var for norm in self.norms]),
            )
        return self.running

    def arguments(self) -> tuple:
        """(weight, bias, running, training, momentum, eps), as `F.batch_norm` takes them; it moves the copies."""
        running = self.read_running() if self.tracked or not self.training else None
        return self.weight, self.bias, running, self.training, self.momentum, self.eps


class Moves:
    """Running statistics to be moved, all at once."""

    def __init__(self) -> None:
        self._norms: list[nn.BatchNorm2d] = []
        self._copied: tuple[list[Tensor], list[Tensor]] = [], []
        # by momentum
        self._towards: dict[float, tuple[list[Tensor], list[Tensor]]] = {}

    def add(self, norms: Norms) -> None:
        """Norms whose copies have moved, or that hold a batch's statistics."""
        if norms.tracked:
            moved = norms.running if norms.batch is None else norms.batch
            self._add(norms.norms, [part.chunk(len(norms.norms)) for part in moved], norms.batch is not None)

    def add_shared(self, norms: Sequence[nn.BatchNorm2d], batch: tuple[Tensor, Tensor]) -> None:
        """Norms that saw the same batch, with its mean and unbiased variance [C]."""
        self._add(norms, [[part] * len(norms) for part in batch], True)

    def _add(self, norms: Sequence[nn.BatchNorm2d], statistics: Sequence[Sequence[Tensor]], batch: bool) -> None:
        pair = self._towards.setdefault(momentum_of(norms[0]), ([], [])) if batch else self._copied
        for name, parts in zip(("running_mean", "running_var"), statistics, strict=True):
            pair[0].extend(getattr(norm, name) for norm in norms)
            pair[1].extend(parts)
        self._norms += norms

    @torch.no_grad()
    def apply(self) -> None:
        """Move them; once for each forward."""
        if not self._norms:
            return
        if self._copied[0]:
            torch._foreach_copy_(*self._copied)
        for momentum, (running, batch) in self._towards.items():
            torch._foreach_lerp_(running, [part.to(own.dtype) for own, part in zip(running, batch, strict=True)], momentum)
        torch._foreach_add_([norm.num_batches_tracked for norm in self._norms], 1)


def momentum_of(norm: nn.BatchNorm2d) -> float:
    """The momentum of the batch that comes; torch's cumulative average (None) counts it in."""
    return 1.0 / float(norm.num_batches_tracked + 1) if norm.momentum is None else norm.momentum
