"""The candidates that leave one state, run together on tensors alone.

A job is made of modules' tensors before it runs, so that running it again in backward (`torch.utils.checkpoint`) reads what the
first run read, also where weights were handed over for one call, and moves no running statistic.

Letters: B batch, T targets of a state, C channels of a candidate, H and W size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from search.kernels.separable import norm_relu_separable, relu_separable
from search.supernet.candidates import Chain, Pool, Separable

# a weight of a candidate: None is one
Weight = Tensor | None


class Job(Protocol):
    """Candidates of one kind, for one or more targets."""

    nodes: list[int]

    def maps(self, x: Tensor) -> Sequence[Tensor]:
        """x [B, C, H, W] -> what each target gets, weighted."""
        ...

    def move_statistics(self) -> None:
        """Write the moved running statistics into the norms; once for each forward."""
        ...


def run(x: Tensor, jobs: Sequence[Job]) -> dict[int, Tensor]:
    """What the candidates of all jobs give to each target, summed."""
    sums: dict[int, Tensor] = {}
    for job in jobs:
        for node, y in zip(job.nodes, job.maps(x), strict=True):
            sums[node] = sums[node] + y if node in sums else y
    return sums


class Norms:
    """Several norms of equal settings as one: their tensors side by side, running statistics moved together."""

    def __init__(self, norms: Sequence[nn.BatchNorm2d]) -> None:
        self.norms = norms
        first = norms[0]
        self.eps = first.eps
        self.tracked = first.training and first.track_running_stats and first.running_mean is not None
        self.training = first.training or first.running_mean is None
        self.momentum = 0.0 if first.momentum is None else first.momentum
        if self.tracked and first.momentum is None:
            # torch's cumulative average counts the batch that comes
            self.momentum = 1.0 / float(first.num_batches_tracked + 1)
        self.running: tuple[Tensor, Tensor] | None = None
        if self.tracked or not self.training:
            self.running = (
                torch.cat([norm.running_mean for norm in norms]),
                torch.cat([norm.running_var for norm in norms]),
            )
        self.weight: Weight = torch.cat([norm.weight for norm in norms]) if first.affine else None
        self.bias: Weight = torch.cat([norm.bias for norm in norms]) if first.affine else None

    def scale(self, weights: Sequence[Weight], dtype: torch.dtype) -> None:
        """Multiply each norm's output by a weight, which becomes its scale."""
        if all(weight is None for weight in weights):
            return
        first = self.norms[0]
        one = next(weight for weight in weights if weight is not None).new_ones((), dtype=dtype)
        factors = torch.stack([one if weight is None else weight.to(dtype) for weight in weights])
        factors = factors.repeat_interleave(first.num_features)
        self.weight = factors if self.weight is None else self.weight * factors
        self.bias = None if self.bias is None else self.bias * factors

    def __call__(self, z: Tensor) -> Tensor:
        """z [B, T*C, H, W] -> normalised."""
        running = self.running or (None, None)
        return F.batch_norm(z, *running, self.weight, self.bias, self.training, self.momentum, self.eps)

    @torch.no_grad()
    def move(self) -> None:
        """Copy the moved statistics into the norms."""
        if not self.tracked:
            return
        for own, moved in zip(("running_mean", "running_var"), self.running, strict=True):
            for norm, part in zip(self.norms, moved.chunk(len(self.norms)), strict=True):
                getattr(norm, own).copy_(part)
        for norm in self.norms:
            norm.num_batches_tracked.add_(1)


