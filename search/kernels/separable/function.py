"""Convolutions of many targets that keep their input alone; what comes between is computed again in backward.

One call for all targets: the first depthwise convolutions, which share their input, are one over as many copies of it, the
pointwise ones are one batched matrix product. Nothing but the input is kept, so a separable convolution costs
the bytes of one map for each norm. Differentiable once: second-order gradients through these need the reference plan.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from search.kernels.separable.depthwise import by_input, by_weight
from search.kernels.wanted import asked_for

_batch_norm = torch.ops.aten.native_batch_norm
_batch_norm_backward = torch.ops.aten.native_batch_norm_backward


def relu_separable(x: Tensor, depthwise: Tensor, pointwise: Tensor, stride: int, padding: int, dilation: int) -> Tensor:
    """As `relu_separable_reference`: x [B, C, H, W], depthwise [T, C, k, k], pointwise [T, O, C] -> [B, T*O, H', W']."""
    return relu_separables(x, [(depthwise, pointwise)], [(stride, padding, dilation)])[0]


def relu_separables(
    x: Tensor, weights: Sequence[tuple[Tensor, Tensor]], geometries: Sequence[tuple[int, int, int]]
) -> tuple[Tensor, ...]:
    """Several `relu_separable` of one x and equally many targets, which share ReLU and the copies of its result."""
    flat = [tensor for pair in weights for tensor in pair]
    return _ReluSeparables.apply(*_for_autocast(x, *flat), tuple(geometries))


def norm_relu_separable(
    z: Tensor,
    depthwise: Tensor,
    pointwise: Tensor,
    padding: int,
    dilation: int,
    weight: Tensor | None,
    bias: Tensor | None,
    running: tuple[Tensor, Tensor] | None,
    training: bool,
    momentum: float,
    eps: float,
    read_as: tuple[int, int] | None = None,
) -> Tensor:
    """As `norm_relu_separable_reference`: z [B, T*C, H, W] -> [B, T*O, H, W]; `running` is moved in training mode.

    `read_as`: images and channels that the norm reads z as, in its order: (B / P, P*T*C) are P passes side by side, each with
    statistics of its own, (1, B*T*G) group norms of G groups. The norm's vectors are as long as it has channels.
    """
    mean, var = running or (None, None)
    return _NormReluSeparable.apply(
        *_for_autocast(z, depthwise, pointwise), padding, dilation, weight, bias, mean, var, training, momentum, eps, read_as
    )


def relu_convolution(x: Tensor, weight: Tensor, stride: int, padding: int, dilation: int) -> Tensor:
    """`F.conv2d(F.relu(x), weight, ...)` that keeps x alone: x [B, C, H, W], weight [O, C, k, k] -> [B, O, H', W']."""
    return _ReluConvolution.apply(*_for_autocast(x, weight), stride, padding, dilation)


def _for_autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """In autocast's dtype, because it is off when backward computes again what forward did."""
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return tensors
    return tuple(tensor.to(torch.get_autocast_dtype(device)) for tensor in tensors)


class _ReluConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, stride: int, padding: int, dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry = stride, padding, dilation
        return F.conv2d(F.relu(x), weight, None, stride, padding, dilation)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        x, weight = ctx.saved_tensors
        stride, padding, dilation = ctx.geometry
        wanted = [ctx.needs_input_grad[0], asked_for(ctx, 1), False]
        by_r, by_kernel, _ = torch.ops.aten.convolution_backward(
            grad, F.relu(x), weight, None, [stride] * 2, [padding] * 2, [dilation] * 2, False, [0, 0], 1, wanted
        )
        by_x = torch.ops.aten.threshold_backward(by_r, x, 0) if wanted[0] else None
        return by_x, by_kernel, None, None, None


class _ReluSeparables(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, *rest) -> tuple[Tensor, ...]:
        *weights, geometries = rest
        ctx.save_for_backward(x, *weights)
        ctx.geometries = geometries
        wide = _repeated(F.relu(x), len(weights[0]))
        pairs = zip(weights[::2], weights[1::2], geometries, strict=True)
        return tuple(_mixed(pointwise, _own(wide, depthwise, *geometry)) for depthwise, pointwise, geometry in pairs)

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads: Tensor):
        x, *weights = ctx.saved_tensors
        # asked of all at once: they are parts of one tensor
        asked = asked_for(ctx, *range(1, 1 + len(weights)))
        wide = _repeated(F.relu(x), len(weights[0])) if asked else None
        found: list[Tensor | None] = []
        by_r = None
        for grad, depthwise, pointwise, geometry in zip(grads, weights[::2], weights[1::2], ctx.geometries, strict=True):
            by_d = _mixed_backward(grad, pointwise)
            flat = depthwise.reshape(-1, 1, *depthwise.shape[2:])
            if wide is None:
                found += [None, None]
            else:
                by_pointwise = _by_pointwise(grad, pointwise, _own(wide, depthwise, *geometry))
                found += [by_weight(by_d, wide, flat, *geometry).view(depthwise.shape), by_pointwise]
            own = by_input(by_d, x, flat, *geometry)
            by_r = own if by_r is None else by_r.add_(own)
        return torch.ops.aten.threshold_backward(by_r, x, 0), *found, None


