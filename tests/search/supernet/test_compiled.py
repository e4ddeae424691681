"""torch.compile takes the fast plans and gives what they give eagerly: forward, backward and running statistics.

Python that gathers candidates and moves statistics breaks its graphs (25 times in this cell, torch 2.14), and what lies between
is compiled. So `fullgraph=True` is refused, and these tests say that the operations that compute are in compiled graphs.
"""

import pytest
import torch
from functorch.compile import make_boxed_func
from torch._dynamo.backends.common import aot_autograd

from tests.backbones.small_supernets import require_as_accurate, results
from tests.devices import needs_triton
from tests.search.supernet.small_cells import cell_of, states

OPERATIONS = {
    "batched": {"aten::convolution", "aten::bmm", "aten::rsqrt"},
    "triton": {"visnas::mixed_state", "visnas::partial_node"},
}


@pytest.mark.slow
@pytest.mark.parametrize("plan", ["batched", pytest.param("triton", marks=needs_triton)])
def test_equals_the_cell_that_runs_eagerly(plan):
    compiled = set()

    def note(graph, _):
        compiled.update(node.target.name().split(".")[0] for node in graph.graph.nodes if hasattr(node.target, "name"))
        return make_boxed_func(graph)

    exact = results(*cell_of("reference"), states(), dtype=torch.float64)
    (params, eager), (same, traced) = cell_of(plan), cell_of(plan)
    torch.compiler.reset()
    traced.compile(backend=aot_autograd(fw_compiler=note, bw_compiler=lambda graph, _: make_boxed_func(graph)))
    require_as_accurate(exact, results(params, eager, states()), results(same, traced, states()))
    assert compiled >= OPERATIONS[plan]
