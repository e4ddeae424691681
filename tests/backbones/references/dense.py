"""Networks found for detection and segmentation: FNA, DPC, SqueezeNAS. Of segmentors the logits before their last resize."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tests.backbones.references.plain import bn, conv, conv_bn, depthwise


def _fna_block(x: Tensor, out: int, k: int, s: int, expand: int, dilation: int = 1) -> Tensor:
    c = x.shape[1]
    y = conv_bn(x, c * expand, act="relu6") if expand != 1 else x
    y = conv_bn(F.relu6(bn(depthwise(y, k, s, dilation))), out)
    return x + y if s == 1 and c == out else y


def mbv2_ops(spec, x: Tensor, row) -> list[Tensor]:
    """arXiv 2001.02525; fna_det/models/derive_blocks.py: ReLU6. What the neck takes: stages 3, 5 and 7."""
    x = conv_bn(x, spec["stem"], 3, 2, "relu6")
    levels = []
    for out, blocks, stride in spec["stages"]:
        for i, (k, expand) in enumerate(blocks):
            x = _fna_block(x, out, k, stride if i == 0 else 1, expand)
        levels.append(x)
    return [levels[2], levels[4], levels[6]]


def _separable(x: Tensor, out: int, dilation: int) -> Tensor:
    return conv_bn(F.relu(bn(depthwise(x, 3, 1, dilation))), out, act="relu")


def deeplabv3_sep(spec, x: Tensor, row) -> Tensor:
    """arXiv 2001.02525; fna_seg: derive_blocks.py at output stride 16, where a stride beyond it becomes a dilation of that
    stage and of all later ones; head/ASPP_Sep.py (rates 6, 12, 18) and network.py."""
    x = conv_bn(x, 32, 3, 2, "relu6")
    reached, rate = 2, 1
    for out, blocks, stride in spec["backbone_stages"]:
        if reached == 16:
            rate *= stride
            stride, dilation = 1, rate
        else:
            reached, dilation = reached * stride, 1
        for i, (k, expand) in enumerate(blocks):
            x = _fna_block(x, out, k, stride if i == 0 else 1, expand, dilation)
    pooled = conv_bn(x.mean((2, 3), keepdim=True), 256, act="relu").expand(-1, -1, *x.shape[2:])
    parts = [conv_bn(x, 256, act="relu"), *(_separable(x, 256, rate) for rate in (6, 12, 18)), pooled]
    return conv(conv_bn(torch.cat(parts, 1), 256, act="relu"), 19, bias=True)


def dpc(spec, x: Tensor, row) -> Tensor:
    """arXiv 1809.04184; tensorflow/models, research/deeplab/core/dense_prediction_cell.py, on slim's MobileNetV2 at output
    stride 16 (nets/mobilenet/mobilenet.py): a stride beyond it is left out, and multiplies the rate of all later blocks."""
    x = conv_bn(x, 32, 3, 2, "relu6")
    reached, rate = 2, 1
    for expand, out, repeat, first in [
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ]:
        for i in range(repeat):
            stride = first if i == 0 else 1
            if reached == 16:
                x = _fna_block(x, out, 3, 1, expand, rate)
                rate *= stride
            else:
                x = _fna_block(x, out, 3, stride, expand)
                reached *= stride
    branches = []
    for branch in spec["cell"]:
        y = x if branch["input"] < 0 else branches[branch["input"]]
        rates = tuple(branch["rate"])
        y = F.relu(bn(conv(y, y.shape[1], 3, 1, groups=y.shape[1], dilation=rates, padding=rates)))
        branches.append(conv_bn(y, 256, act="relu"))
    return conv(conv_bn(torch.cat(branches, 1), 256, act="relu"), 19, bias=True)


def squeezenas(spec, x: Tensor, row) -> Tensor:
    """arXiv 1908.01748; arch/operations.py and arch/model.py: ReLU; an expansion of 1 has its convolution too; no shuffle.

    'residual_skipish' is the input itself, where the shape changes ReLU, 1x1 convolution and norm, at stride 2 in two halves.
    Decoders of arch/model_cityscapes.py, on the block `low_level_block` and the last map.
    """
    macro = spec["macro"]
    ops = iter(spec["genotype"])
    x = conv_bn(x, macro["stem"], 3, 2, "relu")
    maps = []
    for out, depth, stride in macro["stages"]:
        for i in range(depth):
            c, s, name = x.shape[1], stride if i == 0 else 1, next(ops)
            if name == "residual_skipish":
                y = F.relu(x)
                if s == 2:
                    x = torch.cat([conv_bn(y, out // 2, 1, 2), conv_bn(y[:, :, 1:, 1:], out // 2, 1, 2)], 1)
                elif c != out:
                    x = conv_bn(y, out)
            else:
                fields = {part[0]: int(part[1:]) for part in name.split("_")[2:]}
                k, groups, dilation = fields["k"], fields["g"], fields.get("d", 1)
                y = conv_bn(x, c * fields["e"], act="relu", groups=groups)
                y = conv_bn(F.relu(bn(depthwise(y, k, s, dilation))), out, groups=groups)
                x = x + y if s == 1 and c == out else y
            maps.append(x)
    if macro["last_conv"]:
        x = conv_bn(x, macro["last_conv"], act="relu")
    decode = _lite_decoder if macro["lraspp"] else _decoder
    return decode(x, maps[macro["low_level_block"]], macro["decoder_channels"], spec["num_classes"])


def _lite_decoder(x: Tensor, low: Tensor, c: int, classes: int) -> Tensor:
    """ASPP_Lite: MobileNetV3's, with the pool of the gate 49x49."""
    gate = torch.sigmoid(conv(F.avg_pool2d(x, 49, (16, 20)), c, bias=True))
    y = conv_bn(x, c, act="relu") * F.interpolate(gate, size=x.shape[2:], mode="bilinear")
    y = F.interpolate(y, scale_factor=2, mode="bilinear")
    return conv(y, classes, bias=True) + conv(low, classes, bias=True)


def _decoder(x: Tensor, low: Tensor, c: int, classes: int) -> Tensor:
    """ASPP with grouped 3x3 convolutions of rates 6, 12, 18, then the lower level."""
    rates = [conv_bn(x, c, 3, 1, "relu", groups=c, dilation=rate) for rate in (6, 12, 18)]
    pooled = x.mean((2, 3), keepdim=True).expand(-1, -1, *x.shape[2:])
    y = conv_bn(torch.cat([conv_bn(x, c, act="relu"), *rates, pooled], 1), c, act="relu")
    y = F.interpolate(y, scale_factor=4, mode="bilinear", align_corners=True)
    y = torch.cat([y, conv(low, low.shape[1], bias=True)], 1)
    return conv(F.relu(bn(depthwise(y, 3))), classes, bias=True)
