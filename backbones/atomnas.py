"""AtomNAS (arXiv 1912.09640): inverted residuals whose depthwise convolutions mix kernels, channel by channel."""

from __future__ import annotations

from collections.abc import Mapping

from backbones.spec import classifier, schema

ACTIVATIONS = {"swish": "silu", "relu": "relu"}


@schema("atomnas")
def atomnas(spec: Mapping) -> dict:
    """`blocks` as [out, repeat, stride, kernels, hidden channels for each kernel, whether there is an expansion].

    With `se_ratio` each block has a squeeze-excitation of that share of the block's input channels.
    """
    channels, stages = spec["stem"], []
    for out, repeat, stride, kernels, hidden, expansion in spec["blocks"]:
        for position in range(repeat):
            ops = dict(
                type="mbconv",
                kernel=kernels,
                hidden=hidden,
                expansion=expansion,
                squeeze=round(channels * spec.get("se_ratio", 0)),
            )
            stages.append(dict(channels=out, stride=stride if position == 0 else 1, ops=ops))
            channels = out
    backbone = dict(
        type="search.ChainNet",
        stem=dict(channels=spec["stem"]),
        stages=stages,
        last=dict(channels=spec["last"]),
        activation=ACTIVATIONS[spec.get("activation", "relu")],
    )
    return classifier(backbone, spec)
