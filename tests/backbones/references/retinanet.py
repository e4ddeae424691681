"""RetinaNet's pyramids and that of NAS-FCOS. arXiv 1904.07392; fpn.py, nasfpn.py and resnet.py of tensorflow/tpu (7dc921f),
modeling/architecture; mmdet's models/necks/nas_fpn.py. arXiv 1906.04423; maskrcnn_benchmark/nas/modeling/micro_decoders.py and
configs/search of Lausannen/NAS-FCOS (d586b28); mmdet's models/necks/nasfcos_fpn.py.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import deform_conv2d

from tests.backbones.references.mobile import mbconv_block
from tests.backbones.references.plain import bn, conv, conv_bn, max_pool, weight


def _resnet(depths: list[int], x: Tensor, early: bool = False) -> list[Tensor]:
    """C3, C4, C5; `early`: strides on the first 1x1."""
    x = max_pool(conv_bn(x, 64, 7, 2, "relu"), 3, 2)
    maps = []
    for stage, (depth, c) in enumerate(zip(depths, (64, 128, 256, 512), strict=True)):
        for i in range(depth):
            s = 2 if i == 0 and stage > 0 else 1
            first, second = (s, 1) if early else (1, s)
            y = conv_bn(conv_bn(conv_bn(x, c, 1, first, "relu"), c, 3, second, "relu"), 4 * c)
            x = F.relu(y + (conv_bn(x, 4 * c, 1, s) if i == 0 else x))
        maps.append(x)
    return maps[1:]


def retinanet_fpn(spec, x: Tensor, row) -> list[Tensor]:
    """P3 to P7: 1x1 convolutions, top-down sums, 3x3; P6 from P5, P7 from P6 after a ReLU; norms at the end."""
    p3, p4, p5 = (conv(y, 256, bias=True) for y in _resnet(spec["resnet_depths"], x))
    p4 = p4 + F.interpolate(p5, scale_factor=2)
    p3 = p3 + F.interpolate(p4, scale_factor=2)
    p3, p4, p5 = (conv(y, 256, 3, bias=True) for y in (p3, p4, p5))
    p6 = conv(p5, 256, 3, 2, bias=True)
    p7 = conv(F.relu(p6), 256, 3, 2, bias=True)
    return [bn(y) for y in (p3, p4, p5, p6, p7)]


def _to(x: Tensor, width: int) -> Tensor:
    if x.shape[3] > width:
        return F.max_pool2d(x, x.shape[3] // width)
    return x if x.shape[3] == width else F.interpolate(x, scale_factor=width // x.shape[3])


def nas_fpn(spec, x: Tensor, row) -> list[Tensor]:
    c = spec["channels"]
    levels = _resnet([3, 4, 6, 3], x)
    if "framework" in spec:
        levels = [conv_bn(y, c) for y in levels]
        for _ in range(2):
            levels.append(F.max_pool2d(conv_bn(levels[-1], c), 2))
        widths = [y.shape[3] for y in levels]
        for _ in range(spec["repeats"]):
            levels = _mmdets_stage(*levels, c, widths)
        return levels
    levels = [bn(conv(y, c, bias=True)) for y in levels]
    for _ in range(2):
        levels.append(F.max_pool2d(levels[-1], 2))
    for _ in range(spec["repeats"]):
        features, at, uses = list(levels), [3, 4, 5, 6, 7], [0] * 5
        for level, function, (a, b), is_output in spec["merging_cells"]:
            uses[a] += 1
            uses[b] += 1
            width = levels[level - 3].shape[3]
            one, two = _to(features[a], width), _to(features[b], width)
            if function == "sum":
                y = one + two
            else:
                high, low = (one, two) if at[a] >= at[b] else (two, one)
                y = high + low * high.amax((2, 3), keepdim=True).sigmoid()
            for j in range(len(features)) if is_output else ():
                if uses[j] == 0 and at[j] == level:
                    y = y + features[j]
                    uses[j] += 1
            features.append(bn(conv(F.relu(y), c, 3, bias=True)))
            at.append(level)
            uses.append(0)
        levels = [features[at.index(level, len(features) - 5)] for level in (3, 4, 5, 6, 7)]
    return levels


def _mmdets_stage(p3, p4, p5, p6, p7, c: int, widths: list[int]) -> list[Tensor]:
    """Hard-coded there; of gp(x1, x2) the second attends."""
    w3, w4, w5, w6, w7 = widths

    def gp(one: Tensor, two: Tensor, width: int) -> Tensor:
        one, two = _to(one, width), _to(two, width)
        return two + two.mean((2, 3), keepdim=True).sigmoid() * one

    def out(y: Tensor) -> Tensor:
        return bn(conv(F.relu(y), c, 3, bias=True))

    first = out(gp(p6, p4, w4))
    second = out(first + p4)
    p3 = out(_to(second, w3) + p3)
    p4 = out(_to(p3, w4) + second)
    p5 = out(p5 + gp(p4, p3, w5))
    p7 = out(p7 + gp(p5, second, w7))
    p6 = out(gp(p7, p5, w6))
    return [p3, p4, p5, p6, p7]


# R_50_NAS_densebox.yaml: [input, input, operation, operation, aggregation], inputs 0 to 3 are C2 to C5; operations 3 skip, 4
# deformable
GENOTYPE = [[3, 3, 4, 4], [3, 3, 4, 4], [4, 3, 4, 3], [1, 3, 4, 3], [5, 3, 4, 4], [4, 7, 4, 4], [7, 2, 4, 4]]
MOBILE = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]


def _mobile(x: Tensor) -> list[Tensor]:
    """C3, C4, C5 of MobileNetV2: behind its 6th, 13th and 17th block."""
    x = conv_bn(x, 32, 3, 2, "relu6")
    maps = []
    for expand, c, depth, stride in MOBILE:
        for i in range(depth):
            x = mbconv_block(x, c, 3, stride if i == 0 else 1, expand, 0, "relu6", "relu6")
            maps.append(x)
    return [maps[5], maps[12], maps[16]]


def _deformable(x: Tensor) -> Tensor:
    """Two groups of offsets: 36 numbers and 18 weights for each position."""
    c = x.shape[1]
    y = conv(x, 54, 3, bias=True)
    y = deform_conv2d(x, y[:, :36], weight(c, c, 3, 3), weight(c), padding=1, mask=y[:, 36:].sigmoid())
    return F.relu(bn(y))


def nas_fcos(spec, x: Tensor, row) -> list[Tensor]:
    """P3 to P7. Blocks of the authors resize bilinearly, mmdet's repeat pixels."""
    mode = "nearest" if "mmdet" in row["name"] else "bilinear"
    name = row["name"]
    maps = _mobile(x) if "MobileNet" in name else _resnet([3, 4, 23 if "R101" in name else 6, 3], x, early=True)
    sizes = [y.shape[2:] for y in maps]
    # C2 isn't read
    pool = [None, *(conv_bn(y, 256, act="relu") for y in maps)]
    for a, b, *operations in GENOTYPE:
        one, two = (_deformable(pool[i]) if op == 4 else pool[i] for i, op in zip((a, b), operations, strict=True))
        size = max(one.shape[2:], two.shape[2:])
        one, two = (y if y.shape[2:] == size else F.interpolate(y, size, mode=mode) for y in (one, two))
        pool.append(conv(F.relu(bn(torch.cat([one, two], 1))), 256, groups=256))
    # not read by others are 6, 8, 9 and 10
    levels = []
    for number, size in zip((10, 9, 8), sizes, strict=True):
        y = pool[number] + F.interpolate(pool[6], pool[number].shape[2:], mode="bilinear")
        levels.append(F.interpolate(y, size, mode="bilinear"))
    levels.append(conv(levels[-1], 256, 3, 2, bias=True))
    return [*levels, conv(F.relu(levels[-1]), 256, 3, 2, bias=True)]
