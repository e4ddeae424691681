"""The definition of a state's mixed operations, in plain PyTorch. Letters as in operator.py."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from search.kernels.mixed_state.structure import Structure


def mixed_state_reference(
    x: Tensor,
    weights: Tensor,
    structure: Structure,
    gates: Tensor | None = None,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    inner_gamma: Tensor | None = None,
    inner_beta: Tensor | None = None,
    others: Sequence[Tensor] = (),
    eps: float = 1e-5,
) -> Tensor:
    """y as `mixed_state`'s, candidate by candidate and target by target."""
    channels, targets = x.shape[1], structure.targets
    steps = list(structure.steps(channels))
    sums: list[Tensor] = []
    for t in range(targets):
        rows = slice(t * channels, (t + 1) * channels)
        candidates = []
        for j, length in enumerate(structure.lengths):
            h, row = x, 0
            for i, step in enumerate(steps[:length]):
                if i:
                    at = slice(row + (j * targets + t) * channels, row + (j * targets + t + 1) * channels)
                    h = _norm(h, _part(inner_gamma, at), _part(inner_beta, at), eps)
                    row += len(step.sizes) * targets * channels
                size, dilation = step.sizes[j], step.dilations[j]
                per_chain = [targets * channels * s * s for s in step.sizes]
                depthwise = weights[step.depthwise].split(per_chain)[j].view(targets, channels, 1, size, size)[t]
                pointwise = weights[step.pointwise].view(-1, targets, channels, channels, 1, 1)[j, t]
                stride = 1 if i else structure.stride
                h = F.conv2d(F.relu(h), depthwise, None, stride, dilation * (size // 2), dilation, channels)
                h = F.conv2d(h, pointwise)
            candidates.append(h)
        candidates += [z[:, rows] for z in others]
        if structure.max_pool:
            candidates.append(F.max_pool2d(x, 3, structure.stride, 1))
        if structure.avg_pool:
            candidates.append(F.avg_pool2d(x, 3, structure.stride, 1, count_include_pad=False))
        if structure.same:
            candidates.append(x)
        total = torch.zeros_like(candidates[0])
        for n, (z, normalise) in enumerate(zip(candidates, structure.normalise(), strict=True)):
            of_row = (None if vector is None else vector[n, rows] for vector in (gamma, beta))
            z = _norm(z, *of_row, eps) if normalise else _affine(z, *of_row)
            total = total + (z if gates is None else gates[n, t] * z)
        sums.append(total)
    return torch.cat(sums, dim=1)


def _norm(z: Tensor, gamma: Tensor | None, beta: Tensor | None, eps: float) -> Tensor:
    return F.batch_norm(z, None, None, gamma, beta, True, 0.0, eps)


def _affine(z: Tensor, gamma: Tensor | None, beta: Tensor | None) -> Tensor:
    z = z if gamma is None else z * gamma[:, None, None]
    return z if beta is None else z + beta[:, None, None]


def _part(vector: Tensor | None, at: slice) -> Tensor | None:
    return None if vector is None else vector[at]
