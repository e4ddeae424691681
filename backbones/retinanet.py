"""The official RetinaNets (tensorflow/tpu@7dc921f8, models/official/detection): ResNet, a feature pyramid or NAS-FPN, one head.

Of modeling/architecture: fpn.py, nasfpn.py, heads.py. All convolutions of pyramids and heads have a bias, before norms too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from backbones.heads import STRIDES, retinanet, separate_norms
from backbones.nas_fpn import found_architecture
from backbones.resnet import EXPANSION, REPEATS, WIDTHS, resnet
from backbones.spec import schema
from backbones.spinenet import NORM
from search.registry import MODELS

CHANNELS = 256
CLASSES = 91
# COCO's, which the official code numbers with gaps
MMDET_CLASSES = 80
TOWER = 4
# of ResNet, strides 8 to 32
OUT_INDICES = (1, 2, 3)
IN_CHANNELS = [EXPANSION * width for width in WIDTHS[1:]]


@MODELS.register_module()
class NormedFPN(BaseModule):
    """The official feature pyramid: five levels of three maps, the two coarsest made by convolutions of stride 2; then norms.

    What sets it apart from mmdet's FPN with norms: P6 and P7 are made of maps that aren't normalised yet.
    """

    def __init__(
        self, in_channels: Sequence[int], channels: int = CHANNELS, norm: Mapping | None = None, init_cfg: dict | None = None
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.out_channels = (channels,) * len(STRIDES)
        extra = len(STRIDES) - len(in_channels)
        self.laterals = nn.ModuleList(nn.Conv2d(c_in, channels, 1) for c_in in in_channels)
        self.smooth = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in in_channels)
        self.extras = nn.ModuleList(nn.Conv2d(channels, channels, 3, stride=2, padding=1) for _ in range(extra))
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels, **(norm or {})) for _ in STRIDES)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Maps [B, in_channels, H, W], each half as large as the one before -> five [B, channels, H, W]."""
        levels = [lateral(x) for lateral, x in zip(self.laterals, maps, strict=True)]
        for i in reversed(range(len(levels) - 1)):
            levels[i] = levels[i] + F.interpolate(levels[i + 1], levels[i].shape[2:], mode="nearest")
        levels = [smooth(x) for smooth, x in zip(self.smooth, levels, strict=True)]
        for i, extra in enumerate(self.extras):
            levels.append(extra(F.relu(levels[-1]) if i > 0 else levels[-1]))
        return tuple(norm(x) for norm, x in zip(self.norms, levels, strict=True))


@schema("retinanet_fpn")
def retinanet_fpn(spec: Mapping) -> dict:
    """`resnet_depths`; pyramid and head are the official ones, which the specification has in words."""
    neck = dict(type="search.NormedFPN", in_channels=IN_CHANNELS, norm=NORM)
    return _detector(resnet(spec["resnet_depths"]), neck, CHANNELS, spec)


@schema("nas_fpn")
def nas_fpn(spec: Mapping) -> dict:
    """`merging_cells`, each [level, operation, [input, input], is it an output]; `repeats`; `channels`, the head's too.

    `levels` must be 3 to 7 and the last five cells the outputs. A `framework` that begins with mmdet means mmdet's network.
    """
    cells = spec["merging_cells"]
    outputs = [cell[3] for cell in cells]
    if list(spec["levels"]) != [3, 4, 5, 6, 7] or outputs != [i >= len(cells) - 5 for i in range(len(cells))]:
        raise ValueError("the last five merging cells, and no others, must be the outputs, of levels 3 to 7")
    neck = dict(
        type="search.NASFPN",
        in_channels=IN_CHANNELS,
        channels=spec["channels"],
        repeats=spec["repeats"],
        cells=len(cells),
        arch=found_architecture([(level, op, *inputs) for level, op, inputs, _ in cells]),
    )
    if spec.get("framework", "").startswith("mmdet"):
        # norms as torch's; of ResNet's blocks mmdet's differ in nothing
        head = separate_norms(spec["channels"], TOWER, biased=False)
        backbone = dict(resnet(REPEATS), out_indices=OUT_INDICES)
        return retinanet(backbone, head, spec.get("num_classes", MMDET_CLASSES), dict(neck, variant="mmdet"))
    return _detector(resnet(REPEATS), dict(neck, norm=NORM), spec["channels"], spec)


def _detector(backbone: dict, neck: dict, channels: int, spec: Mapping) -> dict:
    backbone = dict(backbone, norm=NORM, out_indices=OUT_INDICES)
    return retinanet(backbone, separate_norms(channels, TOWER, NORM), spec.get("num_classes", CLASSES), neck)
