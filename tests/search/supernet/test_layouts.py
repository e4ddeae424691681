"""Channels-last states are taken by every plan, and give what the same states in NCHW give."""

import copy

import pytest
import torch

from backbones.operations import darts_candidates
from search.supernet import ArchParams, MixedDag, Relax, Softmax, building, reading, record

pytest.importorskip("triton")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# of each kind that the plans know one
NAMES = ("none", "max_pool_3x3", "avg_pool_3x3", "skip_connect", "sep_conv_3x3", "dil_conv_3x3")
CANDIDATES = {name: make for name, make in darts_candidates(False).items() if name in NAMES}


def dag_of(plan, memory="fast", partial=2):
    """A cell of two nodes, which starts at stride 2, and its logits; equal for every plan and memory."""

    def build():
        with reading("cell") as pick:
            return MixedDag(
                pick, "cell", CANDIDATES, channels=2 * partial, nodes=2, stride=2, partial_channels=partial,
                plan=plan, memory=memory,
            )  # fmt: skip

    torch.manual_seed(0)
    params = ArchParams(record(build).space, edge_logits=partial > 1, std=1.0)
    with building(Relax(params)):
        return build().to(DEVICE).train(), params.to(DEVICE)


def results(dag, params, states, autocast=False):
    """Nodes, gradients by states, weights and logits, and running statistics, of a copy of the graph."""
    dag = copy.deepcopy(dag)
    states = [state.detach().requires_grad_() for state in states]
    with params.gated(Softmax()), torch.autocast(DEVICE, torch.bfloat16, enabled=autocast):
        nodes = torch.stack(dag(*states))
    seed = torch.linspace(-1, 1, nodes.numel(), device=DEVICE).view(nodes.shape)
    asked = [*states, *dag.parameters(), *params.parameters()]
    grads = torch.autograd.grad((nodes * seed).sum(), asked)
    running = [buffer for name, buffer in dag.named_buffers() if "running" in name]
    return [t.detach().double().cpu() for t in (nodes, *grads, *running)]


def states_of(channels):
    """Two states of an odd size."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(2, channels, 5, 7, generator=generator).to(DEVICE) for _ in range(2)]


@pytest.mark.parametrize(
    ("plan", "partial"),
    [("reference", 2), ("batched", 1), ("batched", 2), pytest.param("triton", 1, marks=pytest.mark.slow), ("triton", 2)],
)
def test_channels_last_states_give_the_same(plan, partial):
    dag, params = dag_of(plan, partial=partial)
    states = states_of(2 * partial)
    expected = results(dag, params, states)
    last = [state.contiguous(memory_format=torch.channels_last) for state in states]
    assert all(state.stride(1) == 1 for state in last)
    for actual, e in zip(results(dag, params, last), expected, strict=True):
        # kernels for the other layout may sum in another order
        assert actual.shape == e.shape and (actual - e).norm() <= 1e-5 * e.norm()


@pytest.mark.parametrize("memory", ["fast", pytest.param("small", marks=pytest.mark.slow)])
def test_the_triton_plan_under_autocast_is_as_accurate_as_the_batched_plan(memory):
    states = states_of(4)

    def values(plan, autocast):
        return torch.cat([t.flatten() for t in results(*dag_of(plan, memory), states, autocast)])

    exact = values("batched", False)
    batched, triton = (float((values(plan, True) - exact).norm() / exact.norm()) for plan in ("batched", "triton"))
    # half a bfloat16's 8 bits of rounding at least: autocast did something
    assert 1e-3 < triton < 1.5 * batched < 0.2