class _NormReluSeparable(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        z: Tensor,
        depthwise: Tensor,
        pointwise: Tensor,
        padding: int,
        dilation: int,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor | None,
        var: Tensor | None,
        training: bool,
        momentum: float,
        eps: float,
        read_as: tuple[int, int] | None,
    ) -> Tensor:
        h, batch_mean, batch_invstd = _batch_norm(_read_as(z, read_as), weight, bias, mean, var, training, momentum, eps)
        d = _own(F.relu_(h).view(z.shape), depthwise, 1, padding, dilation)
        # running statistics are read by the backward of eval mode only
        fixed = (None, None) if training else (mean, var)
        ctx.save_for_backward(z, depthwise, pointwise, weight, bias, batch_mean, batch_invstd, *fixed)
        ctx.geometry = padding, dilation, training, eps, read_as
        return _mixed(pointwise, d)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        z, depthwise, pointwise, weight, bias, batch_mean, batch_invstd, mean, var = ctx.saved_tensors
        padding, dilation, training, eps, read_as = ctx.geometry
        read = _read_as(z, read_as)
        h = F.relu_(_normalised(read, weight, bias, batch_mean, batch_invstd, mean, var, training, eps)).view(z.shape)
        by_pointwise = by_depthwise = None
        by_d = _mixed_backward(grad, pointwise)
        flat = depthwise.reshape(-1, 1, *depthwise.shape[2:])
        by_h = by_input(by_d, h, flat, 1, padding, dilation)
        if asked_for(ctx, 1, 2):
            by_pointwise = _by_pointwise(grad, pointwise, _own(h, depthwise, 1, padding, dilation))
            by_depthwise = by_weight(by_d, h, flat, 1, padding, dilation).view(depthwise.shape)
        by_h = torch.ops.aten.threshold_backward(by_h, h, 0)
        by_z, by_scale, by_shift = _batch_norm_backward(
            _read_as(by_h, read_as),
            read,
            weight,
            mean,
            var,
            batch_mean,
            batch_invstd,
            training,
            eps,
            [True, weight is not None, bias is not None],
        )
        by_z = by_z.view(z.shape)
        return by_z, by_depthwise, by_pointwise, None, None, by_scale, by_shift, None, None, None, None, None, None


def _read_as(z: Tensor, images_and_channels: tuple[int, int] | None) -> Tensor:
    return z if images_and_channels is None else z.view(*images_and_channels, -1, z.shape[-1])


def _repeated(r: Tensor, targets: int) -> Tensor:
    """[B, C, H, W] -> [B, T*C, H, W]: every target's own copy, because a depthwise convolution without a channel multiplier is
    several times faster, copy included."""
    return r if targets == 1 else r.repeat(1, targets, 1, 1)


def _own(h: Tensor, depthwise: Tensor, stride: int, padding: int, dilation: int) -> Tensor:
    """Every target's channels by its own filters: [B, T*C, H, W] -> [B, T*C, H', W']."""
    flat = depthwise.reshape(-1, 1, *depthwise.shape[2:])
    return F.conv2d(h, flat, None, stride, padding, dilation, groups=len(flat))


def _mixed(pointwise: Tensor, d: Tensor) -> Tensor:
    """Every target's channels by its own matrix: [T, O, C], d [B, T*C, H, W] -> [B, T*O, H, W]."""
    targets, _, channels = pointwise.shape
    y = torch.matmul(pointwise, d.view(d.shape[0], targets, channels, -1))
    return y.view(d.shape[0], -1, *d.shape[-2:])


def _mixed_backward(grad: Tensor, pointwise: Tensor) -> Tensor:
    """The gradient by d [B, T*C, H, W]."""
    targets, outputs, _ = pointwise.shape
    by_d = torch.matmul(pointwise.transpose(1, 2), grad.reshape(len(grad), targets, outputs, -1))
    return by_d.view(len(grad), -1, *grad.shape[-2:])


def _by_pointwise(grad: Tensor, pointwise: Tensor, d: Tensor) -> Tensor:
    """The gradient by the matrices [T, O, C]."""
    targets, outputs, channels = pointwise.shape
    grad = grad.reshape(len(grad), targets, outputs, -1)
    return torch.matmul(grad, d.view(len(grad), targets, channels, -1).transpose(2, 3)).sum(0)


def _normalised(
    z: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    batch_mean: Tensor,
    batch_invstd: Tensor,
    mean: Tensor | None,
    var: Tensor | None,
    training: bool,
    eps: float,
) -> Tensor:
    """The norm's output again, from the statistics it had."""
    if training:
        # eval mode with the batch's own statistics; eps is in the saved ones already
        mean, var, eps = batch_mean, batch_invstd.pow(-2), 0.0
    return F.batch_norm(z, mean, var, weight, bias, False, 0.0, eps)
