"""What tools/bench_kernels.py measures: every kernel and a whole cell, each by all ways of computing it, at three tasks' sizes.

Letters: B batch, C channels of a state, c = C / K those that candidates see, T targets of a state, H and W size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search.engine import bench
from search.kernels.depthwise_bank import depthwise_bank, depthwise_bank_reference
from search.kernels.mixed_state import Structure, mixed_state, mixed_state_reference
from search.kernels.norm_sum import norm_sum, norm_sum_reference, norm_sum_torch
from search.kernels.partial_node import (
    max_pool_2x2,
    max_pool_2x2_torch,
    partial_node,
    partial_node_reference,
    partial_node_torch,
)
from search.kernels.separable import (
    norm_relu_separable,
    norm_relu_separable_reference,
    relu_separable,
    relu_separable_reference,
)
from search.supernet import ArchParams, MixedDag, Relax, Softmax, building, reading, record

Candidates = Mapping[str, Callable[[int, int], nn.Module]]
# kernel and dilation of the DARTS candidates' first depthwise convolutions
DEPTHWISE = ((3, 1), (5, 1), (3, 2), (5, 2))
# candidates of an edge that end in a norm, the identity counted with them
SUMMANDS = 7


@dataclass(frozen=True)
class Size:
    """The first cell of a search: B, C, side, the numbers of nodes, each K, the strides of its cells."""

    batch: int
    channels: int
    side: int
    nodes: int
    partial: Sequence[int]
    strides: Sequence[int] = (1, 2)


SIZES: Mapping[str, Size] = {
    # DARTS and PC-DARTS on CIFAR-10
    "cifar": Size(64, 16, 32, 4, (1, 4)),
    # PC-DARTS on ImageNet: a GPU's share of 1024 images, at 1/8 of 224 pixels
    "imagenet": Size(128, 16, 28, 4, (2,)),
    # Auto-DeepLab on Cityscapes: crops of 321 pixels at 1/4, where B=5 blocks have F=8 channels
    "cityscapes": Size(2, 8, 81, 5, (1,), (1,)),
}
QUICK = Size(2, 4, 6, 1, (1, 2))


@dataclass
class Case:
    """One computation. `ways`: functions without arguments that all return the same tensors, by name.

    `inputs` and `parameters`: the leaves that take a gradient, states and what is learned.
    """

    name: str
    shape: Mapping[str, int]
    inputs: Sequence[Tensor]
    parameters: Sequence[Tensor]
    ways: dict[str, Callable[[], Sequence[Tensor]]] = field(default_factory=dict)

    @property
    def leaves(self) -> list[Tensor]:
        """Everything that takes a gradient."""
        return [*self.inputs, *self.parameters]


def cases(
    size: Size, device: torch.device, candidates: Candidates, asked: Sequence[str] | None, compiled: bool
) -> Iterator[Case]:
    """The cases of a size, those of `asked` or all; `candidates` are a cell's. Made one after the other."""
    for k in size.partial:
        draw = Draw(device)
        for name, make in KERNELS.items():
            if (asked is None or name in asked) and not (name in ("partial_node", "max_pool_2x2") and k == 1):
                yield make(size, k, draw, bench.triton_runs(device))
        for stride in size.strides if asked is None or "cell" in asked else ():
            yield cell(size, k, stride, draw, candidates, compiled)