@dataclass
class ChainJob:
    """Rows of separable convolutions; see `chain_job`."""

    nodes: list[int]
    # per step: depthwise [T, C, k, k] and pointwise [T, O, C] weights, (stride, padding, dilation)
    steps: list[tuple[Tensor, Tensor, tuple[int, int, int]]]
    norms: list[Norms]
    recompute: bool

    def maps(self, x: Tensor) -> Sequence[Tensor]:
        """x [B, C, H, W] -> a map for each target."""
        if self.recompute and len(self.steps) > 1:
            z = checkpoint(self._before_last_norm, x, use_reentrant=False, preserve_rng_state=False)
        else:
            z = self._before_last_norm(x)
        return self.norms[-1](z).chunk(len(self.nodes), dim=1)

    def _before_last_norm(self, x: Tensor) -> Tensor:
        depthwise, pointwise, geometry = self.steps[0]
        z = relu_separable(x, depthwise, pointwise, *geometry)
        for (depthwise, pointwise, (_, padding, dilation)), norms in zip(self.steps[1:], self.norms, strict=False):
            z = norm_relu_separable(
                z,
                depthwise,
                pointwise,
                padding,
                dilation,
                norms.weight,
                norms.bias,
                norms.running,
                norms.training,
                norms.momentum,
                norms.eps,
            )
        return z

    def move_statistics(self) -> None:
        """See `Job`."""
        for norms in self.norms:
            norms.move()


def chain_job(nodes: list[int], weights: Sequence[Weight], chains: Sequence[Chain], recompute: bool) -> ChainJob:
    """Chains of one key, each with its target and weight. `recompute`: keep only what the last norm reads."""
    columns = list(zip(*(chain.parts for chain in chains), strict=True))
    norms = [Norms([part.norm for part in column]) for column in columns]
    # not the input's dtype, which under autocast is another one
    norms[-1].scale(weights, columns[0][0].depthwise.weight.dtype)
    return ChainJob(nodes, [_step(column) for column in columns], norms, recompute)


def _step(parts: Sequence[Separable]) -> tuple[Tensor, Tensor, tuple[int, int, int]]:
    _, stride, padding, dilation = parts[0].geometry
    return (
        torch.stack([part.depthwise.weight[:, 0] for part in parts]),
        torch.stack([part.pointwise.weight[:, :, 0, 0] for part in parts]),
        (stride, padding, dilation),
    )


@dataclass
class PoolJob:
    """One pooling for all targets, whose norms differ in their running statistics alone; see `pool_job`."""

    nodes: list[int]
    weights: Sequence[Weight]
    pool: nn.Module
    norms: Sequence[nn.BatchNorm2d | None]
    # mean and variance of the batch, where running statistics move
    batch: tuple[Tensor, Tensor] | None
    training: bool

    def maps(self, x: Tensor) -> Sequence[Tensor]:
        """x [B, C, H, W] -> a map for each target."""
        y = self.pool(x)
        first = self.norms[0]
        if first is None:
            maps = [y] * len(self.nodes)
        elif self.training:
            # with momentum one the "running" statistics become the batch's own
            batch = self.batch or (None, None)
            maps = [F.batch_norm(y, *batch, training=True, momentum=1.0, eps=first.eps)] * len(self.nodes)
        else:
            maps = [norm(y) for norm in self.norms]
        return [y if weight is None else weight * y for y, weight in zip(maps, self.weights, strict=True)]

    @torch.no_grad()
    def move_statistics(self) -> None:
        """See `Job`."""
        if self.batch is None:
            return
        for norm in self.norms:
            norm.num_batches_tracked.add_(1)
            momentum = 1.0 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
            for own, seen in zip((norm.running_mean, norm.running_var), self.batch, strict=True):
                own.mul_(1 - momentum).add_(seen, alpha=momentum)


def pool_job(nodes: list[int], weights: Sequence[Weight], pools: Sequence[Pool]) -> PoolJob:
    """Pools of one key, each with its target and weight."""
    norms = [pool.norm for pool in pools]
    first = norms[0]
    training = first is not None and (first.training or first.running_mean is None)
    tracked = training and first.track_running_stats and first.running_mean is not None
    batch = (torch.zeros_like(first.running_mean), torch.ones_like(first.running_var)) if tracked else None
    return PoolJob(nodes, weights, pools[0].pool, norms, batch, training)
