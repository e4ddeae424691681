"""Separable convolutions of many targets that keep their input alone; what comes between is computed again in backward.

One call for all targets: the first depthwise convolutions share their input, so they are one convolution with a channel
multiplier; the pointwise ones are one batched matrix product. Nothing but the input is kept, so a separable convolution costs
the bytes of one map for each norm. Differentiable once: second-order gradients through these need the reference plan.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from search.kernels.separable.depthwise import depthwise_backward

_batch_norm = torch.ops.aten.native_batch_norm
_batch_norm_backward = torch.ops.aten.native_batch_norm_backward


def relu_separable(x: Tensor, depthwise: Tensor, pointwise: Tensor, stride: int, padding: int, dilation: int) -> Tensor:
    """As `relu_separable_reference`: x [B, C, H, W], depthwise [T, C, k, k], pointwise [T, O, C] -> [B, T*O, H', W']."""
    return _ReluSeparable.apply(*_for_autocast(x, depthwise, pointwise), stride, padding, dilation)


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
) -> Tensor:
    """As `norm_relu_separable_reference`: z [B, T*C, H, W] -> [B, T*O, H, W]; `running` is moved in training mode."""
    mean, var = running or (None, None)
    return _NormReluSeparable.apply(
        *_for_autocast(z, depthwise, pointwise), padding, dilation, weight, bias, mean, var, training, momentum, eps
    )


def _for_autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """In autocast's dtype, because it is off when backward computes again what forward did."""
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return tensors
    return tuple(tensor.to(torch.get_autocast_dtype(device)) for tensor in tensors)


class _ReluSeparable(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, x: Tensor, depthwise: Tensor, pointwise: Tensor, stride: int, padding: int, dilation: int
    ) -> Tensor:
        ctx.save_for_backward(x, depthwise, pointwise)
        ctx.geometry = stride, padding, dilation
        return _mixed(pointwise, _multiplied(F.relu(x), depthwise, stride, padding, dilation))

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        x, depthwise, pointwise = ctx.saved_tensors
        stride, padding, dilation = ctx.geometry
        targets, channels = depthwise.shape[:2]
        r = F.relu(x)
        d = _multiplied(r, depthwise, stride, padding, dilation)
        by_d, by_pointwise = _mixed_backward(grad, pointwise, d)
        by_d = by_d.transpose(1, 2).reshape(d.shape[0], -1, *d.shape[3:])
        del d
        weight = _interleaved(depthwise)
        if targets == 1:
            by_r, by_weight = depthwise_backward(by_d, r, weight, stride, padding, dilation)
        else:
            by_r, by_weight, _ = torch.ops.aten.convolution_backward(
                by_d, r, weight, None, [stride] * 2, [padding] * 2, [dilation] * 2, False, [0, 0], channels, [True, True, False]
            )
        by_depthwise = by_weight.view(channels, targets, *depthwise.shape[2:]).transpose(0, 1)
        return by_r * (r > 0), by_depthwise, by_pointwise, None, None, None


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
    ) -> Tensor:
        h, batch_mean, batch_invstd = _batch_norm(z, weight, bias, mean, var, training, momentum, eps)
        d = _own(F.relu_(h), depthwise, padding, dilation)
        # running statistics are read by the backward of eval mode only
        fixed = (None, None) if training else (mean, var)
        ctx.save_for_backward(z, depthwise, pointwise, weight, bias, batch_mean, batch_invstd, *fixed)
        ctx.geometry = padding, dilation, training, eps
        return _mixed(pointwise, d)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        z, depthwise, pointwise, weight, bias, batch_mean, batch_invstd, mean, var = ctx.saved_tensors
        padding, dilation, training, eps = ctx.geometry
        targets, channels, kernel = depthwise.shape[:3]
        h = _normalised(z, weight, bias, batch_mean, batch_invstd, mean, var, training, eps)
        h = F.relu_(h)
        d = _own(h, depthwise, padding, dilation)
        by_d, by_pointwise = _mixed_backward(grad, pointwise, d)
        by_d = by_d.view(d.shape)
        del d
        flat = depthwise.reshape(targets * channels, 1, kernel, kernel)
        by_h, by_flat = depthwise_backward(by_d, h, flat, 1, padding, dilation)
        by_h = by_h * (h > 0)
        by_z, by_weight, by_bias = _batch_norm_backward(
            by_h,
            z,
            weight,
            mean,
            var,
            batch_mean,
            batch_invstd,
            training,
            eps,
            [True, weight is not None, bias is not None],
        )
        by_depthwise = by_flat.view(depthwise.shape)
        return by_z, by_depthwise, by_pointwise, None, None, by_weight, by_bias, None, None, None, None, None


def _interleaved(depthwise: Tensor) -> Tensor:
    """[T, C, k, k] -> [C * T, 1, k, k]: all targets of a channel follow each other, as a channel multiplier has them."""
    targets, channels, kernel, _ = depthwise.shape
    return depthwise.transpose(0, 1).reshape(channels * targets, 1, kernel, kernel)


def _multiplied(r: Tensor, depthwise: Tensor, stride: int, padding: int, dilation: int) -> Tensor:
    """[B, C, H, W] -> [B, T, C, H', W']."""
    channels = r.shape[1]
    d = F.conv2d(r, _interleaved(depthwise), None, stride, padding, dilation, groups=channels)
    return d.view(d.shape[0], channels, -1, *d.shape[2:]).transpose(1, 2).contiguous()


def _own(h: Tensor, depthwise: Tensor, padding: int, dilation: int) -> Tensor:
    """Every target's channels by its own filters: [B, T*C, H, W] -> the same shape."""
    flat = depthwise.reshape(-1, 1, *depthwise.shape[2:])
    return F.conv2d(h, flat, None, 1, padding, dilation, groups=len(flat))


def _mixed(pointwise: Tensor, d: Tensor) -> Tensor:
    """Every target's channels by its own matrix: [T, O, C], d [B, T*C, H, W] or [B, T, C, H, W] -> [B, T*O, H, W]."""
    targets, _, channels = pointwise.shape
    y = torch.matmul(pointwise, d.view(d.shape[0], targets, channels, -1))
    return y.view(d.shape[0], -1, *d.shape[-2:])


def _mixed_backward(grad: Tensor, pointwise: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """(gradient by d as [B, T, C, H, W], by the matrices [T, O, C])."""
    targets, outputs, channels = pointwise.shape
    grad = grad.reshape(len(grad), targets, outputs, -1)
    by_pointwise = torch.matmul(grad, d.view(len(grad), targets, channels, -1).transpose(2, 3)).sum(0)
    by_d = torch.matmul(pointwise.transpose(1, 2), grad)
    return by_d.view(len(grad), targets, channels, *d.shape[-2:]), by_pointwise


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
