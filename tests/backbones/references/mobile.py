"""MobileNets V1 to V3, MnasNet, EfficientNet V1 and V2, Single-Path NAS.

Sources: arXiv 1704.04861, 1801.04381, 1905.02244, 1807.11626, 1905.11946, 2104.00298, 1904.02877, and of the official code the
tables of mobilenet_v3.py (tensorflow/models), mnasnet_model.py and efficientnet_model.py (tensorflow/tpu).
"""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional as F

from tests.backbones.references.plain import ACTIVATIONS, bn, classify, conv_bn, depthwise, divisible, linear, squeeze_excite


def mobilenet_v1(spec, x: Tensor, row) -> Tensor:
    """Separable blocks: depthwise and pointwise, each with norm and ReLU6 (TF-slim's mobilenet_v1.py, slimmable networks)."""
    table = [32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024]
    strides = [2, 1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1]
    # TF-slim cuts off the fraction, the slimmable networks round to multiples of 8
    rounded = divisible if row["family"] == "Slimmable" else int
    for i, (c, s) in enumerate(zip(table, strides, strict=True)):
        c = rounded(c * spec["width_mult"])
        x = conv_bn(x, c, 3, s, "relu6") if i == 0 else separable(x, c, s)
    return classify(x)


def separable(x: Tensor, out: int, s: int, act: str = "relu6") -> Tensor:
    return conv_bn(ACTIVATIONS[act](bn(depthwise(x, 3, s))), out, act=act)


def mbconv_block(x: Tensor, out: int, k: int, s: int, expand: float, inner: int, act: str, se_act: str) -> Tensor:
    c, y = x.shape[1], x
    if expand != 1:
        y = conv_bn(y, int(c * expand), act=act)
    y = ACTIVATIONS[act](bn(depthwise(y, k, s)))
    if inner:
        y = squeeze_excite(y, inner, se_act)
    y = conv_bn(y, out)
    return x + y if s == 1 and c == out else y


def fused_block(x: Tensor, out: int, k: int, s: int, expand: int, act: str) -> Tensor:
    c = x.shape[1]
    y = conv_bn(x, out, k, s, act) if expand == 1 else conv_bn(conv_bn(x, c * expand, k, s, act), out)
    return x + y if s == 1 and c == out else y


# effnetv2_configs.py of google/automl, in the rows' format; (width, depth) of B1 to B3
V2_BASE = [
    [1, 3, 1, 1, 32, 16, 0],
    [2, 3, 2, 4, 16, 32, 0],
    [2, 3, 2, 4, 32, 48, 0],
    [3, 3, 2, 4, 48, 96, 0.25],
    [5, 3, 1, 6, 96, 112, 0.25],
    [8, 3, 2, 6, 112, 192, 0.25],
]
V2_SCALES = {"B1": (1.0, 1.1), "B2": (1.1, 1.2), "B3": (1.2, 1.4)}


def nearest(n: float) -> int:
    """EfficientNetV2 rounds to the nearest multiple of 8, however far below it is."""
    return int(n + 4) // 8 * 8


def mbconv(spec, x: Tensor, row) -> Tensor:
    """Stages of inverted residuals. Activations: swish in EfficientNets, ReLU in MnasNet and Single-Path NAS, else ReLU6."""
    act = {"EfficientNet": "swish", "EfficientNetV2": "swish", "MnasNet": "relu", "Single-Path NAS": "relu"}.get(
        row["family"], "relu6"
    )
    width, depth = spec.get("width_mult", 1), spec.get("depth_mult", 1)
    scaled = divisible if width != 1 else lambda n: int(n)
    if "ref" in spec:
        width, depth = V2_SCALES[row["name"][-2:]]
        spec = dict(stem=32, blocks=V2_BASE, head=1280, fused_stages=[0, 1, 2], head_scaled=True)
        scaled = nearest
    if isinstance(spec["head"], str):
        assert spec["head"] == "1280 * max(1, width)"
        head = divisible(1280 * max(1, width))
    else:
        head = scaled(spec["head"] * width) if "scaling" in spec or spec.get("head_scaled") else spec["head"]
    x = conv_bn(x, scaled(spec["stem"] * width), 3, 2, act)
    for i, (repeat, k, s, expand, _, out, ratio) in enumerate(spec["blocks"]):
        for b in range(math.ceil(repeat * depth)):
            c, stride = scaled(out * width), s if b == 0 else 1
            if i in spec.get("fused_stages", ()):
                x = fused_block(x, c, k, stride, expand, act)
            else:
                inner = max(1, int(x.shape[1] * ratio)) if ratio else 0
                x = mbconv_block(x, c, k, stride, expand, inner, act, act)
    return classify(conv_bn(x, head, act=act))


def mobilenet_v3(spec, x: Tensor, row) -> Tensor:
    """Blocks of ReLU up to where the paper's table changes to h-swish; minimalistic ones have ReLU only, no SE, 3x3."""
    large, plain, width = len(spec["blocks"]) == 15, spec.get("minimalistic", False), spec["width_mult"]
    after = "relu" if plain else "h_swish"
    # Tables 1 and 2: h-swish from the seventh block (Large), the fourth (Small)
    changes = 6 if large else 3
    x = conv_bn(x, divisible(spec["stem"] * width), 3, 2, after)
    for i, (expand, out, k, s, se) in enumerate(spec["blocks"]):
        c, act = x.shape[1], after if i >= changes else "relu"
        hidden, out = divisible(c * expand), divisible(out * width)
        y = x if expand == 1 else conv_bn(x, hidden, act=act)
        y = ACTIVATIONS[act](bn(depthwise(y, 3 if plain else k, s)))
        if se and not plain:
            y = squeeze_excite(y, divisible(hidden / 4), "relu", F.hardsigmoid)
        y = conv_bn(y, out)
        x = x + y if s == 1 and c == out else y
    x = conv_bn(x, divisible(spec["last_conv"] * width), act=after).mean((2, 3))
    # the layer after the pool is widened above 1, but not narrowed
    hidden = divisible(spec["head_after_pool"] * max(1, width))
    return linear(ACTIVATIONS[after](linear(x, hidden)), 1000)
