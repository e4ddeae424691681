"""FairNAS (arXiv 1907.01845): a chain of inverted residuals, each layer one of six; supernets trained fairly."""

from __future__ import annotations

from collections.abc import Mapping

from backbones.spec import classifier, schema

KERNELS = (3, 5, 7)
EXPANSIONS = (3, 6)
# the separable block between the stem and the first layer
FIRST = 16


@schema("fairnas")
def fairnas(spec: Mapping) -> dict:
    """`blocks` as [expand, out, kernel, stride]; the chain of its space, with the architecture that it is."""
    stages = [dict(channels=FIRST, ops=dict(type="separable", activation="relu6", final="identity"))]
    arch = {}
    for index, (expand, out, kernel, stride) in enumerate(spec["blocks"], 1):
        ops = {f"k{k}_e{e}": dict(type="mbconv", kernel=k, expand=e) for k in KERNELS for e in EXPANSIONS}
        stages.append(dict(channels=out, stride=stride, ops=ops))
        arch[f"s{index}/b0"] = f"k{kernel}_e{expand}"
    backbone = dict(
        type="search.ChainNet",
        stem=dict(channels=32),
        stages=stages,
        last=dict(channels=spec["last"]),
        activation="relu6",
        arch=arch,
    )
    return classifier(backbone, spec)
