"""What leaves one state of a graph, sorted into jobs: candidates of one kind, for all the nodes they lead to, in one pass.

Jobs of the same nodes are summed together, each map times its candidate's weight (sums.py). A job holds what was read of the
modules when the graph was read (graph.py), so that running it again in backward
(`torch.utils.checkpoint`) computes with the same numbers and moves no running statistic.

Letters: B batch, T targets of a job, C channels of a candidate, H and W size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from search.kernels.pool_3x3 import avg_pool_3x3, max_pool_3x3
from search.kernels.separable import norm_relu_separable, relu_convolution, relu_separables
from search.supernet.candidates import Chain, Dense, Geometry, Halves, Kind, Pool, Same
from search.supernet.norms import ONE, Norms, Passes, uses_own_statistics


@dataclass
class Target:
    """Where a candidate's map goes: a node, and the place of the candidate's weight among those that were read of the graph."""

    node: int
    place: int


@dataclass
class Alike:
    """Candidates of one kind and key that leave one state, each with its target."""

    targets: list[Target]
    kinds: list[Kind]

    @property
    def nodes(self) -> tuple[int, ...]:
        """The nodes that they lead to."""
        return tuple(target.node for target in self.targets)


class Normed(Protocol):
    """A job whose maps are normalised, weighted and summed by one operation: norms of equal settings end it."""

    targets: list[Target]
    norm: Norms

    def maps(self, x: Tensor) -> Tensor:
        """x [B, C, H, W] -> what the norms read, [B, T*C, H', W']."""
        ...


@dataclass
class Chains:
    """Rows of separable convolutions: the first reads the state, each other one the norm of the one before."""

    targets: list[Target]
    geometries: list[Geometry]
    # of every step depthwise [T, C, k, k] and pointwise [T, O, C]
    weights: list[tuple[Tensor, Tensor]]
    norms: list[Norms]
    recompute: bool

    @property
    def norm(self) -> Norms:
        """The last."""
        return self.norms[-1]

    def maps(self, x: Tensor) -> Tensor:
        """See `Normed`."""
        if self.recompute and len(self.weights) > 1:
            return checkpoint(self._maps, x, use_reentrant=False, preserve_rng_state=False)
        return self._maps(x)

    def _maps(self, x: Tensor) -> Tensor:
        return self.rest(relu_separables(x, self.weights[:1], self.geometries[:1])[0])

    def rest(self, z: Tensor) -> Tensor:
        """From the first step's map to what the last norm reads."""
        for weights, (_, padding, dilation), norm in zip(self.weights[1:], self.geometries[1:], self.norms, strict=False):
            z = norm_relu_separable(z, *weights, padding, dilation, *norm.arguments(), norm.read_as(z))
        return z


def maps_of(jobs: Sequence[Normed], x: Tensor) -> list[Tensor]:
    """Each job's maps; chains that recompute nothing share their first step's ReLU."""
    together = [job for job in jobs if isinstance(job, Chains) and not (job.recompute and len(job.weights) > 1)]
    if not together:
        return [job.maps(x) for job in jobs]
    firsts = relu_separables(x, [job.weights[0] for job in together], [job.geometries[0] for job in together])
    made = {id(job): job.rest(z) for job, z in zip(together, firsts, strict=True)}
    return [made[id(job)] if id(job) in made else job.maps(x) for job in jobs]


@dataclass
class Denses:
    """ReLU and a full convolution: those of all targets are one."""

    targets: list[Target]
    geometry: Geometry
    # [T*O, C, k, k]
    weight: Tensor
    norm: Norms

    def maps(self, x: Tensor) -> Tensor:
        """See `Normed`."""
        return relu_convolution(x, self.weight, *self.geometry)


@dataclass
class Reductions:
    """Factorized reductions: the convolutions of all targets that read the same pixels are one."""

    targets: list[Target]
    # [T * rows, C, 1, 1] each
    weights: list[Tensor]
    norm: Norms
    relu: bool

    def maps(self, x: Tensor) -> Tensor:
        """See `Normed`."""
        x = F.relu(x) if self.relu else x
        shifted = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))[:, :, 1:, 1:]
        halves = [F.conv2d(y, weight, stride=2) for y, weight in zip((x, shifted), self.weights, strict=True)]
        return torch.cat([half.unflatten(1, (len(self.targets), -1)) for half in halves], dim=2).flatten(1, 2)


@dataclass
class Pools:
    """A pooling whose norms differ from target to target, as in eval mode: each has running statistics of its own."""

    targets: list[Target]
    pool: nn.Module
    norm: Norms

    def maps(self, x: Tensor) -> Tensor:
        """See `Normed`."""
        return pooled(self.pool, x).repeat(1, len(self.targets), 1, 1)


@dataclass
class Shared:
    """A map that all targets read alike: a pooling, normalised by the batch's statistics or not, or the state itself."""

    targets: list[Target]
    pool: nn.Module | None
    norms: list[nn.BatchNorm2d] = field(default_factory=list)
    # mean and variance of the batch, where running statistics move
    batch: tuple[Tensor, Tensor] | None = None
    passes: Passes = ONE

    def map(self, x: Tensor) -> Tensor:
        """x [B, C, H, W] -> [B, C, H', W']."""
        y = x if self.pool is None else pooled(self.pool, x)
        if not self.norms:
            return y
        # with momentum one the "running" statistics become the batch's own
        running = self.batch or (None, None)
        return F.batch_norm(self.passes.apart(y), *running, training=True, momentum=1.0, eps=self.norms[0].eps).view(y.shape)


