"""Networks of NSGA-Net (arXiv 1810.03522): phases of dense nodes (macro space), pyramids of DARTS-like cells (micro space).

Wiring follows the authors' code, ianwhale/nsga-net at 0ee6225, models/macro_decoder.py ("dense" decoder) and micro_models.py.
What differs: the macro decoder's 1x1 convolutions of phases that keep their channels, which run nowhere there, aren't built.

Shapes: B batch, C channels, H and W height and width of the input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from backbones.darts import genotype_edges
from backbones.features import FeatureBackbone
from backbones.spec import classifier, schema
from search.registry import MODELS

Gene = Sequence[Sequence[int]]


def dependencies(gene: Gene) -> list[list[int]]:
    """What each node of a phase reads: state 0 is the phase's input, states 1 to n its nodes, the last entry its output.

    A gene has for node i + 2 a bit for each earlier node, and at its end one bit: whether the input skips to the output. Nodes
    that are read but read nothing read the input; nodes that read but aren't read go to the output; others read nothing.
    ValueError for numbers that are no gene.
    """
    n = len(gene)
    for i, bits in enumerate(gene, 1):
        if len(bits) != (i if i < n else 1) or not set(bits) <= {0, 1}:
            raise ValueError(f"entry {i} of a gene of {n} is {bits}: give {i if i < n else 1} bits")
    reads = [[], *([j + 1 for j, bit in enumerate(bits) if bit] for bits in gene[:-1])]
    read = {source for sources in reads for source in sources}
    result = [sources or ([0] if node in read else []) for node, sources in enumerate(reads, 1)]
    # in the authors' order, the input last
    output = [node for node in range(1, n + 1) if node not in read and reads[node - 1]]
    return [*result, output + [0] * gene[-1][0]]


class DenseNode(nn.Sequential):
    """(norm, ReLU, convolution): 1x1 to `width` x `growth` channels, 3x3 to `growth`, as in DenseNet."""

    def __init__(self, c_in: int, growth: int, width: int) -> None:
        inner = width * growth
        super().__init__(
            nn.BatchNorm2d(c_in),
            nn.ReLU(),
            nn.Conv2d(c_in, inner, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            nn.Conv2d(inner, growth, 3, padding=1, bias=False),
        )


class DensePhase(nn.Module):
    """Dense nodes wired by a gene: each reads the concatenation of states, and so does the 1x1 convolution at the end.

    Where channels change, a convolution comes first: 3x3 without padding in the network's `first` phase, else 1x1.
    """

    def __init__(self, gene: Gene, c_in: int, channels: int, first: bool, growth: int, width: int) -> None:
        super().__init__()
        self.first_conv = nn.Identity() if c_in == channels else nn.Conv2d(c_in, channels, 3 if first else 1, bias=False)
        *nodes, self.output = dependencies(gene)

        def count(sources: Sequence[int]) -> int:
            return sum(channels if source == 0 else growth for source in sources)

        self.sources = {node: sources for node, sources in enumerate(nodes, 1) if sources}
        self.nodes = nn.ModuleDict(
            {str(node): DenseNode(count(sources), growth, width) for node, sources in self.sources.items()}
        )
        self.out = nn.Sequential(
            nn.Conv2d(count(self.output), channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, c_in, H, W] -> [B, channels, H, W], 2 pixels less a side in the first phase."""
        states = {0: self.first_conv(x)}
        for node, sources in self.sources.items():
            states[node] = self.nodes[str(node)](torch.cat([states[s] for s in sources], dim=1))
        return self.out(torch.cat([states[s] for s in self.output], dim=1))


@MODELS.register_module()
class NSGAMacro(FeatureBackbone):
    """Phases of dense nodes with 2x2 max pools between them. Phases without connections are left out.

    Args:
        genome: a gene for each phase, see `dependencies`.
        channels: (channels in, channels out) of each phase that stays.
        growth: channels of a node; `width` times as many inside it.
        out_indices: the phases to return, by default the last.
        frozen_stages: phases up to this one aren't trained.

    The first convolution isn't padded, as in the authors' code: maps are those of an image 2 pixels smaller.
    Raises ValueError for a genome that makes no network.
    """

    def __init__(
        self,
        genome: Sequence[Gene],
        channels: Sequence[tuple[int, int]],
        growth: int = 64,
        width: int = 4,
        out_indices: Sequence[int] | None = None,
        frozen_stages: int = -1,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        active = [gene for gene in genome if any(any(bits) for bits in gene[:-1])]
        if not active:
            raise ValueError(f"no phase of the genome {genome} has a connection")
        if len(channels) < len(active) or any(a[1] != b[0] for a, b in pairwise(channels)):
            raise ValueError(f"channels={channels} must chain (in, out) pairs, one for each of {len(active)} phases")
        self.phases = nn.ModuleList(
            DensePhase(gene, c_in, c_out, index == 0, growth, width)
            for index, (gene, (c_in, c_out)) in enumerate(zip(active, channels, strict=False))
        )
        self.pool = nn.MaxPool2d(2)
        levels = [
            dict(channels=channels[index][1], stride=2**index, module=f"phases.{index}") for index in range(len(self.phases))
        ]
        self._returns(levels, out_indices, frozen_stages)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """[B, 3, H, W] -> the phases of `out_indices`, each [B, channels, (H - 2) // stride, (W - 2) // stride]."""
        features = []
        for index, phase in enumerate(self.phases):
            x = phase(x if index == 0 else self.pool(x))
            features.append(x)
        return tuple(features[index] for index in self.out_indices)


@schema("nsga_macro")
def nsga_macro(spec: Mapping) -> dict:
    """`genome`, `channels` and the `decoder`, of which "dense" is known."""
    if spec["decoder"] != "dense":
        raise ValueError(f"decoder={spec['decoder']!r} isn't known, only the dense one is")
    return classifier(dict(type="search.NSGAMacro", genome=spec["genome"], channels=spec["channels"]), spec)


@schema("nsga_micro")
def nsga_micro(spec: Mapping) -> dict:
    """`genotype` of (operation, state) pairs; every cell has `filter_increment` channels more; `se`: squeezed to 1/16."""
    backbone = dict(
        type="search.GenotypeNet",
        **genotype_edges(spec["genotype"]),
        channels=spec["init_channels"],
        layers=spec["layers"],
        increment=spec["filter_increment"],
        squeeze=16 if spec["se"] else None,
    )
    return classifier(backbone, spec)
