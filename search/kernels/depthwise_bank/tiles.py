"""Where a tile of a program lies in a tensor, and loads from around it. Letters as in triton_kernels.py."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def tile_of(program, channels, height, width, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr):
    """The program's tile in planes [height, width]: its number among all of a channel, its corner (image, channel, row), and
    relative to that its channels [C, 1], rows [1, P] and columns [1, P], and which of [C, P] exist."""
    blocks = tl.cdiv(channels, BLOCK_C)
    tiles = tl.cdiv(height * width, BLOCK_P)
    tile = program // blocks
    first_channel = program % blocks * BLOCK_C
    first = tile % tiles * BLOCK_P
    channel = tl.arange(0, BLOCK_C)[:, None]
    position = first + tl.arange(0, BLOCK_P)[None, :]
    corner = ((tile // tiles).to(tl.int64), first_channel, first // width)
    row = position // width
    exists = (first_channel + channel < channels) & (position < height * width)
    return tile, corner, (channel, row - first // width, position - row * width), exists


@triton.jit
def begin(corner, strides, width, STRIDE: tl.constexpr, CHANNELS_LAST: tl.constexpr):
    """Where a tile's corner lies in a tensor with rows of `width`, STRIDE pixels of it for each of the tile's.

    strides: of images and of channels or, in channels-last, of pixels."""
    row = tl.cast(corner[2], tl.int64) * (STRIDE * width)
    if CHANNELS_LAST:
        return corner[0] * strides[0] + corner[1] + row * strides[1]
    else:
        return corner[0] * strides[0] + tl.cast(corner[1], tl.int64) * strides[1] + row


@triton.jit
def offsets(tile, strides, width, STRIDE: tl.constexpr, CHANNELS_LAST: tl.constexpr):
    """Offsets [C, P] of a tile's elements from `begin`."""
    pixel = (tile[1] * width + tile[2]) * STRIDE
    if CHANNELS_LAST:
        return tile[0] + pixel * strides[1]
    else:
        # int32 unless the stride itself is beyond: a tile has few pixels a plane
        return tile[0] * strides[1] + pixel


@triton.jit
def shift(rows, columns, strides, width, CHANNELS_LAST: tl.constexpr):
    """Distance of a pixel that is some rows and columns further."""
    if CHANNELS_LAST:
        return (rows * width + columns) * strides[1]
    else:
        return rows * width + columns


@triton.jit
def inside_of(row, column, height, width, exists):
    """Which of [C, P] exist and lie inside a plane."""
    return exists & (row >= 0) & (row < height) & (column >= 0) & (column < width)


@triton.jit
def near(start, offset, row, column, rows, columns, strides, height, width, exists, CHANNELS_LAST: tl.constexpr):
    """Values [C, P] some rows and columns from (row, column); zero outside of the plane."""
    inside = inside_of(row + rows, column + columns, height, width, exists)
    start += shift(rows, columns, strides, width, CHANNELS_LAST)
    return tl.load(start + offset, mask=inside, other=0.0).to(tl.float32)
