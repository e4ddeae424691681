"""Gradients of depthwise convolutions by faster routes than the library's on CPU; the same mathematics.

The library's gradient by the input of a dilated depthwise convolution, and its gradient by the weights of any but the plain
3x3 one, are many times slower on CPU than its forward (torch 2.14 on an AMD EPYC). So:
- by the input, at stride 1: the forward convolution of the gradient with the kernel turned by 180 degrees;
- by a 5x5 or 7x7 kernel: those three columns wide that cover it, each on a shifted map (wider ones have no fast code);
- at dilation 2 and even sizes: the undilated one on the four maps of every other pixel.
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
    if x.device.type != "cpu" or stride != 1 or padding != dilation * (kernel - 1) // 2:
        # one convolution with a channel multiplier, whose outputs of a channel follow each other
        grad = grad.view(len(grad), targets, channels, *grad.shape[2:]).transpose(1, 2).reshape(grad.shape)
        weight = weight.view(targets, channels, *weight.shape[1:]).transpose(0, 1).reshape(weight.shape)
        return _native(grad, x, weight, stride, (padding, padding), dilation, (True, False))[0]
    by_wide = F.conv2d(grad, weight.flip(2, 3), None, 1, padding, dilation, groups=len(weight))
    return by_wide.view(len(x), targets, *x.shape[1:]).sum(1)


def by_weight(grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int, dilation: int) -> Tensor:
    """Gradient by weight [C, 1, k, k] of F.conv2d(x, weight, groups=C); x [B, C, H, W], grad of the output's shape."""
    kernel = weight.shape[2]
    if x.device.type != "cpu" or stride != 1 or padding != dilation * (kernel - 1) // 2:
        return _native(grad, x, weight, stride, (padding, padding), dilation, (False, True))[1]
    return _by_weight(grad, x, weight, padding, dilation)


def _by_weight(grad: Tensor, x: Tensor, weight: Tensor, padding: int, dilation: int) -> Tensor:
    kernel = weight.shape[2]
    if dilation == 2 and x.shape[2] % 2 == 0 and x.shape[3] % 2 == 0 and kernel > 1:
        return _by_weight(_phases(grad), _phases(x), weight, padding // 2, 1)
    if dilation != 1 or kernel not in (5, 7):
        return _native(grad, x, weight, 1, (padding, padding), dilation, (False, True))[1]
    part = weight.new_empty(weight.shape[0], 1, kernel, 3)
    result = torch.empty_like(weight)
    # maps lower than the kernel have no fast code either
    below = max(kernel - x.shape[2], 0)
    for first in range(0, kernel - 1, 2):
        # the part's first column reads this many columns further than one of padding 1 would
        by = first - padding + 1
        before, after = max(-by, 0), max(by, 0)
        wide_x, wide_grad = x, grad
        if by or below:
            wide_x, wide_grad = F.pad(x, (before, after, 0, below)), F.pad(grad, (after, before, 0, below))
        result[..., first : first + 3] = _native(wide_grad, wide_x, part, 1, (padding, 1), 1, (False, True))[1]
    return result


def _phases(x: Tensor) -> Tensor:
    """[B, C, H, W] -> [4 * B, C, H / 2, W / 2]: the pixels of each parity."""
    b, c, h, w = x.shape
    return x.view(b, c, h // 2, 2, w // 2, 2).permute(3, 5, 0, 1, 2, 4).reshape(4 * b, c, h // 2, w // 2)


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
