"""Given states that are missing: their edges are left out of the sums, or not even built."""

import pytest
import torch
from torch import nn

from search.supernet import ArchParams, Fix, MixedDag, Relax, Softmax, Zero, building, reading, record

OPS = {
    "none": lambda c, stride: Zero(stride),
    "conv": lambda c, stride: nn.Conv2d(c, c, 1, stride, bias=False),
    "skip": lambda c, stride: nn.Identity(),
}


def dag(absent=(), plan="reference", partial=1):
    with reading("backbone") as pick:
        return MixedDag(
            pick, "cell", OPS, channels=4, nodes=2, absent=absent, plan=plan, memory="fast", partial_channels=partial
        )


def wide(**settings):
    torch.manual_seed(0)
    params = ArchParams(record(lambda: dag(**settings)).space, edge_logits=True, std=1.0)
    with building(Relax(params)):
        return params, dag(**settings)


@pytest.mark.parametrize("plan", ["reference", "batched"])
@pytest.mark.parametrize("partial", [1, 2])
def test_a_missing_state_leaves_its_edges_out(plan, partial):
    params, built = wide(plan=plan, partial=partial)
    x = torch.randn(2, 4, 3, 3)
    same, short = wide(absent=(0,), plan=plan, partial=partial)
    assert {edge for edge in built.edges if edge.endswith("<-0")} == set(built.edges) - set(short.edges) == {"n2<-0", "n3<-0"}
    short.load_state_dict({n: t for n, t in built.state_dict().items() if "<-0" not in n})
    with params.gated(Softmax()), same.gated(Softmax()):
        nodes = built(None, x)
        # edges to a missing state keep their share of the softmax
        weight = params.gates["cell/n2/inputs"][0][1]
        for a, b in zip(nodes, short(None, x), strict=True):
            assert torch.allclose(a, b)
        if partial == 1:
            assert torch.allclose(nodes[0], weight * built.edges["n2<-1"](x))


def test_choices_of_edges_that_are_not_built_are_declared_all_the_same():
    space = record(dag).space
    assert record(lambda: dag(absent=(0,))).space == space
    arch = {"cell/n2/inputs": (0, 1), "cell/n2<-0": "conv", "cell/n2<-1": "skip"}
    arch |= {"cell/n3/inputs": (0, 2), "cell/n3<-0": "skip", "cell/n3<-2": "skip"}
    with building(Fix(arch)):
        narrow = dag(absent=(0,))
    assert set(narrow.edges) == {"n2<-1", "n3<-2"}
    x = torch.randn(2, 4, 3, 3)
    assert all(torch.equal(y, x) for y in narrow(None, x))