class Single:
    """A module of any kind, for one target."""

    def __init__(self, target: Target, module: nn.Module) -> None:
        self.target = target
        self.module = module
        self._tensors = dict(module.named_parameters())
        self._modes = _modes(module)
        self._ran = False

    def __call__(self, x: Tensor) -> Tensor:
        """The module; again in backward with the parameters and modes it had, and with buffers that stay as they are."""
        if not self._ran:
            self._ran = True
            return self.module(x)
        buffers = {name: buffer.clone() for name, buffer in self.module.named_buffers()}
        present = _modes(self.module)
        try:
            _set_modes(self._modes)
            return functional_call(self.module, {**self._tensors, **buffers}, (x,))
        finally:
            _set_modes(present)


def _modes(module: nn.Module) -> list[tuple[nn.Module, dict[str, bool]]]:
    names = ("training", "track_running_stats")
    return [(part, {name: getattr(part, name) for name in names if hasattr(part, name)}) for part in module.modules()]


def _set_modes(modes: list[tuple[nn.Module, dict[str, bool]]]) -> None:
    for part, values in modes:
        for name, value in values.items():
            setattr(part, name, value)


Job = Chains | Denses | Reductions | Pools | Shared


def pooled(pool: nn.Module, x: Tensor) -> Tensor:
    """What the module makes of x."""
    name = pool_name(pool)
    if name is None:
        return pool(x)
    stride = _pair(pool.stride)[0]
    return max_pool_3x3(x, stride) if name == "max" else avg_pool_3x3(x, stride)


def pool_name(pool: nn.Module) -> str | None:
    """'max' or 'avg' for a 3x3 pool with padding 1 whose average counts the pixels inside the image, else None."""
    if _pair(pool.kernel_size) != (3, 3) or _pair(pool.padding) != (1, 1) or pool.ceil_mode:
        return None
    if len(set(_pair(pool.stride))) > 1:
        return None
    if isinstance(pool, nn.MaxPool2d):
        return "max" if _pair(pool.dilation) == (1, 1) and not pool.return_indices else None
    return "avg" if not pool.count_include_pad and pool.divisor_override is None else None


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def shared_norm(pool: Pool) -> bool:
    """Whether a pool's norm does the same to all targets: it reads the batch's statistics, and has no affine parameters."""
    return pool.norm is None or uses_own_statistics(pool.norm)


def pool_job(targets: list[Target], pools: Sequence[Pool], passes: Passes) -> Pools | Shared:
    """Pools of one key, each with its target."""
    first = pools[0]
    if first.norm is None:
        return Shared(targets, first.pool)
    norms = [pool.norm for pool in pools]
    if not shared_norm(first):
        return Pools(targets, first.pool, Norms(norms, passes))
    batch = None
    if first.norm.track_running_stats and first.norm.running_mean is not None:
        mean = first.norm.running_mean.repeat(passes.beside)
        batch = (torch.zeros_like(mean), torch.ones_like(mean))
    return Shared(targets, first.pool, norms, batch, passes)


def weights_of(alike: Alike) -> list[list[Tensor]]:
    """The convolutions' weights of candidates, by layer, each of all targets; none where there are no convolutions."""
    layers: list[list[Tensor]] = []
    if isinstance(alike.kinds[0], Dense):
        layers = [[kind.conv.weight for kind in alike.kinds]]
    elif isinstance(alike.kinds[0], Halves):
        layers = [[kind.first.weight for kind in alike.kinds], [kind.second.weight for kind in alike.kinds]]
    elif isinstance(alike.kinds[0], Chain):
        for parts in zip(*(chain.parts for chain in alike.kinds), strict=True):
            layers += [[part.depthwise.weight for part in parts], [part.pointwise.weight for part in parts]]
    return layers


def job_of(alike: Alike, weights: Sequence[Tensor], recompute: bool, passes: Passes = ONE) -> Job:
    """The job of candidates that run alike; `weights` of all targets, [T * rows, ...], in the order of `weights_of`.

    `recompute`: keep of each chain only what the last norm reads.
    """
    targets, kinds, first = alike.targets, alike.kinds, alike.kinds[0]
    if isinstance(first, Chain):
        return _chains(targets, kinds, weights, recompute, passes)
    if isinstance(first, Dense):
        return Denses(targets, first.geometry, weights[0], Norms([dense.norm for dense in kinds], passes))
    if isinstance(first, Halves):
        return Reductions(targets, list(weights), Norms([halves.norm for halves in kinds], passes), first.relu)
    if isinstance(first, Same):
        return Shared(targets, None)
    assert isinstance(first, Pool)
    return pool_job(targets, kinds, passes)


def _chains(
    targets: list[Target], chains: Sequence[Chain], weights: Sequence[Tensor], recompute: bool, passes: Passes
) -> Chains:
    count = len(targets)
    steps = []
    for depthwise, pointwise in zip(weights[::2], weights[1::2], strict=True):
        kernel = depthwise.shape[-2:]
        steps.append((depthwise.view(count, -1, *kernel), pointwise.view(count, -1, pointwise.shape[1])))
    geometries = [part.geometry for part in chains[0].parts]
    return Chains(targets, geometries, steps, chain_norms(chains, passes), recompute)


def chain_norms(chains: Sequence[Chain], passes: Passes = ONE) -> list[Norms]:
    """The norms of chains of one key, step by step."""
    return [Norms([part.norm for part in parts], passes) for parts in zip(*(chain.parts for chain in chains), strict=True)]
