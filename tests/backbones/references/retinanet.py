"""RetinaNet's pyramids. arXiv 1904.07392; fpn.py, nasfpn.py and resnet.py of tensorflow/tpu (7dc921f), modeling/architecture;
mmdet's models/necks/nas_fpn.py.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from tests.backbones.references.plain import bn, conv, conv_bn, max_pool


def _resnet(depths: list[int], x: Tensor) -> list[Tensor]:
    """C3, C4, C5."""
    x = max_pool(conv_bn(x, 64, 7, 2, "relu"), 3, 2)
    maps = []
    for stage, (depth, c) in enumerate(zip(depths, (64, 128, 256, 512), strict=True)):
        for i in range(depth):
            s = 2 if i == 0 and stage > 0 else 1
            y = conv_bn(conv_bn(conv_bn(x, c, act="relu"), c, 3, s, "relu"), 4 * c)
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
