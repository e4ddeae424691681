"""Cells whose connections are plain data: what printed cells of NASNet, ENAS, NSGA-Net and FairDARTS are built of.

Shapes: B batch, C channels, H and W height and width of a cell's output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import stochastic_depth

from backbones.blocks import conv
from backbones.operations import FactorizedReduce, ReLUConvNorm


class FixedDag(nn.Module):
    """Two given states, then nodes, each the sum of operations on earlier states.

    nodes: for each node its edges, (state read, operation). States count from 0; the first node is state 2. Unlike in
    `MixedDag` two edges of a node may read the same state, and a node may have any number of edges but none.

    `drop_path`, at first 0, is the probability with which a path other than an identity is dropped in training.
    Raises ValueError for a node without edges and for one that reads a later state.
    """

    def __init__(self, nodes: Sequence[Sequence[tuple[int, nn.Module]]]) -> None:
        super().__init__()
        for node, edges in enumerate(nodes, 2):
            if not edges or not all(source in range(node) for source, _ in edges):
                raise ValueError(f"node {node} reads states {[source for source, _ in edges]}: give it states 0 to {node - 1}")
        self.sources = [tuple(source for source, _ in edges) for edges in nodes]
        self.nodes = nn.ModuleList(nn.ModuleList(operation for _, operation in edges) for edges in nodes)
        self.drop_path = 0.0

    def forward(self, *given: Tensor) -> list[Tensor]:
        """The two given states -> all states."""
        states = list(given)
        for sources, operations in zip(self.sources, self.nodes, strict=True):
            total = None
            for source, operation in zip(sources, operations, strict=True):
                y = self._path(operation, states[source])
                total = y if total is None else total + y
            states.append(total)
        return states

    def _path(self, operation: nn.Module, x: Tensor) -> Tensor:
        y = operation(x)
        if self.training and self.drop_path > 0 and not isinstance(operation, nn.Identity):
            y = stochastic_depth(y, self.drop_path, mode="row")
        return y


class FixedCell(nn.Module):
    """Two inputs, each aligned; a `FixedDag`; the concatenation of some states.

    Args:
        align: what makes states 0 and 1 of the inputs.
        nodes: see `FixedDag`.
        ends: for each state that is concatenated what it passes first, in order; an identity where it has the output's shape.
        channels: C, of each concatenated state.
        after: what the concatenation passes.

    Attributes:
        out_channels: len(ends) * C.
    """

    def __init__(
        self,
        align: tuple[nn.Module, nn.Module],
        nodes: Sequence[Sequence[tuple[int, nn.Module]]],
        ends: Mapping[int, nn.Module],
        channels: int,
        after: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if not ends or not all(state in range(2 + len(nodes)) for state in ends):
            raise ValueError(f"a cell of states 0 to {1 + len(nodes)} can't concatenate {list(ends)}")
        self.preprocess0, self.preprocess1 = align
        self.dag = FixedDag(nodes)
        self.ends = nn.ModuleDict({str(state): module for state, module in ends.items()})
        self.out_channels = len(ends) * channels
        self.after = nn.Identity() if after is None else after

    def forward(self, x0: Tensor, x1: Tensor) -> Tensor:
        """The inputs of states 0 and 1 -> [B, out_channels, H, W]."""
        states = self.dag(self.preprocess0(x0), self.preprocess1(x1))
        return self.after(torch.cat([module(states[int(state)]) for state, module in self.ends.items()], dim=1))


def fit(c_in: int, c_out: int, halve: bool, relu: bool = True) -> nn.Module:
    """What gives a map c_out channels, at half the resolution if asked for: nothing where it has them already.

    `relu`: whether the map is rectified first.
    """
    if halve:
        return FactorizedReduce(c_in, c_out, relu=relu)
    if c_in == c_out:
        return nn.Identity()
    return ReLUConvNorm(c_in, c_out) if relu else conv(c_in, c_out, 1, 1, "identity")


def grow_drop_path(cells: Sequence[FixedCell], probability: float) -> None:
    """Let drop path rise linearly with depth to `probability` in the last cell (as NASNet's and ENAS' code does)."""
    for index, cell in enumerate(cells, 1):
        cell.dag.drop_path = probability * index / len(cells)


def pairs(values: Sequence) -> list[tuple]:
    """Consecutive pairs, (values[0], values[1]), ... ValueError for an odd number of values."""
    if len(values) % 2:
        raise ValueError(f"{len(values)} values don't make pairs")
    return list(zip(values[::2], values[1::2], strict=True))
