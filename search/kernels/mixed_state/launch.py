"""Launches of a chain's later steps: tiles, grids. Letters as in triton_kernels.py."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from triton import cdiv, next_power_of_2

from search.kernels.depthwise_bank.launch import REGISTERS, SUM_TILES, SUM_WEIGHTS, strides_of
from search.kernels.depthwise_bank.triton_kernels import bank_sum_kernel
from search.kernels.mixed_state import triton_kernels as kernels

# values of a tile of four warps forward, of one warp backward, whose sums for the weights then need no barriers
FORWARD_TILE, FORWARD_WARPS, BACKWARD_TILE = 512, 4, 256


def step_forward(
    z: Tensor, weights: Tensor, sizes: Sequence[int], dilations: Sequence[int], mean: Tensor, vectors: Tensor, affine: bool
) -> Tensor:
    """Depthwise convolutions of ReLU(norm(z)), z [B, S * R, H, W] -> [B, S * R, H, W], channels outermost in memory.

    weights: flat, [R, k, k] of each of the S segments; mean [S * R] and vectors [1 or 2, 1, S * R]: see statistics in
    norm_sum/launch.py; affine: whether the norm adds something.
    """
    batch, channels, height, width = z.shape
    d = z.new_empty((channels, batch, height, width)).transpose(0, 1)
    programs, blocks = _grid(z, len(sizes), FORWARD_TILE)
    with torch.cuda.device_of(z):
        kernels.step_forward_kernel[(programs, len(sizes))](
            z, weights, d, mean, vectors[0], vectors[1] if affine else None, strides_of(z, False), strides_of(d, False),
            channels // len(sizes), height, width,
            SIZES=tuple(sizes), DILATIONS=tuple(dilations), **blocks, num_warps=FORWARD_WARPS, maxnreg=REGISTERS,
        )  # fmt: skip
    return d


def step_backward(
    z: Tensor,
    weights: Tensor,
    sizes: Sequence[int],
    dilations: Sequence[int],
    mean: Tensor,
    vectors: Tensor,
    affine: bool,
    d_grad: Tensor,
    weight_grads: Tensor | None,
) -> Tensor:
    """The gradient [B, S * R, H, W] by the norm's result; fills weight_grads, which lie as the weights do, if given."""
    batch, channels, height, width = z.shape
    grad = z.new_empty((channels, batch, height, width)).transpose(0, 1)
    rows = channels // len(sizes)
    programs, blocks = _grid(z, len(sizes), BACKWARD_TILE)
    tiles = batch * cdiv(height * width, blocks["BLOCK_P"])
    total = 0 if weight_grads is None else weight_grads.numel()
    partial = torch.empty((tiles, total), dtype=torch.float32, device=z.device) if total else None
    with torch.cuda.device_of(z):
        kernels.step_backward_kernel[(programs, len(sizes))](
            z, weights, d_grad, grad, partial, mean, vectors[0], vectors[1] if affine else None,
            strides_of(z, False), strides_of(d_grad, False), strides_of(grad, False), rows, height, width, total,
            SIZES=tuple(sizes), DILATIONS=tuple(dilations), WEIGHTS=bool(total), **blocks, num_warps=1, maxnreg=REGISTERS,
        )  # fmt: skip
        if weight_grads is not None:
            counts = [rows * size * size for size in sizes]
            bank_sum_kernel[(cdiv(max(counts), SUM_WEIGHTS), len(sizes))](
                partial, weight_grads.split(counts), tiles, rows, (1,) * len(sizes), total,
                SIZES=tuple(sizes), CHANNELS_LAST=False, BLOCK_T=SUM_TILES, BLOCK_W=SUM_WEIGHTS,
            )  # fmt: skip
    return grad


def _grid(z: Tensor, segments: int, tile: int) -> tuple[int, dict[str, int]]:
    """Programs of a segment, and the blocks of a tile."""
    batch, channels, height, width = z.shape
    rows, positions = channels // segments, height * width
    block_p = min(next_power_of_2(positions), tile)
    block_c = min(next_power_of_2(rows), tile // block_p)
    return batch * cdiv(positions, block_p) * cdiv(rows, block_c), {"BLOCK_C": block_c, "BLOCK_P": block_p}
