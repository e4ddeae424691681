"""Triton kernels of the depthwise bank; launch.py starts them.

Letters: B batch, C channels, H x W input, H' x W' output (ceil(H / stride), ceil(W / stride)); M candidates, candidate m with
T_m targets and k_m x k_m taps; P positions of a tile, which follow each other in one output plane. A program works on a tile
[BLOCK_C channels, BLOCK_P positions] of one image. NCHW tensors lie with positions along the lanes, channels-last ones with
channels. An address is a 64-bit number of the program plus a 32-bit offset inside its tile. Nothing is shared between programs
and there are no atomics: a run repeats bit for bit.

Bytes, with G = sum_m T_m * B * C * H' * W' and e bytes an element. Each tensor must be moved once; what a program reads again
(taps, and the weights, left out here) and the halo between tiles hit the caches:
  forward   e * (B * C * H * W + G + 2 * B * C * H' * W') + B * C * H' * W'
  backward  e * (2 * B * C * H * W + G + 2 * B * C * H' * W') + B * C * H' * W'; above that the weights' partial sums, written
            and read in float32: 8 * C * sum_m T_m * k_m^2 bytes for every BLOCK_P positions of an image.
"""

from __future__ import annotations

import triton
import triton.language as tl

from search.kernels.depthwise_bank.tiles import begin, inside_of, near, offsets, shift, tile_of


