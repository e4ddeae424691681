"""Triton kernels of the partial-channel node: each input read once, the output written once, in shuffled order.

A program makes a tile of output channels by positions of one image. Output channel c is channel c // K of group c % K; group 0
holds the mixed channels (absent where the node has none: `LEAD` = 0), the other groups the rest. A plane's positions are one
dimension; tensors may lie in NCHW or channels-last order and be views of states: strides are (image, channel, position).

Shapes: B batch, K groups, T = C / K, R = C - LEAD * T the rest, H and W size of the node.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _tile(C, S, T, K: tl.constexpr, LEAD: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_S: tl.constexpr):
    """Of this program: image (int64), output channels, channels in mixed or in rest [BLOCK_C, 1], positions [1, BLOCK_S], and
    the masks of mixed and of rest [BLOCK_C, BLOCK_S]."""
    across = tl.cdiv(S, BLOCK_S)
    down = tl.cdiv(C, BLOCK_C)
    pid = tl.program_id(0)
    image = (pid // (across * down)).to(tl.int64)
    channel = (pid // across % down * BLOCK_C + tl.arange(0, BLOCK_C))[:, None]
    position = (pid % across * BLOCK_S + tl.arange(0, BLOCK_S))[None, :]
    group = channel % K
    source = channel // K + tl.maximum(group - LEAD, 0) * T
    inside = (channel < C) & (position < S)
    return image, channel.to(tl.int64), source.to(tl.int64), position, inside & (group < LEAD), inside & (group >= LEAD)


@triton.jit
def _tap(top, left, H, W, n: tl.constexpr, mask):
    """Position in the plane of the n-th element of the windows at (top, left), and whether it exists."""
    h = top + n // 2
    w = left + n % 2
    return (h * W + w).to(tl.int64), mask & (h < H) & (w < W)


@triton.jit
def _pooled(x, top, left, H, W, stride, mask):
    """Maxima and positions in the windows: first maximum in row-major order, last NaN, nothing before an existing element."""
    at, inside = _tap(top, left, H, W, 0, mask)
    best = tl.load(x + at * stride, mask=inside, other=float("-inf")).to(tl.float32)
    code = tl.zeros(best.shape, tl.int32)
    for n in tl.static_range(1, 4):
        at, inside = _tap(top, left, H, W, n, mask)
        value = tl.load(x + at * stride, mask=inside, other=float("-inf")).to(tl.float32)
        later = (value > best) | (value != value)
        best = tl.where(later, value, best)
        code = tl.where(later, n, code)
    return best, code


@triton.jit
def partial_node_forward_kernel(
    y,
    positions,
    mixed,
    rests,
    mixed_weights,
    rest_weights,
    y_strides,
    position_strides,
    mixed_strides,
    rest_strides,
    sizes,
    C,
    S,
    T,
    W_OUT,
    K: tl.constexpr,
    LEAD: tl.constexpr,
    STRIDES: tl.constexpr,
    SLOTS: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_S: tl.constexpr,
):
    """Weighted sums of a tile of y and, if asked for, the positions of its maxima in their windows."""
    image, channel, source, position, of_mixed, of_rest = _tile(C, S, T, K, LEAD, BLOCK_C, BLOCK_S)
    place = position.to(tl.int64)
    total = tl.zeros([BLOCK_C, BLOCK_S], tl.float32)
    for e in tl.static_range(len(mixed)):
        at = image * mixed_strides[e][0] + source * mixed_strides[e][1] + place * mixed_strides[e][2]
        value = tl.load(mixed[e] + at, mask=of_mixed, other=0.0).to(tl.float32)
        if mixed_weights is not None:
            value *= tl.load(mixed_weights + e).to(tl.float32)
        total += value
    for e in tl.static_range(len(rests)):
        plane = rests[e] + image * rest_strides[e][0] + source * rest_strides[e][1]
        if STRIDES[e] == 2:
            top = position // W_OUT * 2
            left = position % W_OUT * 2
            value, code = _pooled(plane, top, left, sizes[e][0], sizes[e][1], rest_strides[e][2], of_rest)
            value = tl.where(of_rest, value, 0.0)
            if len(positions) > 0:
                at = image * position_strides[0] + source * position_strides[1] + place * position_strides[2]
                tl.store(positions[SLOTS[e]] + at, code.to(tl.uint8), mask=of_rest)
        else:
            value = tl.load(plane + place * rest_strides[e][2], mask=of_rest, other=0.0).to(tl.float32)
        if rest_weights is not None:
            value *= tl.load(rest_weights + e).to(tl.float32)
        total += value
    at = image * y_strides[0] + channel * y_strides[1] + place * y_strides[2]
    tl.store(y + at, total.to(y.dtype.element_ty), mask=of_mixed | of_rest)


@triton.jit
def partial_node_backward_kernel(
    grad,
    by_mixed,
    by_rests,
    sums,
    positions,
    mixed,
    rests,
    mixed_weights,
    rest_weights,
    grad_strides,
    by_mixed_strides,
    by_rest_strides,
    position_strides,
    mixed_strides,
    rest_strides,
    sizes,
    C,
    S,
    T,
    W_OUT,
    K: tl.constexpr,
    LEAD: tl.constexpr,
    STRIDES: tl.constexpr,
    SLOTS: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_S: tl.constexpr,
):
    """From a tile of y's gradient those of all inputs there and, of inputs given, the weights' partial sums."""
    image, channel, source, position, of_mixed, of_rest = _tile(C, S, T, K, LEAD, BLOCK_C, BLOCK_S)
    place = position.to(tl.int64)
    at = image * grad_strides[0] + channel * grad_strides[1] + place * grad_strides[2]
    g = tl.load(grad + at, mask=of_mixed | of_rest, other=0.0).to(tl.float32)
    # a row of partial sums for each weight, a column for each program: added up by the second stage
    programs = tl.num_programs(0).to(tl.int64)
    column = sums + tl.program_id(0)
    for e in tl.static_range(len(by_mixed)):
        scaled = g
        if mixed_weights is not None:
            scaled = g * tl.load(mixed_weights + e).to(tl.float32)
        at = image * by_mixed_strides[0] + source * by_mixed_strides[1] + place * by_mixed_strides[2]
        tl.store(by_mixed[e] + at, scaled.to(by_mixed[e].dtype.element_ty), mask=of_mixed)
        if len(mixed) > 0:
            at = image * mixed_strides[e][0] + source * mixed_strides[e][1] + place * mixed_strides[e][2]
            value = tl.load(mixed[e] + at, mask=of_mixed, other=0.0).to(tl.float32)
            tl.store(column + e * programs, tl.sum(tl.where(of_mixed, value * g, 0.0)))
    for e in tl.static_range(len(by_rests)):
        scaled = g
        if rest_weights is not None:
            scaled = g * tl.load(rest_weights + e).to(tl.float32)
        by_plane = by_rests[e] + image * by_rest_strides[e][0] + source * by_rest_strides[e][1]
        if STRIDES[e] == 2:
            H = sizes[e][0]
            W = sizes[e][1]
            top = position // W_OUT * 2
            left = position % W_OUT * 2
            if len(rests) > 0:
                plane = rests[e] + image * rest_strides[e][0] + source * rest_strides[e][1]
                value, code = _pooled(plane, top, left, H, W, rest_strides[e][2], of_rest)
                value = tl.where(of_rest, value, 0.0)
            else:
                at = image * position_strides[0] + source * position_strides[1] + place * position_strides[2]
                code = tl.load(positions[SLOTS[e]] + at, mask=of_rest, other=0).to(tl.int32)
            for n in tl.static_range(4):
                at, inside = _tap(top, left, H, W, n, of_rest)
                to_tap = tl.where(code == n, scaled, 0.0)
                tl.store(by_plane + at * by_rest_strides[e][2], to_tap.to(by_rests[e].dtype.element_ty), mask=inside)
        else:
            tl.store(by_plane + place * by_rest_strides[e][2], scaled.to(by_rests[e].dtype.element_ty), mask=of_rest)
            if len(rests) > 0:
                plane = rests[e] + image * rest_strides[e][0] + source * rest_strides[e][1]
                value = tl.load(plane + place * rest_strides[e][2], mask=of_rest, other=0.0).to(tl.float32)
        if len(rests) > 0:
            tl.store(column + (len(mixed) + e) * programs, tl.sum(tl.where(of_rest, value * g, 0.0)))
