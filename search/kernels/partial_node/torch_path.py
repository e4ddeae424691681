"""The partial-channel node in plain PyTorch, any device: few bytes kept, few passes, exact gradients of any order.

Kept for backward: the mixed tensors if their weights take a gradient, the rests likewise (views: a state's memory is kept once,
however many nodes read it), else nothing but the weights. A max pool keeps one byte for each of its outputs.

Sums are made in place, where their result stays: on CPU the first touch of fresh memory costs more than a pass over it.

Shapes: B batch, K groups, T = C / K channels that the candidates see, R = C - T the rest, H and W size of the node.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from search.kernels.partial_node.arguments import checked, empty, is_channels_last
from search.kernels.partial_node.reference import wide


def partial_node_torch(
    mixed: Sequence[Tensor],
    rests: Sequence[Tensor],
    k: int,
    *,
    mixed_weights: Tensor | None = None,
    rest_weights: Tensor | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    """As `partial_node`, in plain PyTorch."""
    mixed, rests, strides = checked(mixed, rests, k, mixed_weights, rest_weights, strides)
    rests = [max_pool_2x2_torch(r) if s == 2 else r for r, s in zip(rests, strides, strict=True)]
    if rest_weights is not None and rest_weights is mixed_weights:
        # torch.compile lets no function of ours take a tensor twice
        rest_weights = rest_weights.view(-1)
    return _Node.apply(k, len(mixed), mixed_weights, rest_weights, *mixed, *rests)


def max_pool_2x2_torch(x: Tensor) -> Tensor:
    """As `max_pool_2x2`, in plain PyTorch: bit for bit `F.max_pool2d(x, 2, 2, ceil_mode=True)`, on CPU faster."""
    if torch.is_grad_enabled() and x.requires_grad:
        return _MaxPool.apply(x)[0]
    x = _even(x)
    rows = torch.maximum(x[..., 0::2], x[..., 1::2])
    return torch.maximum(rows[:, :, 0::2], rows[:, :, 1::2])


class _Node(torch.autograd.Function):
    @staticmethod
    def forward(k: int, count: int, mixed_weights: Tensor | None, rest_weights: Tensor | None, *tensors: Tensor) -> Tensor:
        mixed, rests = tensors[:count], tensors[count:]
        b, t, h, w = mixed[0].shape
        y = empty(mixed[0], (b, t * k, h, w), is_channels_last(mixed, rests), wide(mixed[0].dtype)).zero_()
        groups = y.unflatten(1, (t, k)).transpose(1, 2)
        for group, xs, weights in ((groups[:, :1], mixed, mixed_weights), (groups[:, 1:], rests, rest_weights)):
            for e, x in enumerate(xs):
                x = _wide(x).unflatten(1, (-1, t))
                group.add_(x) if weights is None else group.addcmul_(x, _wide(weights[e]))
        return y.to(mixed[0].dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        k, count, mixed_weights, rest_weights, *tensors = inputs
        ctx.k, ctx.count = k, count
        # only the weights' gradients read what was summed
        ctx.keeps_mixed, ctx.keeps_rests = ctx.needs_input_grad[2:4]
        mixed = tensors[:count] if ctx.keeps_mixed else []
        rests = tensors[count:] if ctx.keeps_rests else []
        ctx.save_for_backward(mixed_weights, rest_weights, *mixed, *rests)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        # operations that autograd can differentiate again
        mixed_weights, rest_weights, *kept = ctx.saved_tensors
        mixed, rests = (kept[: ctx.count], kept[ctx.count :]) if ctx.keeps_mixed else ([], kept)
        of_mixed, of_rest = _unshuffled(grad, ctx.k)
        needed = ctx.needs_input_grad[4:]
        return (
            None,
            None,
            _by_weights(of_mixed, mixed, mixed_weights) if ctx.keeps_mixed else None,
            _by_weights(of_rest, rests, rest_weights) if ctx.keeps_rests else None,
            *_scaled(of_mixed, mixed_weights, needed[: ctx.count]),
            *_scaled(of_rest, rest_weights, needed[ctx.count :]),
        )


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        return _pooled(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.shape = inputs[0].shape
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> Tensor:
        (code,) = ctx.saved_tensors
        h, w = ctx.shape[2:]
        # torch's index in the plane: where the window begins, plus row * w + column
        index = (code >> 1).long().mul_(w).add_(code & 1)
        index.add_(torch.arange(0, h, 2, device=grad.device)[:, None] * w + torch.arange(0, w, 2, device=grad.device))
        # of its second argument this operation reads the shape alone
        like = grad.new_empty(()).expand(ctx.shape)
        pool = ([2, 2], [2, 2], [0, 0], [1, 1], True)
        return torch.ops.aten.max_pool2d_with_indices_backward(grad.contiguous(), like, *pool, index.contiguous())


def _unshuffled(grad: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """[B, C, H, W] in shuffled order -> the mixed channels [B, T, H, W] and the rest [B, R, H, W], dense, in its layout."""
    if is_channels_last((grad,), ()):
        groups = grad.permute(0, 2, 3, 1).unflatten(3, (-1, k))
        mixed, rest = groups[..., 0].contiguous(), groups[..., 1:].transpose(3, 4).flatten(3)
        return mixed.permute(0, 3, 1, 2), rest.permute(0, 3, 1, 2)
    groups = grad.unflatten(1, (-1, k))
    return groups[:, :, 0].contiguous(), groups[:, :, 1:].transpose(1, 2).flatten(1, 2)


def _scaled(grad: Tensor, weights: Tensor | None, needed: Sequence[bool]) -> list[Tensor | None]:
    """The gradient of each tensor of a weighted sum, None where not needed; without weights one and the same tensor."""
    if weights is None:
        return [grad if n else None for n in needed]
    return [(_wide(grad) * weights[e]).to(grad.dtype) if n else None for e, n in enumerate(needed)]


def _by_weights(grad: Tensor, xs: Sequence[Tensor], weights: Tensor) -> Tensor:
    """The gradient of the weights of the tensors `xs`, each shaped as `grad`, whose weighted sum has the gradient `grad`."""
    return torch.stack([(_wide(grad) * _wide(x)).sum() for x in xs]).to(weights.dtype)


def _wide(x: Tensor) -> Tensor:
    return x.to(wide(x.dtype))


def _even(x: Tensor) -> Tensor:
    """x with an even height and width: what is added comes last in its window and is never greater."""
    h, w = x.shape[2:]
    return F.pad(x, (0, w % 2, 0, h % 2), value=float("-inf")) if h % 2 or w % 2 else x


def _pooled(x: Tensor) -> tuple[Tensor, Tensor]:
    """x [B, C, H, W] -> maxima and positions 2 * row + column in the window (uint8), [B, C, ceil(H / 2), ceil(W / 2)] both.

    The first maximum in row-major order wins, as in torch; among NaNs the last one.
    """
    x = _even(x)
    left, right = x[..., 0::2], x[..., 1::2]
    rows = torch.maximum(left, right)
    column = _later(left, right)
    top, bottom = rows[:, :, 0::2], rows[:, :, 1::2]
    row = _later(top, bottom)
    column_top, column_bottom = column[:, :, 0::2], column[:, :, 1::2]
    # torch.where mispredicts its branches on CPU: arithmetic takes a tenth of its time
    return torch.maximum(top, bottom), row * (column_bottom + 2 - column_top) + column_top


def _later(first: Tensor, second: Tensor) -> Tensor:
    """1 where the second of two values wins, else 0 (uint8)."""
    return ((second > first) | (second != second)).view(torch.uint8)
