"""Triton kernels of a chain's later steps, norm, ReLU and depthwise convolution in one pass; launch.py runs them.

Letters: B batch, H x W plane, S segments (chains), R channels of each segment, all in one tensor [B, S * R, H, W] of any
strides of images and channels. A segment has kernels of a size and a dilation of its own. A tile is BLOCK_C channels x
BLOCK_P positions of one image and one segment.
"""

from __future__ import annotations

import triton
import triton.language as tl

from search.kernels.depthwise_bank.tiles import begin, inside_of, offsets, shift, tile_of
from search.kernels.depthwise_bank.triton_kernels import _conv_gradients


@triton.jit
def _rectified(start, offset, row, column, rows, columns, height, width, exists, mean, scale, added):
    """ReLU(norm(z)) [C, P] some rows and columns from (row, column); zero outside of the plane."""
    inside = inside_of(row + rows, column + columns, height, width, exists)
    z = tl.load(start + shift(rows, columns, None, width, False) + offset, mask=inside, other=0.0).to(tl.float32)
    h = (z - mean) * scale + added
    # passes NaN on, as torch does
    return tl.where(inside & ~(h <= 0), h, 0.0)


@triton.jit
def _of_channels(vector, first, channel, channels):
    """The numbers [C, 1] of a segment's channels."""
    return tl.load(vector + first + channel, mask=channel < channels, other=0.0)


@triton.jit(do_not_specialize=["height", "width"])
def step_forward_kernel(
    z, weights, d, mean, scales, offsets_of, z_strides, d_strides, channels, height, width,
    SIZES: tl.constexpr, DILATIONS: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    """d = convolution of ReLU((z - mean) * scale + offset), one tile of one segment; weights: [R, taps] of each, one by one."""
    first = 0
    for s in tl.static_range(len(SIZES)):
        if tl.program_id(1) == s:
            _, corner, tile, exists = tile_of(tl.program_id(0), channels, height, width, BLOCK_C, BLOCK_P)
            channel, row, column = corner[1] + tile[0], corner[2] + tile[1], tile[2]
            at = tl.cast(s, tl.int64) * channels
            start = z + at * z_strides[1] + begin(corner, z_strides, width, 1, False)
            offset = offsets(tile, z_strides, width, 1, False)
            own_mean, scale = _of_channels(mean, at, channel, channels), _of_channels(scales, at, channel, channels)
            added = 0.0 if offsets_of is None else _of_channels(offsets_of, at, channel, channels)
            total = tl.zeros([BLOCK_C, BLOCK_P], tl.float32)
            for tap in range(SIZES[s]):
                rows = (tap - SIZES[s] // 2) * DILATIONS[s]
                for side in tl.static_range(SIZES[s]):
                    columns = (side - SIZES[s] // 2) * DILATIONS[s]
                    h = _rectified(start, offset, row, column, rows, columns, height, width, exists, own_mean, scale, added)
                    weight = weights + first + channel * (SIZES[s] * SIZES[s]) + (tap * SIZES[s] + side)
                    total += h * tl.load(weight, mask=channel < channels, other=0.0).to(tl.float32)
            out = d + at * d_strides[1] + begin(corner, d_strides, width, 1, False)
            tl.store(out + offsets(tile, d_strides, width, 1, False), total.to(d.dtype.element_ty), mask=exists)
        first += channels * (SIZES[s] * SIZES[s])


@triton.jit(do_not_specialize=["height", "width"])
def step_backward_kernel(
    z, weights, d_grad, grad, partial, mean, scales, offsets_of, z_strides, d_strides, grad_strides,
    channels, height, width, total_weights,
    SIZES: tl.constexpr, DILATIONS: tl.constexpr, WEIGHTS: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    """The gradient of the norm's result through ReLU and convolution; partial: a tile's sums for the weights."""
    first = 0
    for s in tl.static_range(len(SIZES)):
        if tl.program_id(1) == s:
            number, corner, tile, exists = tile_of(tl.program_id(0), channels, height, width, BLOCK_C, BLOCK_P)
            channel, row, column = corner[1] + tile[0], corner[2] + tile[1], tile[2]
            at = tl.cast(s, tl.int64) * channels
            own_mean, scale = _of_channels(mean, at, channel, channels), _of_channels(scales, at, channel, channels)
            added = 0.0 if offsets_of is None else _of_channels(offsets_of, at, channel, channels)
            start = z + at * z_strides[1] + begin(corner, z_strides, width, 1, False)
            offset = offsets(tile, z_strides, width, 1, False)
            value = _rectified(start, offset, row, column, 0, 0, height, width, exists, own_mean, scale, added)
            by_norm = tl.zeros([BLOCK_C, BLOCK_P], tl.float32)
            sums = partial
            if WEIGHTS:
                sums += number.to(tl.int64) * total_weights + first
            by_norm = _conv_gradients(
                by_norm, value, d_grad + at * d_strides[1], weights + first, sums, tile, corner, d_strides, channels,
                height, width, exists, 1, SIZES[s], DILATIONS[s], 1, 0, 0, WEIGHTS, False,
            )  # fmt: skip
            # no gradient through a zero, as in torch; a NaN passes it on
            by_norm = tl.where(value == 0, 0.0, by_norm)
            out = grad + at * grad_strides[1] + begin(corner, grad_strides, width, 1, False)
            tl.store(out + offsets(tile, grad_strides, width, 1, False), by_norm.to(grad.dtype.element_ty), mask=exists)
        first += channels * (SIZES[s] * SIZES[s])
