"""The forward and the backward pass of a state's mixed operations: which kernels and matrix products follow each other.

Maps of chains lie channels outermost, [channels, B, H', W']: a pointwise convolution of all chains and targets is then one
batched matrix product over their channels without a copy, and so is the gradient of its weights, summed over the batch.

Letters as in operator.py; L steps of the longest chain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from search.kernels.depthwise_bank import launch as bank
from search.kernels.mixed_state.launch import step_backward, step_forward
from search.kernels.mixed_state.structure import Step, Structure
from search.kernels.norm_sum import launch as sums


class Vectors(NamedTuple):
    """What maps and norms are multiplied by and what is added, each None for ones or zeros: see operator.py."""

    gates: Tensor | None
    gamma: Tensor | None
    beta: Tensor | None
    inner_gamma: Tensor | None
    inner_beta: Tensor | None


@dataclass
class Kept:
    """What the forward pass makes and the backward pass reads.

    - last: mean, var, invstd [N, T*C] of the last norms.
    - zs: of each step the pointwise convolutions' maps [B, chains * T*C, H', W'].
    - inner: of each norm between steps, all chains' side by side: mean, var, invstd [1, chains * T*C] and vectors
      [1 or 2, 1, chains * T*C].
    """

    last: list[Tensor] = field(default_factory=list)
    zs: list[Tensor] = field(default_factory=list)
    inner: list[Tensor] = field(default_factory=list)
    max_pool: Tensor | None = None
    codes: Tensor | None = None
    avg_pool: Tensor | None = None

    def tensors(self) -> list[Tensor]:
        """In one list, as an operator returns them."""
        pools = [t for t in (self.max_pool, self.codes, self.avg_pool) if t is not None]
        return [*self.last, *self.zs, *self.inner, *pools]

    @classmethod
    def of(cls, tensors: Sequence[Tensor], structure: Structure) -> Kept:
        """From `tensors`."""
        rest = iter(tensors)
        kept = cls([next(rest) for _ in range(3)])
        steps = max(structure.lengths, default=0)
        kept.zs = [next(rest) for _ in range(steps)]
        kept.inner = [next(rest) for _ in range(4 * max(steps - 1, 0))]
        if structure.max_pool:
            kept.max_pool, kept.codes = next(rest), next(rest)
        if structure.avg_pool:
            kept.avg_pool = next(rest)
        return kept

    def norm(self, i: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Mean, var, invstd and vectors of the norm after step i."""
        mean, var, invstd, vectors = self.inner[4 * i : 4 * i + 4]
        return mean, var, invstd, vectors

    def summed(self, structure: Structure, x: Tensor, others: Sequence[Tensor]) -> list[Tensor]:
        """What the weighted sum is over."""
        shared = [t for t in (self.max_pool, self.avg_pool, x if structure.same else None) if t is not None]
        return [*structure.ends(self.zs, x.shape[1]), *others, *shared]


