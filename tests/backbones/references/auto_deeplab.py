"""Auto-DeepLab (arXiv 1901.02985) as its official code builds it: tensorflow/models, research/deeplab/core/nas_network.py
and nas_cell.py for the backbone, model.py for pyramid and decoder. The logits before their last resize."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tests.backbones.references.plain import avg_pool, bn, conv, conv_bn, depthwise, max_pool


def _resize(x: Tensor, size) -> Tensor:
    """Bilinear, corners aligned."""
    return x if tuple(x.shape[2:]) == tuple(size) else F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=True)


def _operation(x: Tensor, name: str, filters: int, stride: int) -> Tensor:
    if name.startswith("sep"):
        for s in (stride, 1):
            x = bn(conv(depthwise(F.relu(x), int(name[-1]), s), filters))
        return x
    if name.startswith("atr"):
        x = F.relu(x)
        if stride == 2:
            x = _resize(x, [(n - 1) // 2 + 1 for n in x.shape[2:]])
        return conv_bn(x, filters, int(name[-1]), dilation=1 if stride == 2 else 2)
    if name in ("avg", "max"):
        return {"avg": avg_pool, "max": max_pool}[name](x, 3, stride)
    return x if stride == 1 else conv_bn(F.relu(x), filters, 1, stride)


def _cell(spec, net: Tensor, prev: Tensor, filters: int, stride: int) -> Tensor:
    """nas_cell.py: hidden states are [net, prev], then the blocks; the two before the blocks aren't concatenated."""
    prev = _resize(prev, net.shape[2:])
    if prev.shape[1] != filters:
        prev = conv_bn(F.relu(prev), filters)
    states = [conv_bn(F.relu(net), filters), prev]
    picks = list(zip(spec["operations"], spec["hiddenstate_indices"], strict=True))
    for (op1, i1), (op2, i2) in zip(picks[::2], picks[1::2], strict=True):
        left = _operation(states[i1], op1, filters, stride if i1 < 2 else 1)
        states.append(left + _operation(states[i2], op2, filters, stride if i2 < 2 else 1))
    return torch.cat([h for h, used in zip(states, spec["used_hiddenstates"], strict=True) if not used], 1)


def auto_deeplab(spec, x: Tensor, row) -> Tensor:
    """nas_network.py, `_build_nas_base`. Images of 32n + 1 rows: of others the official code loses a row in upsampling."""
    net = conv_bn(x, 64, 3, 2, "relu")
    net = conv_bn(net, 64, 3)
    outputs = [net]
    net = conv_bn(F.relu(net), 128, 3, 2)
    outputs.append(net)
    path = spec["network_level_path"]
    for number, level in enumerate(path):
        before = path[number - 1] if number else 0
        if level < before:
            net = _resize(net, [(n - 1) * 2 + 1 for n in net.shape[2:]])
        net = _cell(spec, net, outputs[-2], spec["F"] * 2**level, 2 if level > before else 1)
        outputs.append(net)
    return _decoder(F.relu(net), outputs[2 + 2], spec["num_classes"])


def _decoder(x: Tensor, low: Tensor, classes: int) -> Tensor:
    pooled = _resize(conv_bn(x.mean((2, 3), keepdim=True), 256, act="relu"), x.shape[2:])
    branches = [pooled, conv_bn(x, 256, act="relu")]
    branches += [conv_bn(x, 256, 3, act="relu", dilation=rate) for rate in (12, 24, 36)]
    y = _resize(conv_bn(torch.cat(branches, 1), 256, act="relu"), low.shape[2:])
    y = torch.cat([y, conv_bn(low, 48, act="relu")], 1)
    for _ in range(2):
        y = conv_bn(y, 256, 3, act="relu")
    return conv(y, classes, bias=True)
