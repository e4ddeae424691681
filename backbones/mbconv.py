"""Tables of inverted residuals: MobileNetV2, MnasNet (arXiv 1807.11626), Single-Path NAS (1904.02877), EfficientNet
(1905.11946), EfficientNetV2 (2104.00298).

All are printed as rows of [repeat, kernel, stride, expansion, channels in, channels out, squeeze-excitation ratio], and scaled
by a width and a depth multiplier.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from backbones.blocks import round_channels
from backbones.spec import classifier, schema

# (width, depth, resolution, dropout) of EfficientNet-B0 to B7; paper, section 4 and official code
EFFICIENTNET = {
    "B0": (1.0, 1.0, 224, 0.2),
    "B1": (1.0, 1.1, 240, 0.2),
    "B2": (1.1, 1.2, 260, 0.3),
    "B3": (1.2, 1.4, 300, 0.3),
    "B4": (1.4, 1.8, 380, 0.4),
    "B5": (1.6, 2.2, 456, 0.4),
    "B6": (1.8, 2.6, 528, 0.5),
    "B7": (2.0, 3.1, 600, 0.5),
}
# EfficientNetV2-B1 to B3 are V2-B0 scaled by EfficientNet's multipliers; rows say so in words
_SCALED_V2 = re.compile(r"V2-B0 blocks with width/depth scaling of EfficientNet-(B[0-7])")
V2_B0 = dict(
    stem=32,
    blocks=[
        [1, 3, 1, 1, 32, 16, 0.0],
        [2, 3, 2, 4, 16, 32, 0.0],
        [2, 3, 2, 4, 32, 48, 0.0],
        [3, 3, 2, 4, 48, 96, 0.25],
        [5, 3, 1, 6, 96, 112, 0.25],
        [8, 3, 2, 6, 112, 192, 0.25],
    ],
    head=1280,
    fused_stages=[0, 1, 2],
)


@schema("mbconv")
def mbconv(spec: Mapping) -> dict:
    """`blocks` as [repeat, kernel, stride, expand, in, out, squeeze ratio of the block's input], with multipliers.

    `width_mult` scales channels, in `scaling` networks (EfficientNet) the last convolution too and `depth_mult` the repeats;
    `stem_scaled`, `head_scaled` say so otherwise. `fused_stages` have fused blocks. `drop`: dropout before the classifier.
    `activation`: where a row doesn't say, "silu" in scaled and fused networks, "relu" in others with squeeze-excitation, else
    "relu6".
    """
    if match := _SCALED_V2.fullmatch(spec.get("ref", "")):
        width, depth, *_ = EFFICIENTNET[match[1]]
        spec = {**spec, **V2_B0, "width_mult": width, "depth_mult": depth, "scaling": "EfficientNet"}
    width, depth = spec.get("width_mult", 1.0), spec.get("depth_mult", 1.0)
    efficient = "scaling" in spec or "fused_stages" in spec
    squeezed = any(row[6] for row in spec["blocks"])
    activation = spec.get("activation", "silu" if efficient else "relu" if squeezed else "relu6")

    # EfficientNetV2's code rounds to the nearest multiple, however far below
    least = 0.0 if "fused_stages" in spec else 0.9

    def scaled(channels: float, by: bool = True) -> int:
        return round_channels(channels * width, least=least) if by else channels

    channels = stem = scaled(spec["stem"], spec.get("stem_scaled", True))
    stages = []
    for index, (repeat, kernel, stride, expand, _, out, ratio) in enumerate(spec["blocks"]):
        # a squeeze counts from the block's own input, so the first block of a stage differs from the rest
        def ops(c_in: int, index=index, kernel=kernel, expand=expand, ratio=ratio) -> dict:
            if index in spec.get("fused_stages", ()):
                return dict(type="fused", kernel=kernel, expand=expand)
            return dict(type="mbconv", kernel=kernel, expand=expand, squeeze=max(1, int(c_in * ratio)) if ratio else 0)

        out = scaled(out)
        depth_of_stage = math.ceil(repeat * depth)
        stages.append(dict(channels=out, stride=stride, depth=depth_of_stage, ops=ops(out), first=ops(channels)))
        channels = out
    if spec["head"] == "1280 * max(1, width)":
        last = round_channels(1280 * max(1.0, width))
    else:
        last = scaled(spec["head"], spec.get("head_scaled", "scaling" in spec))
    backbone = dict(
        type="search.ChainNet",
        stem=dict(channels=stem),
        stages=stages,
        last=dict(channels=last),
        activation=activation,
        drop_path=0.2 if efficient else 0.0,
    )
    return classifier(backbone, spec, dropout=spec.get("drop") or 0.0)


def efficientnet(name: str) -> dict:
    """The specification of EfficientNet `name`, "B0" to "B7". ValueError for another name."""
    if name not in EFFICIENTNET:
        raise ValueError(f"EfficientNet-{name} is none of {', '.join(EFFICIENTNET)}")
    width, depth, _, dropout = EFFICIENTNET[name]
    return dict(
        schema="mbconv",
        stem=32,
        blocks=[
            [1, 3, 1, 1, 32, 16, 0.25],
            [2, 3, 2, 6, 16, 24, 0.25],
            [2, 5, 2, 6, 24, 40, 0.25],
            [3, 3, 2, 6, 40, 80, 0.25],
            [3, 5, 1, 6, 80, 112, 0.25],
            [4, 5, 2, 6, 112, 192, 0.25],
            [1, 3, 1, 6, 192, 320, 0.25],
        ],
        head=1280,
        width_mult=width,
        depth_mult=depth,
        scaling="EfficientNet",
        drop=dropout,
    )
