"""AutoSlim's networks (arXiv 1903.11728): MobileNet V1 and V2 and MnasNet with a searched number of channels for each layer.

Rows are lists of channels in the order of the layers, ending in the number of classes. What they leave out (strides, kernels,
where a shortcut is) is from the authors' code, JiahuiYu/slimmable_networks at 5dc14d0: a block that begins a stage has no
shortcut, whatever its channels have become, and every activation is ReLU6. ResNet-50 is in backbones/resnet.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from backbones.mobilenet import V1_STRIDES, separable_chain
from backbones.spec import classifier, listed_channels, schema

# (blocks, stride of the first, kernel) of each stage
MOBILENET_V2 = ((1, 1, 3), (2, 2, 3), (3, 2, 3), (4, 2, 3), (3, 1, 3), (3, 2, 3), (1, 1, 3))
MNASNET = ((1, 1, 3), (3, 2, 3), (3, 2, 5), (3, 2, 5), (2, 1, 3), (4, 2, 5), (1, 1, 3))


@schema("autoslim_mobilenet_v1")
def autoslim_mobilenet_v1(spec: Mapping) -> dict:
    """`channels` of the stem, then of each separable block, then the classes."""
    *channels, classes = listed_channels(spec, len(V1_STRIDES) + 1)
    backbone = dict(separable_chain(channels, V1_STRIDES), activation="relu6")
    return classifier(backbone, {"num_classes": classes, **spec})


@schema("autoslim_mobilenet_v2")
def autoslim_mobilenet_v2(spec: Mapping) -> dict:
    """`channels` of the stem, of the first block, each other block's expansion and output, the last layer; then the classes."""
    return _inverted_residuals(spec, MOBILENET_V2)


@schema("autoslim_mnasnet")
def autoslim_mnasnet(spec: Mapping) -> dict:
    """As `autoslim_mobilenet_v2`; the network is MnasNet's variant without squeeze-excitation."""
    return _inverted_residuals(spec, MNASNET)


def _inverted_residuals(spec: Mapping, table: Sequence[tuple[int, int, int]]) -> dict:
    # stem, last layer, classes, and two for each block but the first, which has no expansion
    widths = iter(listed_channels(spec, 2 * sum(blocks for blocks, *_ in table) + 2))
    stem = channels = next(widths)
    stages: list[dict] = []
    for blocks, stride, kernel in table:
        for b in range(blocks):
            expansion = bool(stages)
            hidden = next(widths) if expansion else channels
            ops = dict(type="mbconv", kernel=kernel, hidden=hidden, expansion=expansion, shortcut=b > 0)
            channels = next(widths)
            stages.append(dict(channels=channels, stride=stride if b == 0 else 1, ops=ops))
    last, classes = widths
    backbone = dict(
        type="search.ChainNet", stem=dict(channels=stem), stages=stages, last=dict(channels=last), activation="relu6"
    )
    return classifier(backbone, {"num_classes": classes, **spec})
