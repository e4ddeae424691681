"""Launches of the Triton kernels: layouts, tiles, grids. Letters as in triton_kernels.py."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
from torch import Tensor
from triton import cdiv, next_power_of_2

from search.kernels.partial_node import triton_kernels as kernels
from search.kernels.partial_node.arguments import is_channels_last

# elements of a tile, and along the dimension whose elements are neighbours in memory, at most; 4 a thread leave no spills
TILE, RUN, WARPS = 1024, 256, 8
# registers that a thread may have where it pools along channels: left to itself, the assembler spills to fit a third block
POOL_REGISTERS = 96


def forward(
    y: Tensor,
    positions: Tensor,
    mixed: Sequence[Tensor],
    rests: Sequence[Tensor],
    mixed_weights: Tensor | None,
    rest_weights: Tensor | None,
    k: int,
    strides: Sequence[int],
) -> None:
    """Fills y [B, C, H, W] and, unless it is empty, positions [edges of stride 2, B, R, H, W]; one launch."""
    check_device(y)
    mixed, rests = _even(mixed), _even(rests)
    mixed_weights, rest_weights = _dense(mixed_weights), _dense(rest_weights)
    last = is_channels_last(mixed, rests)
    programs, blocks = _tiles(y, last)
    if not programs:
        return
    with torch.cuda.device_of(y):
        kernels.partial_node_forward_kernel[(programs,)](
            y, tuple(positions), mixed, rests, mixed_weights, rest_weights,
            _strides(y), _strides(positions[0]) if len(positions) else (), tuple(map(_strides, mixed)),
            tuple(map(_strides, rests)), tuple((r.shape[2], r.shape[3]) for r in rests),
            *_geometry(y, k), K=k, LEAD=int(bool(mixed)), STRIDES=tuple(strides), SLOTS=_slots(strides), **blocks,
            maxnreg=POOL_REGISTERS if last and 2 in strides else None,
        )  # fmt: skip


def backward(
    grad: Tensor,
    mixed: Sequence[Tensor],
    rests: Sequence[Tensor],
    mixed_weights: Tensor | None,
    rest_weights: Tensor | None,
    positions: Tensor,
    k: int,
    strides: Sequence[int],
    by_mixed: Sequence[Tensor],
    by_rests: Sequence[Tensor],
    by_weights: Tensor,
) -> None:
    """Fills the gradients of mixed tensors and of rests (dense, one layout), and of all weights, mixed first (float32).

    `mixed` and `rests` are given where their weights take a gradient, else empty: then `positions` says which elements the
    pools took. `strides`: of `by_rests`. Two launches, one where no weight takes a gradient.
    """
    check_device(grad)
    mixed, rests, (grad,) = _even(mixed), _even(rests), _even([grad])
    mixed_weights, rest_weights = _dense(mixed_weights), _dense(rest_weights)
    programs, blocks = _tiles(grad, is_channels_last(by_mixed, by_rests))
    sums = torch.empty((len(by_weights), programs), dtype=torch.float32, device=grad.device)
    with torch.cuda.device_of(grad):
        if programs:
            kernels.partial_node_backward_kernel[(programs,)](
                grad, tuple(by_mixed), tuple(by_rests), sums, tuple(positions), mixed, rests, mixed_weights, rest_weights,
                _strides(grad), _strides(by_mixed[0]) if by_mixed else (), tuple(map(_strides, by_rests)),
                _strides(positions[0]) if len(positions) else (), tuple(map(_strides, mixed)), tuple(map(_strides, rests)),
                tuple((r.shape[2], r.shape[3]) for r in by_rests), *_geometry(grad, k), K=k, LEAD=int(bool(by_mixed)),
                STRIDES=tuple(strides), SLOTS=_slots(strides), **blocks,
            )  # fmt: skip
        if len(by_weights):
            # the second stage, in a fixed order
            torch.sum(sums, dim=1, out=by_weights)


def check_device(x: Tensor) -> None:
    """ValueError where Triton can't run."""
    if not x.is_cuda and not triton.knobs.runtime.interpret:
        raise ValueError(f"the Triton kernels run on CUDA, or under TRITON_INTERPRET=1, not on {x.device}: pass triton=None.")


def _tiles(y: Tensor, last: bool) -> tuple[int, dict[str, int]]:
    """Programs, and their tiles of channels by positions: first along the dimension whose elements are neighbours."""
    batch, channels, height, width = y.shape
    positions = height * width
    if last:
        block_c = min(next_power_of_2(channels), RUN)
        block_s = min(next_power_of_2(positions), TILE // block_c)
    else:
        block_s = min(next_power_of_2(positions), RUN)
        block_c = min(next_power_of_2(channels), TILE // block_s)
    programs = batch * cdiv(channels, block_c) * cdiv(positions, block_s)
    return programs, {"BLOCK_C": block_c, "BLOCK_S": block_s, "num_warps": WARPS}


def _geometry(y: Tensor, k: int) -> tuple[int, int, int, int]:
    """C, S, T and the width."""
    _, channels, height, width = y.shape
    return channels, height * width, channels // k, width


def _even(xs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Tensors whose positions follow each other at one distance, as in channel slices of states; others are copied."""
    return tuple(
        x if x.shape[2] == 1 or x.shape[3] == 1 or x.stride(2) == x.shape[3] * x.stride(3) else x.contiguous() for x in xs
    )


def _dense(weights: Tensor | None) -> Tensor | None:
    return None if weights is None else weights.contiguous()


def _strides(x: Tensor) -> tuple[int, int, int]:
    """Distances of images, channels and positions."""
    return x.stride(0), x.stride(1), x.stride(3) if x.shape[3] > 1 else x.stride(2)


def _slots(strides: Sequence[int]) -> tuple[int, ...]:
    """For each edge the number of edges of stride 2 before it: where its positions are."""
    return tuple(sum(s == 2 for s in strides[:e]) for e in range(len(strides)))
