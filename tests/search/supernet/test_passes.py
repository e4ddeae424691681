"""Passes of the batched plan, side by side, equal the reference's, one after the other: outputs, gradients, statistics."""

from itertools import product

import pytest
import torch
from torch import nn

from backbones.auto_deeplab_cell import candidates as trellis_candidates
from backbones.operations import darts_candidates
from search.supernet import ArchParams, MixedDag, Relax, Softmax, building, reading, record
from search.supernet.graph import Graph
from search.supernet.mixed import Zero


class Odd(nn.Sequential):
    """No kind that the batched plan knows."""

    def __init__(self, channels, stride):
        super().__init__(nn.Conv2d(channels, channels, 3, stride, 1, bias=False), nn.BatchNorm2d(channels), nn.Tanh())


def grouped(steps, dilation=1):
    """Rows of separable convolutions with the norms of detection heads: groups of 4 channels, without scale and shift."""

    def made(channels, stride):
        rows = []
        for step in range(steps):
            depthwise = nn.Conv2d(channels, channels, 3, 1 if step else stride, dilation, dilation, groups=channels, bias=False)
            pointwise = nn.Conv2d(channels, channels, 1, bias=False)
            rows += [nn.ReLU(), depthwise, pointwise, nn.GroupNorm(channels // 4, channels, affine=False)]
        return nn.Sequential(*rows)

    return made


CANDIDATES = {
    "darts": darts_candidates(False),
    "affine": darts_candidates(True),
    "trellis": trellis_candidates(False),
    "groups": {
        "none": lambda _, stride: Zero(stride),
        "max": lambda _, stride: nn.MaxPool2d(3, stride, 1),
        "sep": grouped(2),
        "dil": grouped(1, 2),
    },
    "odd": {**darts_candidates(False), "odd": Odd},
}


class Cell(nn.Module):
    def __init__(self, candidates, momentum=0.1, **settings):
        super().__init__()
        with reading("cell") as pick:
            self.dag = MixedDag(pick, "cell", CANDIDATES[candidates], channels=8, nodes=3, **settings)
        for norm in self.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.momentum = momentum


def pair(candidates, memory="fast", **settings):
    """Two graphs of equal weights and unequal running statistics, one for each plan, and their logits."""
    torch.manual_seed(0)

    def build(plan):
        return Cell(candidates, plan=plan, memory=memory if plan == "batched" else "fast", **settings)

    params = ArchParams(record(lambda: build("reference")).space, edge_logits=True, std=1.0).double()
    cells = []
    for plan in ("reference", "batched"):
        with building(Relax(params)):
            cells.append(build(plan).double())
    for name, buffer in cells[0].named_buffers():
        if "running" in name:
            buffer.copy_(0.5 + torch.rand_like(buffer))
    cells[1].load_state_dict(cells[0].state_dict())
    return params, cells


def run(params, cell, first, seconds):
    leaves = [state.clone().requires_grad_() for state in (*([] if first is None else [first]), *seconds)]
    states = [None if first is None else leaves[0], *leaves[-len(seconds) :]]
    for p in [*cell.parameters(), *params.parameters()]:
        p.grad = None
    with params.gated(Softmax()):
        nodes = cell.dag.passes([(states[0], second) for second in states[1:]])
    found = [node for of_pass in nodes for node in of_pass]
    sum((y * torch.linspace(-1, 1, y.numel()).view(y.shape)).sum() for y in found).backward()
    grads = [leaf.grad for leaf in leaves] + [p.grad for p in (*cell.parameters(), *params.parameters())]
    return found, grads, list(cell.buffers())


def agree(one, other):
    for of_one, of_other in zip(one, other, strict=True):
        assert len(of_one) == len(of_other)
        for a, b in zip(of_one, of_other, strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                assert a.shape == b.shape
                assert (a - b).abs().max() <= 1e-10 * max(1.0, float(a.detach().abs().max()))


def check(candidates, stride=1, training=True, count=2, missing=False, **settings):
    params, cells = pair(candidates, stride=stride, **settings)
    first = None if missing else torch.randn(3, 8, 7, 6, dtype=torch.float64)
    seconds = [torch.randn(3, 8, 7, 6, dtype=torch.float64) for _ in range(count)]
    for _ in range(2):
        agree(*[run(params, cell.train(training), first, seconds) for cell in cells])


@pytest.mark.parametrize(("candidates", "stride", "training"), product(CANDIDATES, (1, 2), (True, False)))
def test_equal(candidates, stride, training):
    check(candidates, stride, training)


@pytest.mark.parametrize("k", [2, 4])
@pytest.mark.parametrize("stride", [1, 2])
def test_equal_with_partial_channels(k, stride):
    check("darts", stride, partial_channels=k)


@pytest.mark.parametrize("memory", ["balanced", "small"])
def test_equal_when_recomputed(memory):
    check("trellis", memory=memory, count=3)


def test_equal_where_a_state_is_missing():
    check("trellis", missing=True, count=3)


def test_equal_with_a_cumulative_average():
    check("trellis", momentum=None, count=3)


@pytest.mark.parametrize("candidates", ["trellis", "groups"])
def test_what_passes_share_is_computed_once(monkeypatch, candidates):
    made = []

    class Counted(Graph):
        def _of_state(self, source, x):
            made.append((source, len(x)))
            return super()._of_state(source, x)

    monkeypatch.setattr("search.supernet.batched.Graph", Counted)
    params, (_, cell) = pair(candidates)
    run(params, cell, torch.randn(3, 8, 7, 6).double(), [torch.randn(3, 8, 7, 6).double() for _ in range(2)])
    # 3 images; the second given state, and the two nodes that others read, of both passes
    assert made == [(0, 3), (1, 6), (2, 6), (3, 6)]


def test_states_of_unequal_shapes_pass_one_after_the_other():
    params, cells = pair("trellis")
    passes = [[torch.randn(2, 8, n, n, dtype=torch.float64)] * 2 for n in (5, 6)]
    found = []
    for cell in cells:
        with params.gated(Softmax()):
            nodes = cell.dag.passes(passes)
        found.append(([node for of_pass in nodes for node in of_pass], list(cell.buffers())))
    agree(*found)