class Draw:
    """Leaves of noise on a device, the same in every run."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._generator = torch.Generator().manual_seed(0)

    def __call__(self, *shape: int, scale: float = 1.0) -> Tensor:
        """N(0, scale) of a shape."""
        return (scale * torch.randn(shape, generator=self._generator)).to(self.device).requires_grad_()


def relu_separable_case(size: Size, k: int, draw: Draw, _: bool) -> Case:
    """The first half of a 5x5 separable convolution from one state to all targets."""
    c, t = size.channels // k, size.nodes
    x, depthwise, pointwise = draw(size.batch, c, size.side, size.side), draw(t, c, 5, 5), draw(t, c, c)
    options = dict(stride=1, padding=2, dilation=1)
    case = Case("relu_separable", shape_of(size, k, T=t), [x], [depthwise, pointwise])
    case.ways["reference"] = lambda: [relu_separable_reference(x, depthwise, pointwise, **options)]
    case.ways["torch"] = lambda: [relu_separable(x, depthwise, pointwise, **options)]
    return case


def norm_relu_separable_case(size: Size, k: int, draw: Draw, _: bool) -> Case:
    """The second half of a 5x5 separable convolution to all targets, after the norm of the first."""
    c, t = size.channels // k, size.nodes
    z, depthwise, pointwise = draw(size.batch, t * c, size.side, size.side), draw(t, c, 5, 5), draw(t, c, c)
    norm = dict(weight=None, bias=None, running=None, training=True, momentum=0.1, eps=1e-5)
    case = Case("norm_relu_separable", shape_of(size, k, T=t), [z], [depthwise, pointwise])
    case.ways["reference"] = lambda: [norm_relu_separable_reference(z, depthwise, pointwise, 2, 1, **norm)]
    case.ways["torch"] = lambda: [norm_relu_separable(z, depthwise, pointwise, 2, 1, **norm)]
    return case


def depthwise_bank_case(size: Size, k: int, draw: Draw, triton: bool) -> Case:
    """The first depthwise convolutions of all candidates and targets of a state, and both pools."""
    c, t = size.channels // k, size.nodes
    x = draw(size.batch, c, size.side, size.side)
    weights = [draw(t * c, 1, kernel, kernel) for kernel, _ in DEPTHWISE]
    dilations = [dilation for _, dilation in DEPTHWISE]
    case = Case("depthwise_bank", shape_of(size, k, T=t), [x], weights)
    case.ways["reference"] = lambda: _flat(depthwise_bank_reference(x, weights, dilations, 1))
    if triton:
        case.ways["triton"] = lambda: _flat(depthwise_bank(x, weights, dilations, 1, triton=True))
    return case


def mixed_state_case(size: Size, k: int, draw: Draw, triton: bool) -> Case:
    """All candidates of a state but the zero, for all targets, from the state to their sums."""
    c, t = size.channels // k, size.nodes
    structure = Structure(t, (2, 2, 1, 1), (3, 5, 3, 5, 3, 5), (1, 1, 2, 2, 1, 1), 1, True, True, True, True, 0)
    x, weights = draw(size.batch, c, size.side, size.side), draw(structure.weights(c), scale=0.5)
    gates = draw(SUMMANDS, t)
    case = Case("mixed_state", shape_of(size, k, T=t, N=SUMMANDS), [x], [weights, gates])
    case.ways["reference"] = lambda: [mixed_state_reference(x, weights, structure, gates)]
    if triton:
        case.ways["triton"] = lambda: [mixed_state(x, weights, structure, gates)[0]]
    return case


def norm_sum_case(size: Size, k: int, draw: Draw, triton: bool) -> Case:
    """The weighted sum of an edge's candidates."""
    zs = [draw(size.batch, size.channels // k, size.side, size.side) for _ in range(SUMMANDS)]
    weight = draw(SUMMANDS)
    case = Case("norm_sum", shape_of(size, k, N=SUMMANDS), zs, [weight])
    case.ways["reference"] = lambda: [norm_sum_reference(zs, weight)[0]]
    case.ways["torch"] = lambda: [norm_sum_torch(zs, weight)[0]]
    if triton:
        case.ways["triton"] = lambda: [norm_sum(zs, weight, triton=True)[0]]
    return case


def partial_node_case(size: Size, k: int, draw: Draw, triton: bool) -> Case:
    """The last node of a cell: its edges' candidates are summed, the channels that bypass them aren't."""
    c, edges = size.channels // k, size.nodes + 1
    mixed = [draw(size.batch, c, size.side, size.side)]
    rests = [draw(size.batch, size.channels - c, size.side, size.side) for _ in range(edges)]
    weights = draw(edges)
    case = Case("partial_node", shape_of(size, k, edges=edges), [*mixed, *rests], [weights])
    case.ways["reference"] = lambda: [partial_node_reference(mixed, rests, k, rest_weights=weights)]
    case.ways["torch"] = lambda: [partial_node_torch(mixed, rests, k, rest_weights=weights)]
    if triton:
        case.ways["triton"] = lambda: [partial_node(mixed, rests, k, rest_weights=weights, triton=True)]
    return case


def max_pool_2x2_case(size: Size, k: int, draw: Draw, triton: bool) -> Case:
    """What a state's untouched channels become on edges of stride 2."""
    x = draw(size.batch, size.channels - size.channels // k, size.side, size.side)
    case = Case("max_pool_2x2", shape_of(size, k), [x], [])
    case.ways["reference"] = lambda: [F.max_pool2d(x, 2, 2, ceil_mode=True)]
    case.ways["torch"] = lambda: [max_pool_2x2_torch(x)]
    if triton:
        case.ways["triton"] = lambda: [max_pool_2x2(x, triton=True)]
    return case


# by the name that --cases takes
KERNELS: Mapping[str, Callable[[Size, int, Draw, bool], Case]] = {
    "relu_separable": relu_separable_case,
    "norm_relu_separable": norm_relu_separable_case,
    "depthwise_bank": depthwise_bank_case,
    "mixed_state": mixed_state_case,
    "norm_sum": norm_sum_case,
    "partial_node": partial_node_case,
    "max_pool_2x2": max_pool_2x2_case,
}
NAMES = (*KERNELS, "cell")
# the way that torch.compile makes
COMPILED = "reference, compiled"


def cell(size: Size, k: int, stride: int, draw: Draw, candidates: Candidates, compiled: bool) -> Case:
    """A supernet's cell by every plan that runs, and with `compiled` by torch.compile of the reference plan."""
    given = [draw(size.batch, size.channels, size.side, size.side) for _ in range(2)]

    def build(plan: str, memory: str) -> MixedDag:
        options: dict[str, Any] = dict(channels=size.channels, nodes=size.nodes, stride=stride, partial_channels=k)
        with reading("bench", None) as pick:
            return MixedDag(pick, "cell", candidates, plan=plan, memory=memory, **options)

    params = ArchParams(record(lambda: build("reference", "fast")).space, edge_logits=k > 1).to(draw.device)
    plans = {}
    for name, execution in bench.executions(draw.device).items():
        # weights are the same in every run, like the leaves
        with building(Relax(params)), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            plans[name] = build(*execution).to(draw.device).train()
        # one set of weights: plans differ in how they run
        for own, module in zip(plans["reference"].modules(), plans[name].modules(), strict=True):
            module._parameters.update(own._parameters)
    weights = plans["reference"].parameters()

    def way(plan: Callable[..., list[Tensor]]) -> Callable[[], Sequence[Tensor]]:
        def run() -> Sequence[Tensor]:
            with params.gated(Softmax()):
                return plan(*given)

        return run

    name = "cell" if stride == 1 else "reduction cell"
    case = Case(name, shape_of(size, k, nodes=size.nodes), given, [*weights, *params.parameters()])
    case.ways = {name: way(plan) for name, plan in plans.items()}
    if compiled:
        case.ways[COMPILED] = torch.compile(way(plans["reference"]))
    return case


def shape_of(size: Size, k: int, **more: int) -> dict[str, int]:
    """A case's sizes by letter."""
    return {"B": size.batch, "C": size.channels, "K": k, "H": size.side, "W": size.side, **more}


def _flat(parts: tuple[Sequence[Tensor], Sequence[Tensor]]) -> list[Tensor]:
    return [*parts[0], *parts[1]]
