"""Slimmable networks and AutoSlim: MobileNets, MnasNet and ResNet-50 of given widths.

Sources: arXiv 1812.08928, 1903.05134, 1903.11728; models/ of JiahuiYu/slimmable_networks at 5dc14d0, where all mobile networks
have ReLU6, an expansion convolution exists where its channels differ from the input's, and a shortcut where input and output
channels are equal and the stride is 1. Its ResNet-50 has the stride in the 3x3 convolution.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from tests.backbones.references.mobile import separable
from tests.backbones.references.plain import ACTIVATIONS, bn, classify, conv_bn, depthwise, max_pool


def autoslim_mobilenet_v1(spec, x: Tensor, row) -> Tensor:
    """The stem, then the output of each separable block, then the classes."""
    stem, *outs, classes = spec["channels"]
    x = conv_bn(x, stem, 3, 2, "relu6")
    for c, s in zip(outs, [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1], strict=True):
        x = separable(x, c, s)
    return classify(x, classes)


def inverted(x: Tensor, hidden: int, out: int, k: int, s: int, first: bool = False) -> Tensor:
    c = x.shape[1]
    y = conv_bn(x, hidden, act="relu6") if hidden != c else x
    y = conv_bn(ACTIVATIONS["relu6"](bn(depthwise(y, k, s))), out)
    # one model holds the networks of all sizes, with shortcuts where channels are equal in all: not so in the first block
    return x + y if s == 1 and c == out and not first else y


def _autoslim_inverted(channels, x: Tensor, kernels, strides) -> Tensor:
    """The stem, the first block's output, then expansion and output of each block, the last convolution, the classes."""
    stem, first, *pairs, last, classes = channels
    x = inverted(conv_bn(x, stem, 3, 2, "relu6"), stem, first, kernels[0], strides[0], first=True)
    for hidden, out, k, s in zip(pairs[::2], pairs[1::2], kernels[1:], strides[1:], strict=True):
        x = inverted(x, hidden, out, k, s)
    return classify(conv_bn(x, last, act="relu6"), classes)


def autoslim_mobilenet_v2(spec, x: Tensor, row) -> Tensor:
    strides = [1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1]
    return _autoslim_inverted(spec["channels"], x, [3] * 17, strides)


def autoslim_mnasnet(spec, x: Tensor, row) -> Tensor:
    """MnasNet-B1's kernels and strides."""
    kernels = [3, 3, 3, 3, 5, 5, 5, 5, 5, 5, 3, 3, 5, 5, 5, 5, 3]
    strides = [1, 2, 1, 1, 2, 1, 1, 2, 1, 1, 1, 1, 2, 1, 1, 1, 1]
    return _autoslim_inverted(spec["channels"], x, kernels, strides)


def bottleneck(x: Tensor, mid1: int, mid2: int, out: int, s: int) -> Tensor:
    c = x.shape[1]
    y = conv_bn(conv_bn(x, mid1, act="relu"), mid2, 3, s, "relu")
    shortcut = x if s == 1 and c == out else conv_bn(x, out, 1, s)
    return F.relu(conv_bn(y, out) + shortcut)


def resnet50(spec, x: Tensor, row) -> Tensor:
    width = spec["width_mult"]
    x = max_pool(conv_bn(x, int(64 * width), 7, 2, "relu"), 3, 2)
    for stage, depth in enumerate([3, 4, 6, 3]):
        for i in range(depth):
            out = int(64 * 2**stage * width * 4)
            x = bottleneck(x, out // 4, out // 4, out, 2 if i == 0 and stage > 0 else 1)
    return classify(x)


def autoslim_resnet(spec, x: Tensor, row) -> Tensor:
    """The stem; per stage the shortcut's output, then the three convolutions of each block; the classes."""
    channels = iter(spec["channels"])
    x = max_pool(conv_bn(x, next(channels), 7, 2, "relu"), 3, 2)
    for stage, depth in enumerate([3, 4, 6, 3]):
        shortcut = next(channels)
        for i in range(depth):
            mid1, mid2, out = next(channels), next(channels), next(channels)
            assert out == shortcut
            x = bottleneck(x, mid1, mid2, out, 2 if i == 0 and stage > 0 else 1)
    return classify(x, next(channels))
