"""Launches of the Triton kernels: layouts, tiles, grids. Letters as in triton_kernels.py."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
from torch import Tensor
from triton import cdiv, next_power_of_2

from search.kernels.depthwise_bank import triton_kernels as kernels
from search.kernels.depthwise_bank.arguments import is_channels_last, output_size, targets

# values of a forward tile of four warps: for each value a window of taps stays in registers, 49 of them for 7x7
FORWARD_TILE, FORWARD_TILE_7X7, FORWARD_WARPS = 512, 128, 4
# values of a backward tile of one warp: the weights' sums need neither shared memory nor barriers; twice as many in
# channels-last, but for 7x7, where sm_80 would spill
BACKWARD_TILE, BACKWARD_TILE_LAST = 256, 512
# left to itself, the assembler spills to fit more warps
REGISTERS = 255
# channels of a channels-last tile: forward a line of the cache, backward a sector, in float32
FORWARD_CHANNELS, BACKWARD_CHANNELS = 32, 8
# tiles and weights that a program of the second stage sums at once
SUM_TILES, SUM_WEIGHTS = 32, 32


def forward(
    x: Tensor,
    weights: Sequence[Tensor],
    dilations: Sequence[int],
    stride: int,
    relu: bool,
    convs: Sequence[Tensor],
    max_pool: Tensor | None,
    codes: Tensor | None,
    avg_pool: Tensor | None,
    last: bool | None = None,
) -> None:
    """Fills convs [B, T_m * C, H', W'], the pools and the codes (uint8) [B, C, H', W'].

    last: whether these lie channels-last; by default, as x does.
    """
    check_device(x)
    last = is_channels_last(x) if last is None else last
    x = even(x, last)
    tile = FORWARD_TILE_7X7 if _has_7x7(weights) else FORWARD_TILE
    tiles, programs, blocks = _grid(x, stride, tile, FORWARD_CHANNELS if last else 0)
    pools = [y for y in (max_pool, avg_pool) if y is not None]
    if not tiles:
        return
    with torch.cuda.device_of(x):
        kernels.bank_forward_kernel[(programs,)](
            x, _packed(x, weights, last), tuple(convs), max_pool, codes, avg_pool,
            strides_of(x, last), tuple(strides_of(y, last) for y in convs), strides_of(pools[0], last) if pools else (0, 0),
            *x.shape[1:], targets(x, weights),
            SIZES=tuple(w.shape[2] for w in weights), DILATIONS=tuple(dilations), STRIDE=stride, RELU=relu,
            MAX=max_pool is not None, AVG=avg_pool is not None,
            CHANNELS_LAST=last, **blocks, num_warps=FORWARD_WARPS, maxnreg=REGISTERS,
        )  # fmt: skip


def backward(
    x: Tensor,
    weights: Sequence[Tensor],
    dilations: Sequence[int],
    stride: int,
    relu: bool,
    conv_grads: Sequence[Tensor],
    max_grad: Tensor | None,
    codes: Tensor | None,
    avg_grad: Tensor | None,
    x_grad: Tensor,
    weight_grads: Sequence[Tensor],
    last: bool | None = None,
) -> None:
    """Fills x_grad, and weight_grads (contiguous) if there are any, one for each of the weights.

    last: whether x_grad lies channels-last; by default, as x does.
    """
    check_device(x)
    last = is_channels_last(x) if last is None else last
    x = even(x, last)
    conv_grads = [even(g, last) for g in conv_grads]
    max_grad, avg_grad = (None if g is None else even(g, last) for g in (max_grad, avg_grad))
    tile = BACKWARD_TILE_LAST if last and not _has_7x7(weights) else BACKWARD_TILE
    tiles, programs, blocks = _grid(x, stride, tile, BACKWARD_CHANNELS if last else 0)
    total = sum(w.numel() for w in weight_grads)
    sizes = tuple(w.shape[2] for w in weights)
    partial = torch.empty((tiles, total), dtype=torch.float32, device=x.device) if total else None
    with torch.cuda.device_of(x):
        if tiles:
            kernels.bank_backward_kernel[(programs * stride * stride,)](
                x, _packed(x, weights, last), tuple(conv_grads), max_grad, codes, avg_grad, x_grad, partial,
                strides_of(x, last), tuple(strides_of(g, last) for g in conv_grads),
                *((0, 0) if t is None else strides_of(t, last) for t in (max_grad, codes, avg_grad)), strides_of(x_grad, last),
                *x.shape[1:], targets(x, weights), total,
                SIZES=sizes, DILATIONS=tuple(dilations), STRIDE=stride, RELU=relu, WEIGHTS=bool(total),
                MAX=max_grad is not None, AVG=avg_grad is not None,
                CHANNELS_LAST=last, **blocks, num_warps=1, maxnreg=REGISTERS,
            )  # fmt: skip
        if total:
            largest = max(w.numel() for w in weight_grads)
            kernels.bank_sum_kernel[(cdiv(largest, SUM_WEIGHTS), len(weights))](
                partial, tuple(weight_grads), tiles, x.shape[1], targets(x, weights), total,
                SIZES=sizes, CHANNELS_LAST=last, BLOCK_T=SUM_TILES, BLOCK_W=SUM_WEIGHTS,
            )  # fmt: skip


def check_device(x: Tensor) -> None:
    """ValueError where Triton can't run."""
    if not x.is_cuda and not triton.knobs.runtime.interpret:
        raise ValueError(f"the Triton kernels run on CUDA, or under TRITON_INTERPRET=1, not on {x.device}: pass triton=None.")


