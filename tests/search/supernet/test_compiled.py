"""torch.compile traces the fast plans: a compiled graph equals the eager one, forward, backward and running statistics."""

import pytest
import torch

from search.supernet import Softmax
from tests.search.supernet.test_layouts import dag_of, states_of

pytest.importorskip("triton")


def step(dag, params, states, run):
    """Nodes, all gradients and running statistics of one step."""
    for leaf in (*dag.parameters(), *params.parameters(), *states):
        leaf.grad = None
    with params.gated(Softmax()):
        nodes = torch.stack(run(*states))
    nodes.square().sum().backward()
    grads = [leaf.grad for leaf in (*states, *dag.parameters(), *params.parameters())]
    running = [buffer for name, buffer in dag.named_buffers() if "running" in name]
    return [t.detach().clone() for t in (nodes, *grads, *running)]


@pytest.mark.slow
@pytest.mark.parametrize("plan", ["batched", "triton"])
def test_equals_the_graph_that_runs_eagerly(plan):
    states = [state.requires_grad_() for state in states_of(4)]
    (eager, params), (traced, same) = dag_of(plan), dag_of(plan)
    torch.compiler.reset()
    compiled = torch.compile(traced, backend="aot_eager")
    for _ in range(2):
        expected, actual = step(eager, params, states, eager), step(traced, same, states, compiled)
        for a, e in zip(actual, expected, strict=True):
            assert (a - e).norm() <= 1e-5 * e.norm()
