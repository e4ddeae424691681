"""Printed cells of the DARTS space as data: genotypes of DARTS' family, and cells that aren't architectures of `CellNet`.

Those are genotypes whose nodes read a state twice, or by any number of edges (FairDARTS, arXiv 1911.12126), or that name
operations `CellNet` doesn't search. They have one reading only, so their network is plain data, `GenotypeNet`.

Shapes: B batch, C initial channels, H and W height and width of the input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from torch import Tensor, nn

from backbones.cell_net import CellBackbone, doubling, thirds
from backbones.fixed_cell import FixedCell, pairs
from backbones.genotype import from_genotype
from backbones.operations import FactorizedReduce, ReLUConvNorm, SepConv, darts_candidates
from backbones.spec import classifier, schema
from search.registry import MODELS

# (operation, node it leads to, state it reads)
Edge = tuple[str, int, int]


def _factorized(channels: int, stride: int, kernel: int) -> nn.Module:
    """ReLU, 1 x kernel and kernel x 1 convolutions, norm."""
    pad = kernel // 2
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(channels, channels, (1, kernel), (1, stride), (0, pad), bias=False),
        nn.Conv2d(channels, channels, (kernel, 1), (stride, 1), (pad, 0), bias=False),
        nn.BatchNorm2d(channels),
    )


# the searched candidates, and what other printed genotypes name
OPERATIONS: Mapping[str, Callable[[int, int], nn.Module]] = {
    **darts_candidates(affine=True),
    "sep_conv_7x7": partial(SepConv, kernel=7),
    "conv_7x1_1x7": partial(_factorized, kernel=7),
    "conv_3x1_1x3": partial(_factorized, kernel=3),
}


class Squeeze(nn.Module):
    """Squeeze-and-excitation of two linear layers without bias (NSGA-Net's code), the inner one C / `ratio` wide."""

    def __init__(self, channels: int, ratio: int) -> None:
        super().__init__()
        inner = max(1, channels // ratio)
        self.layers = nn.Sequential(
            nn.Linear(channels, inner, bias=False), nn.ReLU(), nn.Linear(inner, channels, bias=False), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W], every channel scaled by a factor below 1."""
        return x * self.layers(x.mean((2, 3)))[:, :, None, None]


def genotype_cell(
    edges: Sequence[Edge],
    concat: Sequence[int],
    squeeze: int | None,
    empty_nodes: str,
    c_before_last: int,
    c_last: int,
    channels: int,
    *,
    reduction: bool,
    after_reduction: bool,
) -> FixedCell:
    """A DARTS cell of the edges given; states 0 and 1 are the aligned inputs.

    `empty_nodes` says what a node is that no edge leads to: "zeros", as an empty sum is, or "left out" with the edges that
    read it, as FairDARTS' code does (fairdarts/model.py), which makes the concatenation narrower.
    """
    if not edges:
        raise ValueError(f"a cell without edges can't concatenate {list(concat)}")
    states = [*concat, *(state for _, *numbers in edges for state in numbers)]
    if fractions := [state for state in states if not isinstance(state, int)]:
        raise ValueError(f"states of a cell have whole numbers, unlike {fractions[0]!r}")
    if min(concat, default=0) < 2 or len(set(concat)) < len(concat):
        raise ValueError(f"concat={list(concat)} must name different nodes, from 2 on")
    by_node: dict[int, list[tuple[int, str]]] = {node: [] for node in concat}
    for name, node, source in edges:
        if name not in OPERATIONS:
            raise ValueError(f"operation {name!r} is none of {', '.join(OPERATIONS)}")
        by_node.setdefault(node, []).append((source, name))
    number = {0: 0, 1: 1}
    nodes: list[list[tuple[int, nn.Module]]] = []
    for node in sorted(by_node):
        wrong = [source for source, _ in by_node[node] if not 0 <= source < node]
        if node < 2 or wrong:
            raise ValueError(f"node {node} can't read states {wrong or [s for s, _ in by_node[node]]}")
        kept = [(source, name) for source, name in by_node[node] if source in number]
        if not kept and empty_nodes == "zeros":
            kept = [(1, "none")]
        if kept:
            made = [(number[s], OPERATIONS[name](channels, 2 if reduction and s < 2 else 1)) for s, name in kept]
            number[node] = 2 + len(nodes)
            nodes.append(made)
    ends = {number[node]: nn.Identity() for node in concat if node in number}
    align = FactorizedReduce if after_reduction else ReLUConvNorm
    after = None if squeeze is None else Squeeze(len(ends) * channels, squeeze)
    return FixedCell((align(c_before_last, channels), ReLUConvNorm(c_last, channels)), nodes, ends, channels, after)


@MODELS.register_module()
class GenotypeNet(CellBackbone):
    """A network of two fixed cells, laid out as `CellNet` is.

    Args:
        normal, reduce: the cells' edges, each (operation of `OPERATIONS`, node it leads to, state it reads).
        normal_concat, reduce_concat: the nodes a cell concatenates.
        channels, layers, stem, reductions, auxiliary, num_classes, drop_path, out_indices, frozen_stages: see `CellNet`.
        increment: each cell has this many channels more than the one before, reduction or not (NSGA-Net); None: channels double
            at each reduction.
        empty_nodes: what a node is that no edge leads to: "zeros", or "left out" (FairDARTS' code).
        squeeze: cells end in a squeeze-and-excitation with 1 / squeeze of their channels inside; None: in none.

    Raises ValueError for edges that make no cell and for settings that contradict each other.
    """

    def __init__(
        self,
        normal: Sequence[Edge],
        normal_concat: Sequence[int],
        reduce: Sequence[Edge],
        reduce_concat: Sequence[int],
        channels: int = 36,
        layers: int = 20,
        stem: str = "cifar",
        reductions: Sequence[int] | None = None,
        increment: int | None = None,
        squeeze: int | None = None,
        empty_nodes: str = "zeros",
        auxiliary: bool = False,
        num_classes: int | None = None,
        drop_path: float = 0.0,
        out_indices: Sequence[int] | None = None,
        frozen_stages: int = -1,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        if empty_nodes not in ("zeros", "left out"):
            raise ValueError(f"empty_nodes={empty_nodes!r} is neither 'zeros' nor 'left out'")
        reductions = thirds(layers) if reductions is None else tuple(reductions)

        def make(*widths: int, reduction: bool, after_reduction: bool) -> FixedCell:
            edges, concat = (reduce, reduce_concat) if reduction else (normal, normal_concat)
            rules = dict(reduction=reduction, after_reduction=after_reduction)
            return genotype_cell(edges, concat, squeeze, empty_nodes, *widths, **rules)

        self._assemble(
            make,
            doubling(channels, layers, reductions)
            if increment is None
            else [channels + increment * index for index in range(layers)],
            channels * (3 if stem == "cifar" else 1),
            stem=stem,
            reductions=reductions,
            aux_after=2 * layers // 3 if auxiliary else None,
            num_classes=num_classes,
            drop_path=drop_path,
            out_indices=out_indices,
            frozen_stages=frozen_stages,
        )


@schema("darts_cell")
def darts_cell(spec: Mapping) -> dict:
    """`genotype` of (operation, state) pairs, `init_channels`, `layers`, `reductions`, `dataset`.

    A `CellNet`, whose parameters have the supernet's names, where the genotype is one of its architectures.
    """
    genotype = spec["genotype"]
    if _searchable(genotype):
        cells = dict(type="search.CellNet", nodes=len(genotype["normal"]) // 2, arch=dict(from_genotype(genotype)))
    else:
        cells = dict(type="search.GenotypeNet", **genotype_edges(genotype))
    return classifier(cells | _layout(spec), spec)


@schema("darts_cell_edges")
def darts_cell_edges(spec: Mapping) -> dict:
    """`genotype` of (operation, node, state) edges, any number a node; `empty_nodes` as `GenotypeNet`; else as `darts_cell`."""
    genotype = spec["genotype"]
    cells = {key: genotype[key] for key in ("normal", "normal_concat", "reduce", "reduce_concat")}
    cells["empty_nodes"] = spec.get("empty_nodes", "zeros")
    return classifier(dict(type="search.GenotypeNet", **cells) | _layout(spec), spec)


def genotype_edges(genotype: Mapping) -> dict:
    """The cells of `GenotypeNet` that a genotype of two (operation, state) pairs a node describes."""
    cells: dict[str, list] = {}
    for cell in ("normal", "reduce"):
        nodes = pairs(genotype[cell])
        cells[cell] = [(op, node, source) for node, edges in enumerate(nodes, 2) for op, source in edges]
        cells[f"{cell}_concat"] = list(genotype[f"{cell}_concat"])
    return cells


def _layout(spec: Mapping) -> dict:
    if spec["dataset"] not in ("cifar10", "imagenet"):
        raise ValueError(f"dataset={spec['dataset']!r} is neither cifar10 nor imagenet, whose stems are known")
    layout = dict(
        channels=spec["init_channels"], layers=spec["layers"], stem="cifar" if spec["dataset"] == "cifar10" else "imagenet"
    )
    return layout | ({"reductions": spec["reductions"]} if "reductions" in spec else {})


def _searchable(genotype: Mapping) -> bool:
    """Whether every node reads two different states by operations that a search may decode, and all nodes are concatenated."""
    candidates = set(darts_candidates(affine=True)) - {"none"}
    return all(
        {op for op, _ in genotype[cell]} <= candidates
        and all(a != b for (_, a), (_, b) in pairs(genotype[cell]))
        and list(genotype[f"{cell}_concat"]) == list(range(2, 2 + len(genotype[cell]) // 2))
        for cell in ("normal", "reduce")
    )
