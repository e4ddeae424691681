"""Batch norms of equal settings as one, and the moves of their running statistics, gathered for a whole graph.

Several passes through a graph may lie side by side, each normalised by statistics of its own: maps of P passes are
[B*P, C, H, W], the passes of an image one after the other, so that norms read them as [B, P*C, H, W].

Group norms without scale and shift are batch norms of one image whose channels are the groups of all images.

Letters: B batch, T norms, C channels of each, G groups of each, P passes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Passes(NamedTuple):
    """How many passes lie side by side, and how often each of them is one of the reference plan's."""

    beside: int = 1
    times: int = 1

    def apart(self, x: Tensor) -> Tensor:
        """[B*P, C, H, W] -> [B, P*C, H, W]."""
        return x if self.beside == 1 else x.unflatten(0, (-1, self.beside)).flatten(1, 2)


ONE = Passes()


def uses_own_statistics(norm: nn.BatchNorm2d | nn.GroupNorm) -> bool:
    """Whether a norm reads the statistics of what it normalises, not running ones."""
    return isinstance(norm, nn.GroupNorm) or norm.training or norm.running_mean is None


def single_value_error(z: Tensor) -> ValueError:
    """What torch's batch norm says of maps that have one value a channel, and so no variance."""
    return ValueError(f"Expected more than 1 value per channel when training, got input size {z.shape}")


class Norms:
    """Several norms of equal settings: their tensors side by side.

    Attributes:
        passes: through these norms.
        groups: G of group norms, which have no weight and bias; 0 for batch norms.
        weight, bias: [P*T*C], or None where the norms aren't affine.
        training: whether the batch's statistics normalise.
        running: mean and variance [P*T*C], copies; None where nothing needs them.
        batch: mean and unbiased variance [P*T*C] of a batch, if whoever normalised left them here.
    """

    def __init__(self, norms: Sequence[nn.BatchNorm2d | nn.GroupNorm], passes: Passes = ONE) -> None:
        self.norms = norms
        self.passes = passes
        first = norms[0]
        self.groups = first.num_groups if isinstance(first, nn.GroupNorm) else 0
        self.eps = first.eps
        self.tracked = not self.groups and first.training and first.track_running_stats and first.running_mean is not None
        self.training = uses_own_statistics(first)
        self.momentum = momentum_of(first) if self.tracked else 0.0
        self.batch: tuple[Tensor, Tensor] | None = None
        self.running: tuple[Tensor, Tensor] | None = None
        self.weight = torch.cat([norm.weight for norm in norms] * passes.beside) if first.affine else None
        self.bias = torch.cat([norm.bias for norm in norms] * passes.beside) if first.affine else None

    def read_as(self, z: Tensor) -> tuple[int, int] | None:
        """Images and channels that these norms read maps z [B*P, T*C, H, W] as, in z's order; None: as they are.

        Raises `single_value_error`.
        """
        images, channels = len(z) // self.passes.beside, self.passes.beside * z.shape[1]
        if self.groups:
            images, channels = 1, len(z) * len(self.norms) * self.groups
        if self.training and z.numel() <= channels:
            raise single_value_error(z)
        return None if channels == z.shape[1] and images == len(z) else (images, channels)

    def read_running(self) -> tuple[Tensor, Tensor]:
        """The running statistics, copied once."""
        if self.running is None:
            self.running = (
                torch.cat([norm.running_mean for norm in self.norms] * self.passes.beside),
                torch.cat([norm.running_var for norm in self.norms] * self.passes.beside),
            )
        return self.running

    def arguments(self) -> tuple:
        """(weight, bias, running, training, momentum, eps), as `F.batch_norm` takes them; it moves the copies.

        Of several passes they become the batches' own statistics; the norms' move from one pass to the next.
        """
        running = self.read_running() if self.tracked or not self.training else None
        momentum = self.momentum
        if self.tracked and self.passes != ONE:
            self.batch, momentum = running, 1.0
        return self.weight, self.bias, running, self.training, momentum, self.eps


class Moves:
    """Running statistics to be moved, all at once."""

    def __init__(self) -> None:
        self._norms: list[nn.BatchNorm2d] = []
        self._copied: tuple[list[Tensor], list[Tensor]] = [], []
        # by pass and momentum
        self._towards: dict[tuple[int, float], tuple[list[Tensor], list[Tensor]]] = {}

    def add(self, norms: Norms) -> None:
        """Norms whose copies have moved, or that hold the batches' statistics."""
        if not norms.tracked:
            return
        if norms.batch is None:
            assert norms.passes == ONE
            self._add(norms.norms, [part.chunk(len(norms.norms)) for part in norms.running], self._copied)
            return
        for number, batch in enumerate(_of_passes(norms.batch, norms.passes)):
            self._add(norms.norms, [part.chunk(len(norms.norms)) for part in batch], self._pair(norms.norms, number))

    def add_shared(self, norms: Sequence[nn.BatchNorm2d], batch: tuple[Tensor, Tensor], passes: Passes = ONE) -> None:
        """Norms that saw the same batch, with its mean and unbiased variance [P*C]."""
        for number, one in enumerate(_of_passes(batch, passes)):
            self._add(norms, [[part] * len(norms) for part in one], self._pair(norms, number))

    def _pair(self, norms: Sequence[nn.BatchNorm2d], number: int) -> tuple[list[Tensor], list[Tensor]]:
        return self._towards.setdefault((number, momentum_of(norms[0], number)), ([], []))

    def _add(
        self, norms: Sequence[nn.BatchNorm2d], statistics: Sequence[Sequence[Tensor]], pair: tuple[list[Tensor], list[Tensor]]
    ) -> None:
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
        # in the order of the passes
        for (_, momentum), (running, batch) in sorted(self._towards.items(), key=lambda item: item[0]):
            torch._foreach_lerp_(running, [part.to(own.dtype) for own, part in zip(running, batch, strict=True)], momentum)
        for times, norms in _by_count(self._norms).items():
            torch._foreach_add_([norm.num_batches_tracked for norm in norms], times)


def momentum_of(norm: nn.BatchNorm2d, number: int = 0) -> float:
    """The momentum of a batch that comes, counted from 0; torch's cumulative average (None) counts it in."""
    return 1.0 / float(norm.num_batches_tracked + number + 1) if norm.momentum is None else norm.momentum


def _of_passes(batch: tuple[Tensor, Tensor], passes: Passes) -> list[tuple[Tensor, Tensor]]:
    """Statistics of each pass, in the reference plan's order."""
    return list(zip(*(part.chunk(passes.beside) for part in batch), strict=True)) * passes.times


def _by_count(norms: Sequence[nn.BatchNorm2d]) -> dict[int, list[nn.BatchNorm2d]]:
    """How often each norm is there, and those that are as often."""
    found: dict[int, list[nn.BatchNorm2d]] = {}
    for norm, times in Counter(norms).items():
        found.setdefault(times, []).append(norm)
    return found
