"""MobileNet V1 (arXiv 1704.04861), V2 (1801.04381) and V3 (1905.02244), and the rows of tables that print them.

V2 rows come in the schema that all tables of inverted residuals share (`mbconv`, in backbones/mbconv.py).
"""

from __future__ import annotations

from collections.abc import Mapping

from backbones.blocks import round_channels
from backbones.spec import classifier, schema

V1_CHANNELS = (32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
V1_STRIDES = (2, 1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
# a stage of stride 16 and everything after it has hard-swish (paper, tables 1 and 2)
HARD_SWISH_STRIDE = 16
V3_NORM = dict(eps=1e-3, momentum=0.01)


@schema("mobilenet_v1")
def mobilenet_v1(spec: Mapping) -> dict:
    """`channels` of the stem and of each separable block, `strides`, `width_mult`.

    Rows that state how they were rounded print channels that are scaled already; others print those of width 1.
    """
    width = 1.0 if "rounding" in spec else spec.get("width_mult", 1.0)
    channels = [int(c * width) for c in spec.get("channels", V1_CHANNELS)]
    # the official code (TF-slim) has ReLU6, the paper ReLU
    return classifier(dict(separable_chain(channels, spec.get("strides", V1_STRIDES)), activation="relu6"), spec)


def separable_chain(channels: list[int], strides: tuple[int, ...] | list[int]) -> dict:
    """A MobileNetV1-like chain of the stem's and the blocks' channels."""
    return dict(
        type="search.ChainNet",
        stem=dict(channels=channels[0], stride=strides[0]),
        stages=[dict(channels=c, stride=s, ops=dict(type="separable")) for c, s in zip(channels[1:], strides[1:], strict=True)],
    )


@schema("mobilenet_v3")
def mobilenet_v3(spec: Mapping) -> dict:
    """`blocks` as [expand, out, kernel, stride, squeeze-excitation], the last convolution, the layer after pooling.

    A `minimalistic` network has 3x3 kernels, ReLU and no squeeze-excitation.
    """
    plain, width = spec.get("minimalistic", False), spec["width_mult"]
    channels, stride = round_channels(spec["stem"] * width), 2
    late = "relu" if plain else "hardswish"
    stages, stem = [], channels
    for expand, out, kernel, block_stride, squeezed in spec["blocks"]:
        stride *= block_stride
        out, hidden = round_channels(out * width), round_channels(channels * expand)
        ops = dict(
            type="mbconv",
            kernel=3 if plain else kernel,
            hidden=hidden,
            squeeze=round_channels(hidden / 4) if squeezed and not plain else 0,
            gate="hardsigmoid",
            activation=late if stride >= HARD_SWISH_STRIDE else "relu",
            squeeze_activation="relu",
        )
        stages.append(dict(channels=out, stride=block_stride, ops=ops))
        channels = out
    backbone = dict(
        type="search.ChainNet",
        stem=dict(channels=stem, activation=late),
        stages=stages,
        last=dict(channels=round_channels(spec["last_conv"] * width), activation=late),
        norm=V3_NORM,
    )
    # the multiplier widens this layer only above one (official code: "smaller multipliers" keep it)
    after_pool = round_channels(spec["head_after_pool"] * max(1.0, width))
    return classifier(backbone, spec, hidden=dict(channels=after_pool, activation=late))
