"""ShuffleNets: V1, V2, V2+, and the choice blocks of SPOS and DetNAS.

Sources: arXiv 1707.01083, 1807.11164, 1904.00420, 1903.10979; blocks.py and network.py in the folders of
megvii-model/ShuffleNet-Series (aa91feb) and SinglePathOneShot. Their classifiers have no bias, except DetNAS's, whose stem and
last convolution have biases too.

The slimmable ShuffleNets are taken as V1. Their own code (s_shufflenet.py of JiahuiYu/slimmable_networks, 5dc14d0) has a bias
in the classifier, no padding in the stem's pool, and puts the pooled input last; the published figures are V1's.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tests.backbones.references.plain import bn, classify, conv, conv_bn, depthwise, linear, max_pool


def shuffle(x: Tensor, groups: int) -> Tensor:
    """Channel i of group g goes to channel i * groups + g (V1, section 3.1)."""
    b, c, h, w = x.shape
    return x.reshape(b, groups, c // groups, h, w).transpose(1, 2).reshape(b, c, h, w)


def shufflenet_v1(spec, x: Tensor, row) -> Tensor:
    """Units of Figure 2: at stride 2 the pooled input and the rectified branch side by side, else their sum rectified."""
    groups = spec["groups"]
    stem, *outs = spec["channels"]
    x = conv_bn(x, stem, 3, 2, "relu")
    x = max_pool(x, 3, 2)
    for stage, (c, repeat) in enumerate(zip(outs, spec["repeats"], strict=True)):
        for i in range(repeat):
            out = c - x.shape[1] if i == 0 else c
            # no groups in the very first, whose input has few channels
            y = conv_bn(x, c // 4, act="relu", groups=1 if stage == i == 0 else groups)
            y = bn(depthwise(shuffle(y, groups), 3, 2 if i == 0 else 1))
            y = conv_bn(y, out, groups=groups)
            x = torch.cat([F.avg_pool2d(x, 3, 2, 1), F.relu(y)], 1) if i == 0 else F.relu(x + y)
    return classify(x, bias=False)


def projection(x: Tensor, k: int, act: str) -> Tensor:
    """The other branch at stride 2."""
    return conv_bn(bn(depthwise(x, k, 2)), x.shape[1], act=act)


def branch(x: Tensor, out: int, mid: int, k: int, s: int, act: str) -> Tensor:
    y = conv_bn(x, mid, act=act)
    return conv_bn(bn(depthwise(y, k, s)), out, act=act)


def xception(x: Tensor, out: int, mid: int, s: int, act: str) -> Tensor:
    """Three depthwise 3x3 convolutions, the stride in the first, each before a pointwise one."""
    for c, stride in ((mid, s), (mid, 1), (out, 1)):
        x = conv_bn(bn(depthwise(x, 3, stride)), c, act=act)
    return x


def unit(x: Tensor, out: int, down: bool, op: int, act: str = "relu", after=None) -> Tensor:
    """Ops 0 to 2: kernels 3, 5, 7; 3: xception. The halves that pass and that are convolved are the even and odd channels."""
    k, mid, s = (3, 5, 7, 3)[op], out // 2, 2 if down else 1
    passing, x = (projection(x, k, act), x) if down else (x[:, 0::2], x[:, 1::2])
    rest = out - passing.shape[1]
    y = xception(x, rest, mid, s, act) if op == 3 else branch(x, rest, mid, k, s, act)
    return torch.cat([passing, after(y) if after else y], 1)


def shufflenet_v2(spec, x: Tensor, row) -> Tensor:
    *outs, last = spec["channels"]
    x = max_pool(conv_bn(x, spec["stem"], 3, 2, "relu"), 3, 2)
    for c, repeat in zip(outs, spec["repeats"], strict=True):
        for i in range(repeat):
            x = unit(x, c, i == 0, 0)
    return classify(conv_bn(x, last, act="relu"), bias=False)


def shufflenet_oneshot(spec, x: Tensor, row) -> Tensor:
    """No pool after the stem; the search's choice in every block."""
    stem, *outs, last = spec["channels"]
    ops = iter(spec["arch"])
    if row["name"].startswith("ShuffleNetV2+"):
        return shufflenet_v2_plus(stem, outs, spec["repeats"], last, ops, x)
    biases = row["family"] == "DetNAS"
    x = conv_bn(x, stem, 3, 2, "relu", bias=biases)
    for c, repeat in zip(outs, spec["repeats"], strict=True):
        for i in range(repeat):
            x = unit(x, c, i == 0, next(ops))
    return classify(conv_bn(x, last, act="relu", bias=biases), bias=biases)


def squeeze(x: Tensor) -> Tensor:
    """ShuffleNetV2+'s squeeze-excitation: a norm between, no biases, a hard sigmoid."""
    c = x.shape[1]
    return x * F.hardsigmoid(conv(conv_bn(x.mean((2, 3), keepdim=True), c // 4, act="relu"), c))


def shufflenet_v2_plus(stem, outs, repeats, last, ops, x: Tensor) -> Tensor:
    """ShuffleNetV2+/network.py: ReLU in the first stage, else h-swish; squeeze-excitation on the branches from the third stage
    on, and on the pooled map; a linear layer more."""
    x = conv_bn(x, stem, 3, 2, "h_swish")
    for stage, (c, repeat) in enumerate(zip(outs, repeats, strict=True)):
        for i in range(repeat):
            x = unit(x, c, i == 0, next(ops), "h_swish" if stage >= 1 else "relu", squeeze if stage >= 2 else None)
    # officially the pooled map is squeezed; a gate and a mean commute
    x = squeeze(conv_bn(x, last, act="h_swish")).mean((2, 3))
    return linear(F.hardswish(linear(x, last, bias=False)), 1000, bias=False)
