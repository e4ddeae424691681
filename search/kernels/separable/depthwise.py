"""Gradients of depthwise convolutions by faster routes than the library's on CPU; the same mathematics.

The library's gradient by the input of a dilated depthwise convolution, and its gradient by the weights of any but undilated
3x3 ones, are many times slower on CPU than its forward (torch 2.14 on an AMD EPYC and an Intel Xeon). So:
- by the input, at stride 1: the forward convolution of the gradient with the kernel turned by 180 degrees;
- by a 5x5 or 7x7 kernel: those three columns wide that cover it, each on a shifted map (wider ones have no fast code);
- dilated: the undilated one on maps of every d-th pixel;
- at a stride that divides the dilation: at stride 1 on the pixels that are read at all;
- by a 5x5 kernel at stride 2: 3x3 ones on the four maps of every other pixel.
On other devices the library's own are used.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_backward = torch.ops.aten.convolution_backward


def by_input(grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int, dilation: int) -> Tensor:
    """Gradient by x [B, C, H, W], of all its T copies summed, of F.conv2d(T copies of x, weight [T*C, 1, k, k], groups=T*C).

    grad: of its output, [B, T*C, H', W'].
    """
    channels, kernel = x.shape[1], weight.shape[2]
    targets = len(weight) // channels
    ours = x.device.type == "cpu" and padding == dilation * (kernel - 1) // 2
    if ours and stride > 1 and dilation % stride == 0:
        by_x = x.new_zeros(x.shape)
        read = by_x[:, :, ::stride, ::stride]
        read.copy_(by_input(grad, read, weight, 1, padding // stride, dilation // stride))
        return by_x
    if not ours or stride != 1:
        # one convolution with a channel multiplier, whose outputs of a channel follow each other
        grad = grad.view(len(grad), targets, channels, *grad.shape[2:]).transpose(1, 2).reshape(grad.shape)
        weight = weight.view(targets, channels, *weight.shape[1:]).transpose(0, 1).reshape(weight.shape)
        return _native(grad, x, weight, stride, (padding, padding), dilation, (True, False))[0]
    by_wide = F.conv2d(grad, weight.flip(2, 3), None, 1, padding, dilation, groups=len(weight))
    return by_wide.view(len(x), targets, *x.shape[1:]).sum(1)


def by_weight(grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int, dilation: int) -> Tensor:
    """Gradient by weight [C, 1, k, k] of F.conv2d(x, weight, groups=C); x [B, C, H, W], grad of the output's shape."""
    kernel = weight.shape[2]
    if x.device.type == "cpu" and padding == dilation * (kernel - 1) // 2:
        if stride > 1 and dilation % stride == 0:
            return by_weight(grad, x[:, :, ::stride, ::stride], weight, 1, padding // stride, dilation // stride)
        if kernel == 5 and (stride, dilation) == (2, 1):
            return _by_halved(grad, x, weight)
        if stride == 1 and (kernel in (5, 7) or (kernel == 3 and dilation > 1)):
            return _by_columns(grad, x, weight, dilation)
    return _native(grad, x, weight, stride, (padding, padding), dilation, (False, True))[1]


def _by_columns(grad: Tensor, x: Tensor, weight: Tensor, dilation: int) -> Tensor:
    """Three columns at a time, at stride 1."""
    kernel = weight.shape[2]
    wide = kernel - 3
    _, moved_x = _apart(x, kernel, dilation, wide // 2, 0)
    flat, moved_grad = _apart(grad, kernel, dilation, 0, wide)
    part = weight.new_empty(len(weight), 1, kernel, 3)
    result = torch.empty_like(weight)
    for first in range(0, kernel - 1, 2):
        # `wide` zeros end every row and lead the first: later in memory is further right on the map
        shifted = flat[wide - first : len(flat) - first].view(moved_grad.shape)
        result[..., first : first + 3] = _native(shifted, moved_x, part, 1, (kernel // 2, 1), 1, (False, True))[1]
    return result


def _apart(x: Tensor, kernel: int, dilation: int, left: int, lead: int) -> tuple[Tensor, Tensor]:
    """[B, C, H, W] -> (its memory, [d * d * B, C, H / d, W / d + k - 3]): the map of every d-th pixel from each of d * d first
    ones, `left` of the k - 3 further columns before it. There are `lead` zeros before its memory's first pixel.
    """
    b, c, h, w = x.shape
    if h % dilation or w % dilation:
        x = F.pad(x, (0, -w % dilation, 0, -h % dilation))
    h, w = -(-h // dilation), -(-w // dilation)
    # maps lower than the kernel have no fast code either
    rows, columns = max(h, kernel), w + kernel - 3
    flat = x.new_zeros(lead + dilation * dilation * b * c * rows * columns)
    maps = flat[lead:].view(dilation, dilation, b, c, rows, columns)
    maps[..., :h, left : left + w] = x.reshape(b, c, h, dilation, w, dilation).permute(3, 5, 0, 1, 2, 4)
    return flat, maps.view(-1, c, rows, columns)


def _by_halved(grad: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """By a 5x5 kernel at stride 2: its rows (columns) 0, 2, 4 read even rows of x, 1 and 3 odd ones."""
    if x.shape[2] % 2 or x.shape[3] % 2:
        x = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))
    part = weight.new_empty(len(weight), 1, 3, 3)
    result = torch.empty_like(weight)
    for row in range(2):
        for column in range(2):
            by_part = _native(grad, x[:, :, row::2, column::2], part, 1, (1, 1), 1, (False, True))[1]
            result[:, :, row::2, column::2] = by_part[..., : 3 - row, : 3 - column]
    return result


def _native(
    grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding: tuple[int, int], dilation: int, wanted: tuple[bool, bool]
) -> tuple[Tensor, Tensor]:
    by_x, by_weight, _ = _backward(
        grad,
        x,
        weight,
        None,
        [stride, stride],
        padding,
        [dilation, dilation],
        False,
        [0, 0],
        x.shape[1],
        [*wanted, False],
    )
    return by_x, by_weight