def forward(
    x: Tensor,
    weights: Tensor,
    structure: Structure,
    vectors: Vectors,
    others: Sequence[Tensor],
    eps: float,
) -> tuple[Tensor, Kept]:
    """y [B, T*C, H', W'], and what is kept."""
    bank.check_device(x)
    batch, channels = x.shape[:2]
    size = [(n + structure.stride - 1) // structure.stride for n in x.shape[2:]]
    pool_shape = (batch, channels, *size)
    kept = Kept()
    if structure.max_pool:
        kept.max_pool, kept.codes = x.new_empty(pool_shape), x.new_empty(pool_shape, dtype=torch.uint8)
    if structure.avg_pool:
        kept.avg_pool = x.new_empty(pool_shape)
    steps = list(structure.steps(channels))
    if steps or kept.max_pool is not None or kept.avg_pool is not None:
        d = _first(x, weights, structure, steps, (kept.max_pool, kept.codes, kept.avg_pool))
    row = 0
    for i, step in enumerate(steps):
        if i:
            z = _prefix(kept.zs[-1], step, structure, channels)
            at = slice(row, row := row + z.shape[1])
            scaling = (None, _row(vectors.inner_gamma, at), _row(vectors.inner_beta, at))
            kept.inner += sums.statistics([z], z.shape[1], eps, scaling=scaling)
            mean, _, _, scales = kept.norm(i - 1)
            affine = vectors.inner_beta is not None
            d = step_forward(z, weights[step.depthwise], step.sizes, step.dilations, mean, scales, affine)
        kept.zs.append(_by_rows(torch.bmm(_pointwise(weights, step, channels), _flat(d, channels)), d))
    y = x.new_empty((batch, structure.targets * channels, *size))
    zs = kept.summed(structure, x, others)
    flags = structure.normalise()
    _, *kept.last = sums.forward(zs, *vectors[:3], None, None, eps, flags, y)
    return y, kept


@dataclass
class Gradients:
    """By x, flat weights, gates [N, T], gamma and beta [N, T*C], inner gamma and beta, and the other maps."""

    x: Tensor
    weights: Tensor | None
    gates: Tensor | None
    gamma: Tensor
    beta: Tensor
    inner_gamma: list[Tensor]
    inner_beta: list[Tensor]
    others: list[Tensor]


def backward(
    grad: Tensor,
    x: Tensor,
    weights: Tensor,
    structure: Structure,
    vectors: Vectors,
    others: Sequence[Tensor],
    kept: Kept,
    need_weights: bool,
) -> Gradients:
    """All gradients; those of the weights where they are needed."""
    channels = x.shape[1]
    steps = list(structure.steps(channels))
    d_zs = [_like(z) for z in kept.zs]
    d_others = [torch.empty_like(z, memory_format=torch.contiguous_format) for z in others]
    # of max pool, average pool and the state itself, those that there are
    like = kept.max_pool if kept.max_pool is not None else kept.avg_pool if kept.avg_pool is not None else x
    d_shared = [like.new_empty(like.shape) for _ in range(structure.shared())]
    mean, _, invstd = kept.last
    _, d_gates, d_gamma, d_beta = sums.backward(
        grad, kept.summed(structure, x, others), *vectors[:3], mean, invstd, True, structure.normalise(),
        [*structure.ends(d_zs, channels), *d_others, *d_shared],
    )  # fmt: skip
    found = Gradients(x, torch.empty_like(weights) if need_weights else None, d_gates, d_gamma, d_beta, [], [], d_others)
    row = sum(kept.norm(i)[0].shape[1] for i in range(len(steps) - 1))
    for i in range(len(steps) - 1, 0, -1):
        step = steps[i]
        z = _prefix(kept.zs[i - 1], step, structure, channels)
        mean, _, invstd, scales = kept.norm(i - 1)
        at = slice(row - z.shape[1], row)
        row -= z.shape[1]
        own, affine = weights[step.depthwise], vectors.inner_beta is not None
        arguments = (z, own, step.sizes, step.dilations, mean, scales, affine)
        if found.weights is not None:
            _by_pointwise(found.weights, step, d_zs[i], step_forward(*arguments), channels)
        d_d = _by_rows(torch.bmm(_pointwise(weights, step, channels).mT, _flat(d_zs[i], channels)), z)
        by_norm = step_backward(*arguments, d_d, None if found.weights is None else found.weights[step.depthwise])
        _, _, by_gamma, by_beta = sums.backward(
            by_norm, [z], None, _row(vectors.inner_gamma, at), _row(vectors.inner_beta, at), mean, invstd, True, [True],
            [_prefix(d_zs[i - 1], step, structure, channels)],
        )  # fmt: skip
        found.inner_gamma.insert(0, by_gamma[0])
        found.inner_beta.insert(0, by_beta[0])
    found.x = _by_state(x, weights, structure, steps, d_zs, d_shared, kept.codes, found.weights)
    return found


def _first(
    x: Tensor, weights: Tensor, structure: Structure, steps: Sequence[Step], pools: Sequence[Tensor | None]
) -> Tensor | None:
    """The first depthwise convolutions of all chains [B, chains * T*C, H', W'], and the pools, which are filled."""
    convs: Sequence[Tensor] = ()
    d = None
    if steps:
        height, width = ((n + structure.stride - 1) // structure.stride for n in x.shape[2:])
        rows = structure.targets * x.shape[1]
        d = x.new_empty((len(steps[0].sizes) * rows, x.shape[0], height, width)).transpose(0, 1)
        convs = d.split(rows, dim=1)
    own = _depthwise(weights, steps, structure, x.shape[1])
    max_pool, codes, avg_pool = pools
    dilations = steps[0].dilations if steps else ()
    # a single pixel could be said to lie channels-last: these maps don't
    bank.forward(x, own, dilations, structure.stride, True, convs, max_pool, codes, avg_pool, last=False)
    return d


def _by_state(
    x: Tensor,
    weights: Tensor,
    structure: Structure,
    steps: Sequence[Step],
    d_zs: Sequence[Tensor],
    d_shared: Sequence[Tensor],
    codes: Tensor | None,
    weight_grads: Tensor | None,
) -> Tensor:
    """The gradient by x, of everything that reads it; fills the first steps' part of weight_grads."""
    rest = list(d_shared)
    same = rest.pop() if structure.same else None
    by_x = torch.empty_like(x, memory_format=torch.contiguous_format)
    if not steps and not rest:
        # the state itself alone
        return same
    by_max = rest.pop(0) if structure.max_pool else None
    by_avg = rest.pop(0) if structure.avg_pool else None
    channels, d_ds, own_grads = x.shape[1], (), ()
    if steps:
        d_d = _by_rows(torch.bmm(_pointwise(weights, steps[0], channels).mT, _flat(d_zs[0], channels)), d_zs[0])
        d_ds = d_d.split(structure.targets * channels, dim=1)
        if weight_grads is not None:
            d = _first(x, weights, structure, steps, (None, None, None))
            _by_pointwise(weight_grads, steps[0], d_zs[0], d, channels)
            own_grads = _depthwise(weight_grads, steps, structure, channels)
    own = _depthwise(weights, steps, structure, channels)
    dilations = steps[0].dilations if steps else ()
    bank.backward(x, own, dilations, structure.stride, True, d_ds, by_max, codes, by_avg, by_x, own_grads, last=False)
    return by_x if same is None else by_x.add_(same)


def _by_pointwise(weight_grads: Tensor, step: Step, d_z: Tensor, d: Tensor, channels: int) -> None:
    """Fills a step's gradients of pointwise weights."""
    out = _pointwise(weight_grads, step, channels)
    torch.bmm(_flat(d_z, channels), _flat(d, channels).mT, out=out)


def _depthwise(weights: Tensor, steps: Sequence[Step], structure: Structure, channels: int) -> list[Tensor]:
    """The first step's depthwise weights of each chain, [T*C, 1, k, k], views."""
    if not steps:
        return []
    rows = structure.targets * channels
    parts = weights[steps[0].depthwise].split([rows * size * size for size in steps[0].sizes])
    return [part.view(rows, 1, size, size) for part, size in zip(parts, steps[0].sizes, strict=True)]


def _pointwise(weights: Tensor, step: Step, channels: int) -> Tensor:
    """A step's pointwise weights [chains * T, C, C], a view."""
    return weights[step.pointwise].view(-1, channels, channels)


def _flat(maps: Tensor, channels: int) -> Tensor:
    """[B, G*C, H, W], channels outermost in memory -> [G, C, B*H*W], a view."""
    return maps.transpose(0, 1).reshape(-1, channels, maps.shape[0] * maps.shape[2] * maps.shape[3])


def _by_rows(flat: Tensor, like: Tensor) -> Tensor:
    """[G, C, B*H*W] -> [B, G*C, H, W], a view."""
    return flat.view(-1, like.shape[0], *like.shape[2:]).transpose(0, 1)


def _prefix(maps: Tensor, step: Step, structure: Structure, channels: int) -> Tensor:
    """Of a step's maps those that the next step reads: of the first chains."""
    return maps[:, : len(step.sizes) * structure.targets * channels]


def _like(z: Tensor) -> Tensor:
    return z.new_empty(z.transpose(0, 1).shape).transpose(0, 1)


def _row(vector: Tensor | None, at: slice) -> Tensor | None:
    return None if vector is None else vector[at].unsqueeze(0)
