"""The depthwise bank in plain torch operations, one candidate after the other: what the kernels must equal."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def depthwise_bank_reference(
    x: Tensor,
    weights: Sequence[Tensor],
    dilations: Sequence[int],
    stride: int,
    pools: Sequence[str] = ("max", "avg"),
    relu: bool = True,
) -> tuple[list[Tensor], list[Tensor]]:
    """See `depthwise_bank`: x [B, C, H, W], M weights [T_m * C, 1, k_m, k_m] -> M tensors [B, T_m * C, H', W'], the pools.

    Half types are computed in float32 and rounded once. Differentiable any number of times.
    """
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    rectified = torch.relu(wide) if relu else wide
    convs = []
    for weight, dilation in zip(weights, dilations, strict=True):
        padding = dilation * (weight.shape[-1] // 2)
        # one target after the other: target t has the rows t * C to (t + 1) * C
        targets = weight.to(wide.dtype).split(x.shape[1])
        y = [F.conv2d(rectified, target, None, stride, padding, dilation, groups=x.shape[1]) for target in targets]
        convs.append(torch.cat(y, dim=1).to(x.dtype))
    pool = {
        "max": lambda: F.max_pool2d(wide, 3, stride, padding=1),
        "avg": lambda: F.avg_pool2d(wide, 3, stride, padding=1, count_include_pad=False),
    }
    return convs, [pool[name]().to(x.dtype) for name in pools]
