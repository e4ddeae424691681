"""What a partial-channel node takes, and how its tensors lie in memory.

Shapes: B batch, K groups, T = C / K channels that the candidates see, R = C - T the rest, H and W size of the node.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor


def checked(
    mixed: Sequence[Tensor],
    rests: Sequence[Tensor],
    k: int,
    mixed_weights: Tensor | None,
    rest_weights: Tensor | None,
    strides: Sequence[int] | None,
) -> tuple[list[Tensor], list[Tensor], list[int]]:
    """(mixed, rests, strides) with all tensors in the widest of their types, as `torch.cat` has it, under autocast too.

    ValueError for shapes, strides or numbers of weights that make no node.
    """
    if not mixed:
        raise ValueError("a node needs at least one mixed tensor [B, C / k, H, W]; max_pool_2x2 pools a rest alone.")
    b, t, h, w = mixed[0].shape
    if any(m.shape != mixed[0].shape for m in mixed):
        raise ValueError(f"mixed tensors of shapes {_shapes(mixed)}: all must have one shape.")
    if k < 1 or bool(rests) != (k > 1):
        raise ValueError(f"k={k} with {len(rests)} rests: k > 1 needs at least one rest, and k=1 leaves no rest.")
    strides = [1] * len(rests) if strides is None else list(strides)
    if len(strides) != len(rests) or any(s not in (1, 2) for s in strides):
        raise ValueError(f"strides={strides} for {len(rests)} rests: give 1 or 2 for each.")
    for rest, stride in zip(rests, strides, strict=True):
        if rest.shape[:2] != (b, (k - 1) * t) or (pooled_size(rest, stride)) != (h, w):
            raise ValueError(
                f"a rest of shape {tuple(rest.shape)} at stride {stride} beside mixed {tuple(mixed[0].shape)}, k={k}: "
                f"needed are {(k - 1) * t} channels and, after pooling, {h} by {w} positions."
            )
    for weights, xs, name in ((mixed_weights, mixed, "mixed"), (rest_weights, rests, "rest")):
        if weights is not None and weights.shape != (len(xs),):
            raise ValueError(f"{name}_weights of shape {tuple(weights.shape)}: give one weight for each of {len(xs)} tensors.")
    dtype = reduce(torch.promote_types, (x.dtype for x in (*mixed, *rests)))
    return [m.to(dtype) for m in mixed], [r.to(dtype) for r in rests], strides


def pooled_size(x: Tensor, stride: int) -> tuple[int, int]:
    """(height, width) of x [B, C, H, W] after the 2x2 pooling of stride 2, which rounds odd sizes up, or unchanged."""
    return (x.shape[2] + stride - 1) // stride, (x.shape[3] + stride - 1) // stride


def is_channels_last(mixed: Sequence[Tensor], rests: Sequence[Tensor]) -> bool:
    """Whether the channels of one position lie side by side; of the rest, a view of its state, if there is one."""
    x = (*rests, *mixed)[0]
    return x.stride(1) == 1 and x.stride(3) != 1


def empty(like: Tensor, shape: Sequence[int], channels_last: bool, dtype: torch.dtype | None = None) -> Tensor:
    """An unwritten dense tensor [B, C, H, W] on the device, and of the type, of `like`."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty(tuple(shape), dtype=dtype or like.dtype, device=like.device, memory_format=layout)


def _shapes(xs: Sequence[Tensor]) -> str:
    return ", ".join(str(tuple(x.shape)) for x in xs)
