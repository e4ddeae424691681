"""Chains found by searches: FBNet, ProxylessNAS and once-for-all, FairNAS, AtomNAS, AutoNL, DenseNAS, FNA, SqueezeNAS.

Sources beside each function: the paper and the file of the official code.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tests.backbones.references.mobile import mbconv_block
from tests.backbones.references.plain import (
    ACTIVATIONS,
    bn,
    classify,
    conv_bn,
    depthwise,
    divisible,
    linear,
    squeeze_excite,
)
from tests.backbones.references.shuffle import shuffle


def fbnet(spec, x: Tensor, row) -> Tensor:
    """arXiv 1812.03443; mobile_cv/arch/fbnet_v2/irf_block.py of mobile-vision: ReLU; an expansion of 1 has no expansion
    convolution, but its groups are shuffled all the same. (Its convolutions' biases, which norms undo, are left out.)"""
    x = conv_bn(x, spec["stem"], 3, 2, "relu")
    for block in filter(None, spec["blocks"]):
        expand, out, k, s, groups = block
        c, y = x.shape[1], x
        if expand != 1:
            y = conv_bn(y, divisible(c * expand), act="relu", groups=groups)
        if groups > 1:
            y = shuffle(y, groups)
        y = conv_bn(F.relu(bn(depthwise(y, k, s))), out, groups=groups)
        x = x + y if s == 1 and c == out else y
    return classify(conv_bn(x, spec["last_conv"], act="relu"))


def hanlab(spec, x: Tensor, row) -> Tensor:
    """arXiv 1812.00332, 1908.09791; proxyless_nas/nas_modules.py, ofa/imagenet_classification/networks/mobilenet_v3.py.

    With a layer after the pool (MobileNetV3's shape) stem, expansion and that layer have h-swish, and that layer no norm;
    without, ReLU6 throughout.
    """
    act = "h_swish" if spec["head_after_pool"] else "relu6"
    x = conv_bn(x, spec["stem"], 3, 2, act)
    for block in filter(None, spec["blocks"]):
        k, s, expand, hidden, c, out, se, block_act, shortcut = block
        assert c == x.shape[1]
        y = conv_bn(x, hidden, act=block_act) if expand != 1 else x
        y = ACTIVATIONS[block_act](bn(depthwise(y, k, s)))
        if se:
            y = squeeze_excite(y, divisible(hidden // 4), "relu", F.hardsigmoid)
        y = conv_bn(y, out)
        x = x + y if shortcut else y
    if not spec["head_after_pool"]:
        return classify(conv_bn(x, spec["feature_mix"], act=act))
    x = conv_bn(x, spec["final_expand"], act=act).mean((2, 3))
    return linear(ACTIVATIONS[act](linear(x, spec["feature_mix"], bias=False)), 1000)


def fairnas(spec, x: Tensor, row) -> Tensor:
    """arXiv 1907.01845; models/FairNAS_A.py: ReLU6, a separable first block without activation at its end."""
    x = conv_bn(x, 32, 3, 2, "relu6")
    x = conv_bn(F.relu6(bn(depthwise(x, 3))), 16)
    for expand, out, k, s in spec["blocks"]:
        x = mbconv_block(x, out, k, s, expand, 0, "relu6", "relu6")
    return classify(conv_bn(x, spec["last"], act="relu6"))


def atomnas(spec, x: Tensor, row) -> Tensor:
    """arXiv 1912.09640; models/mobilenet_base.py (InvertedResidualChannelsFused): one expansion, whose channels are shared out
    to depthwise convolutions of several kernels; ReLU, in the + networks swish and squeeze-excitation."""
    act = spec.get("activation", "relu")
    x = conv_bn(x, spec["stem"], 3, 2, act)
    for out, repeat, s, kernels, hidden, expand in spec["blocks"]:
        assert repeat == 1
        c = x.shape[1]
        y = conv_bn(x, sum(hidden), act=act) if expand else x
        parts = y.split(hidden, dim=1)
        y = torch.cat([ACTIVATIONS[act](bn(depthwise(part, k, s))) for part, k in zip(parts, kernels, strict=True)], 1)
        if "se_ratio" in spec:
            y = squeeze_excite(y, round(c * spec["se_ratio"]), act)
        y = conv_bn(y, out)
        x = x + y if s == 1 and c == out else y
    return classify(conv_bn(x, spec["last"], act=act))


def non_local(x: Tensor, ratio: float, stride: int) -> Tensor:
    """AutoNL's light block: keys and queries are the first channels themselves, in whichever order of products is cheaper."""
    _, c, h, w = x.shape
    small = x[:, :, ::stride, ::stride]
    few = int(ratio * c)
    theta, phi, g = x[:, :few].flatten(2), small[:, :few].flatten(2), small.flatten(2)
    pixels, small_pixels = h * w, (h // stride) * (w // stride)
    if pixels * small_pixels * c * (1 + ratio) < pixels * c**2 * ratio + small_pixels * c**2 * ratio:
        y = g @ (phi.transpose(1, 2) @ theta)
    else:
        y = (g @ phi.transpose(1, 2)) @ theta
    return x + bn(depthwise((y / pixels).reshape(x.shape), 3))


def autonl(spec, x: Tensor, row) -> Tensor:
    """arXiv 2004.01961; model_def.py of LiYingwei/AutoNL: swish; the non-local block between projection and shortcut."""
    x = conv_bn(x, spec["stem"], 3, 2, "swish")
    for expand, out, repeat, s, (k,), ratio, nl_stride, se in spec["blocks"]:
        assert repeat == 1
        c = x.shape[1]
        y = conv_bn(x, c * expand, act="swish") if expand != 1 else x
        y = F.silu(bn(depthwise(y, k, s)))
        if se:
            y = squeeze_excite(y, round(c * se), "swish")
        y = conv_bn(y, out)
        if ratio:
            y = non_local(y, ratio, nl_stride)
        x = x + y if s == 1 and c == out else y
    return classify(conv_bn(x, spec["last"], act="swish"))


def densenas(spec, x: Tensor, row) -> Tensor:
    """arXiv 1906.09607; models/model_derived.py (MBV2_Net): ReLU6, a shortcut wherever the shape stays."""
    x = conv_bn(x, spec["stem"], 3, 2, "relu6")
    for (c, out), (k, expand), stacked, s in spec["blocks"]:
        assert c == x.shape[1]
        x = mbconv_block(x, out, k, s, expand, 0, "relu6", "relu6")
        for k, expand in stacked:
            x = mbconv_block(x, out, k, 1, expand, 0, "relu6", "relu6")
    return classify(conv_bn(x, spec["last"], act="relu6"))
