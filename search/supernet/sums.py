"""Sums over candidates of one state and one set of nodes: each map times its candidate's weight.

Letters: B batch, T targets, N jobs, C channels of a candidate, H and W size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from search.kernels.norm_sum import norm_sum
from search.supernet.bank import Chains, Job, Normed, Shared, Single, maps_of
from search.supernet.norms import Moves


class Sum(Protocol):
    """What a set of nodes gets of a state.

    gates: [N, T], set when the weights of all candidates have been read; None where all are one.
    """

    gates: Tensor | None

    def nodes(self) -> tuple[int, ...]:
        """The T nodes."""
        ...

    def places(self) -> list[int]:
        """Of the gates, row by row, the places where the weights were read."""
        ...

    def __call__(self, x: Tensor) -> Tensor:
        """x [B, C, H, W] -> [B, T*C, H', W']."""
        ...

    def move(self, moves: Moves) -> None:
        """Add what running statistics move towards."""
        ...


@dataclass
class _Sum:
    jobs: Sequence[Job]
    triton: bool
    gates: Tensor | None = None

    def nodes(self) -> tuple[int, ...]:
        """See `Sum`."""
        return tuple(target.node for target in self.jobs[0].targets)

    def places(self) -> list[int]:
        """See `Sum`."""
        return [target.place for job in self.jobs for target in job.targets]


class NormedSum(_Sum):
    """Of jobs that end with norms of equal settings."""

    jobs: Sequence[Normed]

    def __call__(self, x: Tensor) -> Tensor:
        """See `Sum`."""
        x = x.contiguous()
        zs = maps_of(self.jobs, x)
        norms = [job.norm for job in self.jobs]
        first, shape = norms[0], zs[0].shape
        # passes side by side, each with statistics of its own, or groups of images
        read_as = first.read_as(zs[0])
        if read_as is not None:
            zs = [z.reshape(*read_as, -1, shape[3]) for z in zs]
        weights = None
        if self.gates is not None:
            # in each pass, or image, the channels, or groups, of each target
            rows = self.gates[:, None, :, None]
            times = shape[0] if first.groups else first.passes.beside
            weights = rows.expand(-1, times, -1, zs[0].shape[1] // (times * rows.shape[2])).reshape(len(zs), -1)
        gammas, betas = (
            None if first.weight is None else torch.stack(rows)
            for rows in ([norm.weight for norm in norms], [norm.bias for norm in norms])
        )
        running = None
        if not first.training:
            running = tuple(list(rows) for rows in zip(*(norm.read_running() for norm in norms), strict=True))
        gammas, betas = (_product(weights, rows) for rows in (gammas, betas)) if first.weight is not None else (weights, None)
        ones = zs[0].new_ones(len(zs), dtype=torch.float32)
        y, mean, var = norm_sum(zs, ones, gammas, betas, running, first.eps, triton=self.triton)
        if first.training:
            for norm, *batch in zip(norms, mean, var, strict=True):
                norm.batch = tuple(batch)
        return y.view(shape)

    def move(self, moves: Moves) -> None:
        """See `Sum`."""
        for job in self.jobs:
            for norms in job.norms if isinstance(job, Chains) else [job.norm]:
                moves.add(norms)


class Mixture(_Sum):
    """Of maps that all targets read alike."""

    jobs: Sequence[Shared]

    def __call__(self, x: Tensor) -> Tensor:
        """See `Sum`."""
        targets = len(self.jobs[0].targets)
        stacked = torch.stack([job.map(x.contiguous()) for job in self.jobs], dim=1)
        with torch.autocast(stacked.device.type, enabled=False):
            # half types in float32: the matrix product would round the weights
            exact = torch.promote_types(stacked.dtype, torch.float32)
            gates = stacked.new_ones((len(self.jobs), targets), dtype=exact) if self.gates is None else self.gates
            mixed = torch.matmul(gates.to(exact).t(), stacked.flatten(2).to(exact))
        return mixed.view(len(stacked), -1, *stacked.shape[-2:]).to(stacked.dtype)

    def move(self, moves: Moves) -> None:
        """See `Sum`."""
        for job in self.jobs:
            if job.batch is not None:
                moves.add_shared(job.norms, job.batch, job.passes)


@dataclass
class Lone:
    """A module of any kind towards one node."""

    single: Single
    gates: Tensor | None = None

    def nodes(self) -> tuple[int, ...]:
        """See `Sum`."""
        return (self.single.target.node,)

    def places(self) -> list[int]:
        """See `Sum`."""
        return [self.single.target.place]

    def __call__(self, x: Tensor) -> Tensor:
        """See `Sum`."""
        y = self.single(x.contiguous())
        return y if self.gates is None else self.gates.view(()) * y

    def move(self, moves: Moves) -> None:
        """The module moves its own."""


def sums_of(jobs: Sequence[Job], triton: bool) -> list[Sum]:
    """The sums over jobs of one state: those of the same targets together, and their norms, if any, of the same mode."""
    groups: dict[tuple, list[Job]] = {}
    for job in jobs:
        norm = getattr(job, "norm", None)
        mode = None if norm is None else (norm.eps, norm.training, norm.weight is None, norm.groups)
        groups.setdefault((mode, *(target.node for target in job.targets)), []).append(job)
    return [(Mixture if isinstance(group[0], Shared) else NormedSum)(group, triton) for group in groups.values()]


def _product(weights: Tensor | None, rows: Tensor) -> Tensor:
    return rows if weights is None else weights * rows
