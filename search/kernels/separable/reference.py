"""What the functions of this folder compute, in plain PyTorch.

Letters: B batch, T targets, C input channels of a target, O its output channels, H and W size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def relu_separable_reference(
    x: Tensor, depthwise: Tensor, pointwise: Tensor, stride: int, padding: int, dilation: int
) -> Tensor:
    """For each target ReLU, depthwise, pointwise.

    x [B, C, H, W], depthwise [T, C, k, k], pointwise [T, O, C] -> [B, T*O, H', W'].
    """
    outputs = []
    for dw, pw in zip(depthwise, pointwise, strict=True):
        d = F.conv2d(F.relu(x), dw[:, None], None, stride, padding, dilation, groups=x.shape[1])
        outputs.append(F.conv2d(d, pw[:, :, None, None]))
    return torch.cat(outputs, dim=1)


def norm_relu_separable_reference(
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
    """For each target on its own channels: batch norm, ReLU, depthwise, pointwise. z [B, T*C, H, W] -> [B, T*O, H, W].

    `running` (mean, variance), each [T*C], are moved in training mode.
    """
    mean, var = running or (None, None)
    h = F.relu(F.batch_norm(z, mean, var, weight, bias, training, momentum, eps))
    outputs = []
    for part, dw, pw in zip(h.chunk(len(depthwise), dim=1), depthwise, pointwise, strict=True):
        d = F.conv2d(part, dw[:, None], None, 1, padding, dilation, groups=part.shape[1])
        outputs.append(F.conv2d(d, pw[:, :, None, None]))
    return torch.cat(outputs, dim=1)
