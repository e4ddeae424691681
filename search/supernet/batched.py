"""The batched plan of a `MixedDag`: all edges that leave a state in one pass, the same mathematics as edge by edge.

- Chains of separable convolutions of one kind, over all targets: one depthwise convolution, one batched matrix product, one
  norm for each step (search/kernels/separable).
- A candidate's weight (gate of the operation times gate of the edge) scales its last norm, and the sum over candidates is made
  on the way (search/kernels/norm_sum), so no product is stored.
- Pools and identities have no parameters: one map for all targets.
- Partial channels: the edge-weighted sum of what bypasses the candidates, the concatenation and the shuffle are one operation
  for each node (search/kernels/partial_node).

It reads the parameters of the modules that the reference plan runs; nothing is registered again. Sums come in another order, so
results differ by rounding. Gradients can be taken once; exact second order needs the reference plan.

What is kept for backward, by `memory`; the rest is computed again, of the same numbers, running statistics moved once:
- "fast": the input of each norm;
- "balanced": of each chain the input of its last norm alone;
- "small": the states that are given to the graph, nothing of what is computed in it.

Letters: B batch, T targets of a job, M maps, C channels of a candidate, H and W size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor
from torch.utils.checkpoint import checkpoint

from search.supernet.candidates import kind_of
from search.supernet.graph import Fuse, Graph

if TYPE_CHECKING:
    from search.supernet.mixed_dag import MixedDag


class BatchedPlan:
    """Runs the modules of one `MixedDag`."""

    triton = False

    def __init__(self, dag: MixedDag) -> None:
        self.kinds = {edge: [kind_of(op) for op in mixed.ops.values()] for edge, mixed in dag.edges.items()}

    def __call__(self, dag: MixedDag, given: Sequence[Tensor | None]) -> list[Tensor]:
        """`inputs` states [B, C * K, H, W], None for a missing one -> the nodes' states."""
        recompute = dag.memory == "balanced"
        graph = Graph(dag, self.kinds, given, recompute, self.triton, self.fuse(recompute))

        def run(*states: Tensor | None) -> tuple[Tensor, ...]:
            return graph.run(states)

        if dag.memory == "small":
            nodes = checkpoint(run, *given, use_reentrant=False, preserve_rng_state=graph.has_modules)
        else:
            nodes = run(*given)
        graph.move_statistics()
        return list(nodes)

    def fuse(self, recompute: bool) -> Fuse | None:
        """What makes one operation of candidates (see graph.py); recompute: it keeps its state alone for backward."""
        return None
