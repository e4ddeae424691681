"""The words that the reference networks are written in: functional layers that make their weights, on meta, as they go.

x is a tensor [B, C, H, W] throughout; every function returns such a tensor.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

ACTIVATIONS = {
    "relu": F.relu,
    "relu6": F.relu6,
    "h_swish": F.hardswish,
    "swish": F.silu,
    "none": lambda x: x,
}


def weight(*shape: int) -> Tensor:
    return torch.empty(shape, device="meta")


def conv(x: Tensor, out: int, k=1, s=1, groups: int = 1, dilation: int = 1, bias: bool = False, padding=None) -> Tensor:
    """Convolution that keeps H / s. `k` and `s` may be pairs."""
    k = (k, k) if isinstance(k, int) else k
    padding = tuple(dilation * (n - 1) // 2 for n in k) if padding is None else padding
    w = weight(out, x.shape[1] // groups, *k)
    return F.conv2d(x, w, weight(out) if bias else None, s, padding, dilation, groups)


def bn(x: Tensor) -> Tensor:
    c = x.shape[1]
    return F.batch_norm(x, weight(c), weight(c), weight(c), weight(c))


def conv_bn(x: Tensor, out: int, k=1, s=1, act: str = "none", **settings) -> Tensor:
    return ACTIVATIONS[act](bn(conv(x, out, k, s, **settings)))


def depthwise(x: Tensor, k: int, s: int = 1, dilation: int = 1) -> Tensor:
    return conv(x, x.shape[1], k, s, groups=x.shape[1], dilation=dilation)


def squeeze_excite(x: Tensor, inner: int, act: str, gate=torch.sigmoid, bias: bool = True) -> Tensor:
    """Mean, 1x1 convolution, activation, 1x1 convolution, gate; the map times that."""
    c = x.shape[1]
    y = ACTIVATIONS[act](conv(x.mean((2, 3), keepdim=True), inner, bias=bias))
    return x * gate(conv(y, c, bias=bias))


def linear(x: Tensor, out: int, bias: bool = True) -> Tensor:
    """[B, C] -> [B, out]."""
    return F.linear(x, weight(out, x.shape[1]), weight(out) if bias else None)


def classify(x: Tensor, classes: int = 1000, bias: bool = True) -> Tensor:
    """Global average pool and a linear layer."""
    return linear(x.mean((2, 3)), classes, bias)


def divisible(n: float, by: int = 8) -> int:
    """MobileNet's rounding: to the nearest multiple, but not below 90 %."""
    m = max(by, int(n + by / 2) // by * by)
    return m + by if m < 0.9 * n else m


def max_pool(x: Tensor, k: int = 3, s: int = 1) -> Tensor:
    return F.max_pool2d(x, k, s, k // 2)


def avg_pool(x: Tensor, k: int = 3, s: int = 1) -> Tensor:
    """Padding isn't counted."""
    return F.avg_pool2d(x, k, s, k // 2, count_include_pad=False)


def halves(x: Tensor, out: int) -> Tensor:
    """Factorised reduction: two 1x1 convolutions of stride 2, the second on the map shifted by a pixel, side by side; norm."""
    # the official TF code pads, so that an odd map can be shifted; an even one doesn't see the padding
    shifted = F.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
    # the second has the odd channel, where there is one
    return bn(torch.cat([conv(x, out // 2, 1, 2), conv(shifted, out - out // 2, 1, 2)], dim=1))
