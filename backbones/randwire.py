"""RandWire (arXiv 1904.01569): stages wired by a random graph generator.

A stage is an undirected random graph, each edge directed from the lower to the higher number (section 3.2). A node takes the
weighted sum of its inputs, the weights being sigmoids of learned numbers, and does ReLU, a separable 3x3 convolution, batch
norm. Nodes without inputs take the stage's input, at its stride; the stage gives out the mean of the nodes without successors.

The network's convolutions are ReLU, convolution, norm; here the ReLU stands after each norm or mean instead, and nodes still
apply it to their sums: the same function, since the weights are positive and ReLU of ReLU is ReLU.
"""

from __future__ import annotations

from collections.abc import Mapping

import networkx as nx
import torch
from torch import Tensor, nn

from backbones.blocks import ACTIVATIONS, block
from backbones.spec import NotBuildable, classifier, schema

# section 3.3, table 1: channels of the last convolution
LAST_CHANNELS = 1280
# widths C of the paper's regular regime begin here; the small one has 78
REGULAR_CHANNELS = 109


def watts_strogatz(nodes: int, neighbours: int, rewiring: float, seed: int) -> list[tuple[int, int]]:
    """Edges (from, to), from < to, of WS(neighbours, rewiring): a ring, each edge rewired with a probability.

    nodes: N; neighbours: K, even, of each node in the ring; rewiring: P. Graphs that fall apart are drawn again (the paper
    takes connected ones). The same seed gives the same graph. ValueError for numbers that make no such graph.
    """
    if neighbours % 2 or not 2 <= neighbours < nodes or not 0 <= rewiring <= 1:
        raise ValueError(f"there is no WS graph of {nodes} nodes, {neighbours} neighbours (even, fewer) and P={rewiring}")
    graph = nx.connected_watts_strogatz_graph(nodes, neighbours, rewiring, tries=200, seed=seed)
    return sorted((min(edge), max(edge)) for edge in graph.edges)


class RandomNode(nn.Module):
    """Weighted sum of `inputs` maps, ReLU, depthwise 3x3, 1x1, norm. Each [B, c_in, H, W] -> [B, c_out, H', W']."""

    def __init__(self, inputs: int, c_in: int, c_out: int, stride: int, activation: str) -> None:
        super().__init__()
        # one input's weight would be undone by the norm
        self.weights = nn.Parameter(torch.zeros(inputs)) if inputs > 1 else None
        self.activation = ACTIVATIONS[activation]()
        self.conv = nn.Sequential(
            nn.Conv2d(c_in, c_in, 3, stride, 1, groups=c_in, bias=False),
            nn.Conv2d(c_in, c_out, 1, bias=False),
            nn.BatchNorm2d(c_out),
        )

    def forward(self, *inputs: Tensor) -> Tensor:
        """The node's map."""
        x = inputs[0]
        if self.weights is not None:
            x = sum(weight * y for weight, y in zip(self.weights.sigmoid(), inputs, strict=True))
        return self.conv(self.activation(x))


@block("random_graph")
class RandomGraph(nn.Module):
    """A stage of `nodes` nodes wired by `watts_strogatz(nodes, neighbours, rewiring, seed)`."""

    def __init__(
        self,
        c_in: int,
        c_out: int,
        stride: int,
        *,
        nodes: int,
        neighbours: int,
        rewiring: float,
        seed: int,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        edges = watts_strogatz(nodes, neighbours, rewiring, seed)
        self.sources = [[i for i, j in edges if j == node] for node in range(nodes)]
        with_successor = {i for i, _ in edges}
        self.ends = [node for node in range(nodes) if node not in with_successor]
        self.nodes = nn.ModuleList(
            RandomNode(len(sources), c_out, c_out, 1, activation) if sources else RandomNode(1, c_in, c_out, stride, activation)
            for sources in self.sources
        )
        self.activation = ACTIVATIONS[activation]()

    def forward(self, x: Tensor) -> Tensor:
        """[B, c_in, H, W] -> [B, c_out, H / stride, W / stride]."""
        made: list[Tensor] = []
        for sources, node in zip(self.sources, self.nodes, strict=True):
            made.append(node(*(made[i] for i in sources)) if sources else node(x))
        return self.activation(sum(made[i] for i in self.ends) / len(self.ends))


@schema("randwire")
def randwire(spec: Mapping) -> dict:
    """`generator` "WS" with `N`, `K`, `P`; channels `C` of the first graph; `seed` (0) of the first of the stages' graphs.

    The small regime (C below 109) has two convolutions and three graphs, the regular one a convolution and four graphs, of
    which the first has N / 2 nodes (table 1).
    """
    if spec["generator"] != "WS":
        raise NotBuildable(f"graphs of generator {spec['generator']!r} aren't there: only WS, Watts and Strogatz's, is")
    channels, nodes, regular = spec["C"], spec["N"], spec["C"] >= REGULAR_CHANNELS
    stages = [dict(channels=channels, stride=2, ops=dict(type="conv"))] if not regular else []
    widths = [channels * 2**i for i in range(4 if regular else 3)]
    seed = spec.get("seed", 0) * len(widths)
    for index, width in enumerate(widths):
        ops = dict(
            type="random_graph",
            nodes=nodes // 2 if regular and index == 0 else nodes,
            neighbours=spec["K"],
            rewiring=spec["P"],
            seed=seed + index,
        )
        stages.append(dict(channels=width, stride=2, ops=ops))
    backbone = dict(type="search.ChainNet", stem=dict(channels=channels // 2), stages=stages, last=dict(channels=LAST_CHANNELS))
    return classifier(backbone, spec)
