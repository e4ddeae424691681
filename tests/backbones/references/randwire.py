"""RandWire. arXiv 1904.01569: the mapping from a graph to a network (section 3.3) and the two regimes (table 2).

The paper's graphs aren't published. A row's graphs come from networkx's Watts-Strogatz generator, one seed a stage.
"""

from __future__ import annotations

import networkx
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.backbones.references.plain import classify, conv_bn, depthwise, weight


def node(inputs: list[Tensor], c: int, s: int) -> Tensor:
    """The sum of the inputs, each times the sigmoid of a weight of its own; then ReLU, separable 3x3 convolution, norm."""
    if len(inputs) > 1:
        x = sum(x * torch.sigmoid(weight(1)) for x in inputs)
    else:
        (x,) = inputs
    return conv_bn(depthwise(F.relu(x), 3, s), c)


def stage(x: Tensor, c: int, nodes: int, spec, seed: int) -> Tensor:
    """Edges go from the lower to the higher number. Nodes that nothing feeds take the stage's input, at stride 2; the output is
    the mean of the nodes that feed nothing."""
    graph = networkx.connected_watts_strogatz_graph(nodes, spec["K"], spec["P"], tries=200, seed=seed)
    edges = [(min(edge), max(edge)) for edge in graph.edges]
    outputs = []
    for i in range(nodes):
        sources = [outputs[a] for a, b in edges if b == i]
        outputs.append(node(sources or [x], c, 1 if sources else 2))
    last = [outputs[i] for i in range(nodes) if i not in {a for a, _ in edges}]
    return sum(last) / len(last)


def randwire(spec, x: Tensor, row) -> Tensor:
    small, c, seed = "small" in row["name"], spec["C"], spec.get("seed", 0)
    x = conv_bn(x, c // 2, 3, 2)
    if small:
        x = conv_bn(F.relu(x), c, 3, 2)
    widths = [c, 2 * c, 4 * c] if small else [c, 2 * c, 4 * c, 8 * c]
    for i, width in enumerate(widths):
        halved = i == 0 and not small
        x = stage(x, width, spec["N"] // 2 if halved else spec["N"], spec, seed * len(widths) + i)
    return classify(F.relu(conv_bn(F.relu(x), 1280)))
