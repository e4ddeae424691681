"""3x3 max and average pools that keep little for backward: the max pool two bytes for each of its outputs (four where rows
have 2^14 pixels and more), the average pool nothing. The library's keep their input, and the max pool 8 bytes more.

On CPU the maximum is taken along rows, then along columns, the average by a depthwise convolution with ones: the library's
own take longer, forward and backward about twice and five to eight times as long (torch 2.14, AMD EPYC).

Shapes: B batch, C channels, H and W size, H' = ceil(H / stride), W' = ceil(W / stride).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


def max_pool_3x3(x: Tensor, stride: int) -> Tensor:
    """Bit for bit `F.max_pool2d(x, 3, stride, 1)`: [B, C, H, W] -> [B, C, H', W'].

    The gradient goes to the first maximum in row-major order, or to the last NaN, as in torch.
    """
    if torch.is_grad_enabled() and x.requires_grad:
        return _MaxPool.apply(x, stride)[0]
    return _largest(x, stride, False)[0] if _by_rows(x) else F.max_pool2d(x, 3, stride, 1)


def avg_pool_3x3(x: Tensor, stride: int) -> Tensor:
    """`F.avg_pool2d(x, 3, stride, 1, count_include_pad=False)` but for rounding: [B, C, H, W] -> [B, C, H', W']."""
    return _AvgPool.apply(x, stride)


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, stride: int) -> tuple[Tensor, Tensor]:
        return _largest(x, stride, True) if _by_rows(x) else _of_library(x, stride)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int], output: tuple[Tensor, Tensor]) -> None:
        x, ctx.stride = inputs
        ctx.shape = x.shape
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, None]:
        (place,) = ctx.saved_tensors
        # torch's index in the plane
        index = place.long().add_(_middles(ctx.shape, ctx.stride, grad.device))
        pool = ([3, 3], [ctx.stride] * 2, [1, 1], [1, 1], False)
        like = _like(grad, ctx.shape)
        return torch.ops.aten.max_pool2d_with_indices_backward(grad.contiguous(), like, *pool, index), None


class _AvgPool(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, stride: int) -> Tensor:
        if x.device.type != "cpu":
            return F.avg_pool2d(x, 3, stride, 1, count_include_pad=False)
        return _sums(x, stride).div_(_counts(x, stride))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int], output: Tensor) -> None:
        x, ctx.stride = inputs
        ctx.shape = x.shape

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        like = _like(grad, ctx.shape)
        if ctx.stride == 1 and grad.device.type == "cpu":
            return _sums(grad / _counts(like, 1), 1), None
        pool = ([3, 3], [ctx.stride] * 2, [1, 1], False, False, None)
        return torch.ops.aten.avg_pool2d_backward(grad.contiguous(), like, *pool), None


def _like(grad: Tensor, shape: torch.Size) -> Tensor:
    """What the library's backward reads the shape of, without values: on CPU also without memory, CUDA would make it dense."""
    return grad.new_empty(()).expand(shape) if grad.device.type == "cpu" else grad.new_empty(shape)


def _by_rows(x: Tensor) -> bool:
    # torch.compile refuses what writes to a part of memory by strides
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def _of_library(x: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """As `_largest` with places."""
    y, index = F.max_pool2d(x, 3, stride, 1, return_indices=True)
    return y, index.sub_(_middles(x.shape, stride, x.device)).to(_integers(x.shape[3]))


def _middles(shape: torch.Size, stride: int, device: torch.device) -> Tensor:
    """Where the windows' middles lie in a plane, counted along rows: [H', W']."""
    rows, columns = (torch.arange(0, n, stride, device=device) for n in shape[2:])
    return rows[:, None] * shape[3] + columns


def _integers(width: int) -> torch.dtype:
    """Holds a row and a pixel more, either way."""
    return torch.int16 if width < 2**14 else torch.int32


def _largest(x: Tensor, stride: int, places: bool) -> tuple[Tensor, Tensor | None]:
    """Maxima [B, C, H', W'], and where they are, if asked for: relative to the window's middle, in rows of W.

    Planes with their padding are one row of numbers, so that every pass is over memory as it lies; what is computed across
    the ends of rows is cut off at last.
    """
    (b, c, h, w), wide = x.shape, x.shape[3] + 2
    planes, plane = b * c, (h + 2) * wide
    frame = F.pad(x, (1, 1, 1, 1), value=float("-inf")).view(-1)
    dtype = _integers(w) if places else None
    # what lies outside never wins, also not over other -inf: in the first and the last column, then row, of each plane
    columns = _Border((planes * (h + 2),), (wide,), w - 1)
    best, place = _of_three(frame, None, 1, 1, columns, dtype)
    rows = _Border((planes, w), (plane, 1), (h - 1) * wide)
    best, place = _of_three(best, place, wide, w, rows, dtype)
    size, strides = (b, c, (h + stride - 1) // stride, (w + stride - 1) // stride), (c * plane, plane, stride * wide, stride)
    y = best.as_strided(size, strides).contiguous()
    return y, place.as_strided(size, strides).contiguous() if place is not None else None


class _Border(NamedTuple):
    """Where in a row of numbers the first windows of planes lie, and from there the last ones."""

    size: tuple[int, ...]
    strides: tuple[int, ...]
    last: int


def _of_three(
    x: Tensor, place: Tensor | None, apart: int, step: int, border: _Border, dtype: torch.dtype | None
) -> tuple[Tensor, Tensor | None]:
    """The largest of x[i], x[i + apart], x[i + 2 * apart], and its place: -step, 0 or step more than its own.

    `dtype`: of places; None where they aren't asked for.
    """
    count = len(x) - 2 * apart
    parts = [x[i * apart : i * apart + count] for i in range(3)]
    best = torch.maximum(parts[0], parts[1])
    if dtype is None:
        return torch.maximum(best, parts[2], out=best), None
    second, third = _later(parts[0], parts[1]), _later(best, parts[2])
    second.as_strided(border.size, border.strides).fill_(1)
    third.as_strided(border.size, border.strides, border.last).fill_(0)
    torch.maximum(best, parts[2], out=best)
    if place is None:
        return best, torch.maximum(second, third * 2).to(dtype).sub_(1)
    own = [place[i * apart : i * apart + count] for i in range(3)]
    # torch.where mispredicts its branches on CPU: arithmetic takes a tenth of its time
    of_two = (own[1] + step - own[0]).mul_(second).add_(own[0]).sub_(step)
    return best, (own[2] + step - of_two).mul_(third).add_(of_two)


def _later(first: Tensor, second: Tensor) -> Tensor:
    """1 where the second of two values wins, else 0 (uint8)."""
    return ((second > first) | (second != second)).view(torch.uint8)


def _sums(x: Tensor, stride: int) -> Tensor:
    """Sums over 3x3 windows, zeros around the planes."""
    channels = x.shape[1]
    return F.conv2d(x, x.new_ones(channels, 1, 3, 3), None, stride, 1, 1, channels)


def _counts(x: Tensor, stride: int) -> Tensor:
    """How many pixels of the plane a window holds, [H', W']."""
    rows, columns = (_inside(n, stride, x.device) for n in x.shape[2:])
    return (rows[:, None] * columns).to(x.dtype)


def _inside(size: int, stride: int, device: torch.device) -> Tensor:
    middle = torch.arange(0, size, stride, device=device)
    return (middle + 2).clamp(max=size) - (middle - 1).clamp(min=0)
