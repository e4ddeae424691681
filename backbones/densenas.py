"""DenseNAS (arXiv 1906.09607): block widths and depths found in a densely connected space; the found chains."""

from __future__ import annotations

from collections.abc import Mapping

from backbones.spec import classifier, schema


@schema("densenas")
def densenas(spec: Mapping) -> dict:
    """`blocks` as [[in, out], [kernel, expand] of the first layer, those of the layers after it, stride].

    The first block is a separable one without activation at its end, as in MobileNetV2.
    """
    stages = []
    for (_, out), head, stacked, stride in spec["blocks"]:
        for position, (kernel, expand) in enumerate([head, *stacked]):
            ops = dict(type="mbconv", kernel=kernel, expand=expand)
            stages.append(dict(channels=out, stride=stride if position == 0 else 1, ops=ops))
    backbone = dict(
        type="search.ChainNet",
        stem=dict(channels=spec["stem"]),
        stages=stages,
        last=dict(channels=spec["last"]),
        activation="relu6",
    )
    return classifier(backbone, spec)