def _has_7x7(weights: Sequence[Tensor]) -> bool:
    return any(weight.shape[2] == 7 for weight in weights)


def _grid(x: Tensor, stride: int, tile: int, lanes: int) -> tuple[int, int, dict[str, int]]:
    """Tiles of a channel, programs, and the blocks of a tile: `lanes` channels first, if any, or positions first."""
    height, width = output_size(x, stride)
    channels, positions = next_power_of_2(x.shape[1]), next_power_of_2(height * width)
    if lanes:
        # without vectors, whose alignment takes 16 channels, each value has an address of its own
        tile = tile // 2 if x.shape[1] % 16 else tile
        block_c = min(channels, lanes)
        block_p = min(positions, tile // block_c)
    else:
        block_p = min(positions, tile)
        block_c = min(channels, tile // block_p)
    tiles = x.shape[0] * cdiv(height * width, block_p)
    return tiles, tiles * cdiv(x.shape[1], block_c), {"BLOCK_C": block_c, "BLOCK_P": block_p}


def even(t: Tensor, last: bool) -> Tensor:
    """t itself where images, and channels or (channels-last) pixels, lie at even distances, as in a slice; or a copy."""
    _, _, height, width = t.shape
    _, channel, row, column = t.stride()
    if last:
        even = channel == 1 and (height == 1 or width == 1 or row == width * column)
    else:
        even = (width == 1 or column == 1) and (height == 1 or row == width)
    return t if even else t.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def strides_of(t: Tensor, last: bool) -> tuple[int, int]:
    """Distance of images and of channels or, in channels-last, of pixels."""
    if not last:
        return t.stride(0), t.stride(1)
    return t.stride(0), t.stride(3) if t.shape[3] > 1 else t.stride(2)


def _packed(x: Tensor, weights: Sequence[Tensor], last: bool) -> tuple[Tensor, ...]:
    """Weights as the kernels read them: [T, C, taps], or [T, taps, C] where channels lie along the lanes (one copy of all)."""
    if not last or not weights:
        return tuple(weight.contiguous() for weight in weights)
    split = [weight.reshape(-1, x.shape[1], weight.shape[2] ** 2).transpose(1, 2) for weight in weights]
    rows = torch.cat([target for weight in split for target in weight.unbind()])
    return rows.split([weight.shape[0] * weight.shape[1] for weight in split])
