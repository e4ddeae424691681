"""FBNet (arXiv 1812.03443): inverted residuals with grouped 1x1 convolutions, found by differentiable search."""

from __future__ import annotations

from collections.abc import Mapping

from backbones.spec import classifier, schema


@schema("fbnet")
def fbnet(spec: Mapping) -> dict:
    """`blocks` as [expand, out, kernel, stride, groups of the 1x1 convolutions], null for a layer that was skipped."""
    stages = [
        dict(channels=out, stride=stride, ops=dict(type="mbconv", kernel=kernel, expand=expand, groups=groups))
        for expand, out, kernel, stride, groups in filter(None, spec["blocks"])
    ]
    backbone = dict(
        type="search.ChainNet",
        stem=dict(channels=spec["stem"]),
        stages=stages,
        last=dict(channels=spec["last_conv"]),
    )
    return classifier(backbone, spec)