@triton.jit
def _window(
    start, offset, row, column, strides, height, width, exists,
    SIZE: tl.constexpr, DILATION: tl.constexpr, RELU: tl.constexpr, CHANNELS_LAST: tl.constexpr,
):  # fmt: skip
    """The SIZE * SIZE values [C, P] around (row, column), row-major, after ReLU or not."""
    values = ()
    for tap in tl.static_range(SIZE * SIZE):
        rows = (tap // SIZE - SIZE // 2) * DILATION
        columns = (tap % SIZE - SIZE // 2) * DILATION
        value = near(start, offset, row, column, rows, columns, strides, height, width, exists, CHANNELS_LAST)
        values += (_relu(value) if RELU else value,)
    return values


@triton.jit
def _relu(x):
    # passes NaN on, as torch does
    return tl.where(x <= 0, 0.0, x)


@triton.jit
def _weight(t, tap, channel, channels, TAPS: tl.constexpr, CHANNELS_LAST: tl.constexpr):
    """Where target t's weights [C, 1] lie: in [T, C, taps], or in [T, taps, C] where channels lie along the lanes."""
    if CHANNELS_LAST:
        return (t * TAPS + tap) * channels + channel
    else:
        return (t * channels + channel) * TAPS + tap


@triton.jit
def _count(row, column, height, width, STRIDE: tl.constexpr):
    """How many pixels of the image a 3x3 window at output (row, column) covers; any number above zero outside of the plane."""
    rows = tl.minimum(row * STRIDE + 2, height) - tl.maximum(row * STRIDE - 1, 0)
    columns = tl.minimum(column * STRIDE + 2, width) - tl.maximum(column * STRIDE - 1, 0)
    return tl.maximum(rows * columns, 1).to(tl.float32)


@triton.jit(do_not_specialize=["height", "width"])
def bank_forward_kernel(
    x, weights, convs, max_pool, codes, avg_pool,
    x_strides, conv_strides, pool_strides,
    channels, height, width, targets,
    SIZES: tl.constexpr, DILATIONS: tl.constexpr, STRIDE: tl.constexpr, RELU: tl.constexpr,
    MAX: tl.constexpr, AVG: tl.constexpr, CHANNELS_LAST: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    """One tile of all outputs. Strides are (image, channel), in channels-last (image, pixel)."""
    out_h = (height + STRIDE - 1) // STRIDE
    out_w = (width + STRIDE - 1) // STRIDE
    _, corner, tile, exists = tile_of(tl.program_id(0), channels, out_h, out_w, BLOCK_C, BLOCK_P)
    channel = corner[1] + tile[0]
    row, column = (corner[2] + tile[1]) * STRIDE, tile[2] * STRIDE
    x += begin(corner, x_strides, width, STRIDE, CHANNELS_LAST)
    offset = offsets(tile, x_strides, width, STRIDE, CHANNELS_LAST)
    if MAX or AVG:
        window = _window(x, offset, row, column, x_strides, height, width, exists, 3, 1, False, CHANNELS_LAST)
        best = tl.full([BLOCK_C, BLOCK_P], float("-inf"), tl.float32)
        # the first pixel inside the image wins where all are -inf
        code = tl.zeros([BLOCK_C, BLOCK_P], tl.int32) + tl.where(row > 0, 0, 3) + tl.where(column > 0, 0, 1)
        total = tl.zeros([BLOCK_C, BLOCK_P], tl.float32)
        for tap in tl.static_range(9):
            value = window[tap]
            total += value
            inside = inside_of(row + (tap // 3 - 1), column + (tap % 3 - 1), height, width, exists)
            wins = inside & ((value > best) | (value != value))
            best = tl.where(wins, value, best)
            code = tl.where(wins, tap, code)
        pool = begin(corner, pool_strides, out_w, 1, CHANNELS_LAST)
        pixel = offsets(tile, pool_strides, out_w, 1, CHANNELS_LAST)
        if MAX:
            tl.store(max_pool + pool + pixel, best.to(max_pool.dtype.element_ty), mask=exists)
            tl.store(codes + pool + pixel, code.to(tl.uint8), mask=exists)
        if AVG:
            average = total / _count(row // STRIDE, column // STRIDE, height, width, STRIDE)
            tl.store(avg_pool + pool + pixel, average.to(avg_pool.dtype.element_ty), mask=exists)
    for m in tl.static_range(len(SIZES)):
        # the taps stay in registers for all targets
        window = _window(x, offset, row, column, x_strides, height, width, exists, SIZES[m], DILATIONS[m], RELU, CHANNELS_LAST)
        out = convs[m] + begin(corner, conv_strides[m], out_w, 1, CHANNELS_LAST)
        pixel = offsets(tile, conv_strides[m], out_w, 1, CHANNELS_LAST)
        for t in range(targets[m]):
            total = tl.zeros([BLOCK_C, BLOCK_P], tl.float32)
            for tap in tl.static_range(SIZES[m] * SIZES[m]):
                weight = weights[m] + _weight(t, tap, channel, channels, SIZES[m] * SIZES[m], CHANNELS_LAST)
                total += window[tap] * tl.load(weight, mask=channel < channels, other=0.0).to(tl.float32)
            tl.store(out + pixel, total.to(out.dtype.element_ty), mask=exists)
            out += channels if CHANNELS_LAST else tl.cast(channels, tl.int64) * conv_strides[m][1]


# Input i meets output o at a tap where i = o * stride + (tap - size // 2) * dilation. So for an input's place in its group of
# stride x stride, it is known at compile time which taps meet any output, and how far that is from the group's own output.


@triton.constexpr_function
def _steps(place, tap, size, dilation, stride):
    """Along one axis, how many outputs further is the one that input `place` of a group meets at a tap; None: no output."""
    pixels = place - (tap - size // 2) * dilation
    return None if pixels % stride else pixels // stride


@triton.constexpr_function
def _last(place, size, dilation, stride):
    """The last tap at which input `place` meets an output; -1 where there is none."""
    return max((tap for tap in range(size) if _steps(place, tap, size, dilation, stride) is not None), default=-1)


@triton.constexpr_function
def _every(dilation, stride):
    """Distance of the taps at which an input meets outputs."""
    return stride if dilation % stride else 1


@triton.jit
def _conv_gradients(
    grad, value, start, weights, sums, tile, corner, strides, channels, height, width, exists, targets,
    SIZE: tl.constexpr, DILATION: tl.constexpr, STRIDE: tl.constexpr, DOWN: tl.constexpr, RIGHT: tl.constexpr,
    WEIGHTS: tl.constexpr, CHANNELS_LAST: tl.constexpr,
):  # fmt: skip
    """grad [C, P] plus the gradient of place (DOWN, RIGHT) through one candidate, whose output's gradient is start.

    Writes the sums over the tile of value [C, P] times gradient, one for each weight that this place meets."""
    row, column, channel = corner[2] + tile[1], tile[2], corner[1] + tile[0]
    start += begin(corner, strides, width, 1, CHANNELS_LAST)
    offset = offsets(tile, strides, width, 1, CHANNELS_LAST)
    for t in range(targets):
        # not unrolled: the masks of all taps at once would not fit into registers
        for tap in range(_last(DOWN, SIZE, DILATION, STRIDE), -1, -_every(DILATION, STRIDE)):
            rows = (DOWN + (SIZE // 2 - tap) * DILATION) // STRIDE
            for side in tl.static_range(SIZE):
                columns = _steps(RIGHT, side, SIZE, DILATION, STRIDE)
                if columns is not None:
                    g = near(start, offset, row, column, rows, columns, strides, height, width, exists, CHANNELS_LAST)
                    at = _weight(t, tap * SIZE + side, channel, channels, SIZE * SIZE, CHANNELS_LAST)
                    grad += g * tl.load(weights + at, mask=channel < channels, other=0.0).to(tl.float32)
                    if WEIGHTS:
                        tl.store(sums + at, tl.sum(g * value, axis=1, keep_dims=True), mask=channel < channels)
        start += channels if CHANNELS_LAST else tl.cast(channels, tl.int64) * strides[1]
    return grad


@triton.jit
def _max_gradient(
    grad, start, codes, tile, corner, strides, code_strides, height, width, exists,
    STRIDE: tl.constexpr, DOWN: tl.constexpr, RIGHT: tl.constexpr, CHANNELS_LAST: tl.constexpr,
):  # fmt: skip
    """grad [C, P] plus the gradient of place (DOWN, RIGHT) through the max pool, whose output's gradient is start."""
    row, column = corner[2] + tile[1], tile[2]
    start += begin(corner, strides, width, 1, CHANNELS_LAST)
    offset = offsets(tile, strides, width, 1, CHANNELS_LAST)
    codes += begin(corner, code_strides, width, 1, CHANNELS_LAST)
    code_offset = offsets(tile, code_strides, width, 1, CHANNELS_LAST)
    # descending taps are ascending outputs: torch's order of summation
    for tap in range(_last(DOWN, 3, 1, STRIDE), -1, -_every(1, STRIDE)):
        rows = (DOWN + 1 - tap) // STRIDE
        for side in tl.static_range(2, -1, -1):
            columns = _steps(RIGHT, side, 3, 1, STRIDE)
            if columns is not None:
                meets = inside_of(row + rows, column + columns, height, width, exists)
                code = codes + shift(rows, columns, code_strides, width, CHANNELS_LAST)
                won = meets & (tl.load(code + code_offset, mask=meets, other=255) == tap * 3 + side)
                out = start + shift(rows, columns, strides, width, CHANNELS_LAST)
                grad += tl.load(out + offset, mask=won, other=0.0).to(tl.float32)
    return grad


@triton.jit
def _avg_gradient(
    grad, start, tile, corner, strides, height, width, in_height, in_width, exists,
    STRIDE: tl.constexpr, DOWN: tl.constexpr, RIGHT: tl.constexpr, CHANNELS_LAST: tl.constexpr,
):  # fmt: skip
    """grad [C, P] plus the gradient of place (DOWN, RIGHT) through the average pool, whose output's gradient is start."""
    row, column = corner[2] + tile[1], tile[2]
    start += begin(corner, strides, width, 1, CHANNELS_LAST)
    offset = offsets(tile, strides, width, 1, CHANNELS_LAST)
    for tap in range(_last(DOWN, 3, 1, STRIDE), -1, -_every(1, STRIDE)):
        rows = (DOWN + 1 - tap) // STRIDE
        for side in tl.static_range(2, -1, -1):
            columns = _steps(RIGHT, side, 3, 1, STRIDE)
            if columns is not None:
                g = near(start, offset, row, column, rows, columns, strides, height, width, exists, CHANNELS_LAST)
                grad += g / _count(row + rows, column + columns, in_height, in_width, STRIDE)
    return grad


@triton.jit(do_not_specialize=["height", "width"])
def bank_backward_kernel(
    x, weights, conv_grads, max_grad, codes, avg_grad, x_grad, partial,
    x_strides, conv_strides, max_strides, code_strides, avg_strides, grad_strides,
    channels, height, width, targets, total_weights,
    SIZES: tl.constexpr, DILATIONS: tl.constexpr, STRIDE: tl.constexpr, RELU: tl.constexpr, WEIGHTS: tl.constexpr,
    MAX: tl.constexpr, AVG: tl.constexpr, CHANNELS_LAST: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    """The gradient of x at one place of each group, for the groups of a tile of outputs, and the tile's sums for the weights.

    STRIDE * STRIDE programs, one after the other in the grid, share a tile: each weight belongs to one of them."""
    out_h = (height + STRIDE - 1) // STRIDE
    out_w = (width + STRIDE - 1) // STRIDE
    program = tl.program_id(0) // (STRIDE * STRIDE)
    number, corner, tile, exists = tile_of(program, channels, out_h, out_w, BLOCK_C, BLOCK_P)
    for place in tl.static_range(STRIDE * STRIDE):
        if tl.program_id(0) % (STRIDE * STRIDE) == place:
            down = (corner[2] + tile[1]) * STRIDE + place // STRIDE
            right = tile[2] * STRIDE + place % STRIDE
            inside = inside_of(down, right, height, width, exists)
            start = x + begin(corner, x_strides, width, STRIDE, CHANNELS_LAST)
            start += shift(place // STRIDE, place % STRIDE, x_strides, width, CHANNELS_LAST)
            offset = offsets(tile, x_strides, width, STRIDE, CHANNELS_LAST)
            value = tl.load(start + offset, mask=inside, other=0.0).to(tl.float32)
            if RELU:
                value = _relu(value)
            grad = tl.zeros([BLOCK_C, BLOCK_P], tl.float32)
            sums = partial
            if WEIGHTS:
                sums += number.to(tl.int64) * total_weights
            for m in tl.static_range(len(SIZES)):
                grad = _conv_gradients(
                    grad, value, conv_grads[m], weights[m], sums, tile, corner, conv_strides[m], channels, out_h, out_w, exists,
                    targets[m], SIZES[m], DILATIONS[m], STRIDE, place // STRIDE, place % STRIDE, WEIGHTS, CHANNELS_LAST,
                )  # fmt: skip
                if WEIGHTS:
                    sums += targets[m] * channels * (SIZES[m] * SIZES[m])
            if RELU:
                # no gradient through a zero, as in torch; a NaN passes it on
                grad = tl.where(value == 0, 0.0, grad)
            if MAX:
                grad = _max_gradient(
                    grad, max_grad, codes, tile, corner, max_strides, code_strides, out_h, out_w, exists,
                    STRIDE, place // STRIDE, place % STRIDE, CHANNELS_LAST,
                )  # fmt: skip
            if AVG:
                grad = _avg_gradient(
                    grad, avg_grad, tile, corner, avg_strides, out_h, out_w, height, width, exists,
                    STRIDE, place // STRIDE, place % STRIDE, CHANNELS_LAST,
                )  # fmt: skip
            start = x_grad + begin(corner, grad_strides, width, STRIDE, CHANNELS_LAST)
            start += shift(place // STRIDE, place % STRIDE, grad_strides, width, CHANNELS_LAST)
            offset = offsets(tile, grad_strides, width, STRIDE, CHANNELS_LAST)
            tl.store(start + offset, grad.to(x_grad.dtype.element_ty), mask=inside)


@triton.jit
def bank_sum_kernel(
    partial, grads, tiles, channels, targets, total_weights,
    SIZES: tl.constexpr, CHANNELS_LAST: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    """The second stage of the weights' gradients: sums over tiles in a fixed order, BLOCK_W weights of one candidate."""
    first = 0
    for m in tl.static_range(len(SIZES)):
        count = targets[m] * channels * (SIZES[m] * SIZES[m])
        if tl.program_id(1) == m:
            weight = tl.program_id(0) * BLOCK_W + tl.arange(0, BLOCK_W)[None, :]
            exists = weight < count
            at = weight
            if CHANNELS_LAST:
                tap = weight % (SIZES[m] * SIZES[m])
                row = weight // (SIZES[m] * SIZES[m])
                at = _weight(row // channels, tap, row % channels, channels, SIZES[m] * SIZES[m], CHANNELS_LAST)
            total = tl.zeros([BLOCK_T, BLOCK_W], tl.float32)
            for start in range(0, tiles, BLOCK_T):
                tile = start + tl.arange(0, BLOCK_T)[:, None]
                pointer = partial + tile.to(tl.int64) * total_weights + (first + at)
                total += tl.load(pointer, mask=(tile < tiles) & exists, other=0.0)
            total = tl.sum(total, axis=0, keep_dims=True)
            tl.store(grads[m] + weight, total.to(grads[m].dtype.element_ty), mask=exists)
        first += count
