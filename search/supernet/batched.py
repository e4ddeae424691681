"""The batched plan of a `MixedDag`: all edges that leave a state in one pass, the same mathematics as edge by edge.

- Chains of separable convolutions of one kind, over all targets: one depthwise convolution, one batched matrix product, one
  norm for each step (search/kernels/separable).
- A candidate's weight (gate of the operation times gate of the edge) scales its last norm, and the sum over candidates is made
  on the way (search/kernels/norm_sum), so no product is stored.
- Pools and identities have no parameters: one map for all targets.
- Passes with states of equal shapes (the incoming strides of an Auto-DeepLab cell) are one pass, each with batch statistics of
  its own; what leaves a state that they share is computed once.
- Partial channels: the edge-weighted sum of what bypasses the candidates, the concatenation and the shuffle are one operation
  for each node (search/kernels/partial_node).

States may lie channels-last; they are copied to planes, in which all maps lie.

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

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from search.supernet.candidates import Other, kind_of
from search.supernet.graph import Fuse, Graph, Joined

if TYPE_CHECKING:
    from search.supernet.mixed_dag import MixedDag


class BatchedPlan:
    """Runs the modules of one `MixedDag`."""

    triton = False

    def __init__(self, dag: MixedDag) -> None:
        self.kinds = {edge: [kind_of(op) for op in mixed.ops.values()] for edge, mixed in dag.edges.items()}

    def __call__(self, dag: MixedDag, passes: Sequence[Sequence[Tensor | None]]) -> list[list[Tensor]]:
        """Of each pass `inputs` states [B, C * K, H, W], None for a missing one -> of each pass the nodes' states."""
        if not self._fit_together(passes):
            # their parameters' gradients are added as one tensor, not one by one
            joined: Joined = {}
            return [self._run(dag, given, 1, (), joined) for given in passes]
        given: list[Tensor | None] = []
        common = []
        for number, states in enumerate(zip(*passes, strict=True)):
            same = all(state is states[0] for state in states)
            given.append(states[0] if same else torch.stack(states, dim=1).flatten(0, 1))
            if same:
                common.append(number)
        nodes = [node.unflatten(0, (-1, len(passes))).unbind(1) for node in self._run(dag, given, len(passes), common)]
        return [list(of_pass) for of_pass in zip(*nodes, strict=True)]

    def _fit_together(self, passes: Sequence[Sequence[Tensor | None]]) -> bool:
        """Whether the passes can lie side by side: their states are alike, and no module of unknown kind runs."""
        shapes = [[None if state is None else state.shape for state in given] for given in passes]
        known = not any(isinstance(kind, Other) for kinds in self.kinds.values() for kind in kinds)
        return len(passes) > 1 and not self.triton and known and all(one == shapes[0] for one in shapes)

    def _run(
        self,
        dag: MixedDag,
        given: Sequence[Tensor | None],
        passes: int,
        common: Sequence[int],
        joined: Joined | None = None,
    ) -> list[Tensor]:
        recompute = dag.memory == "balanced"
        graph = Graph(dag, self.kinds, given, recompute, self.triton, self.fuse(recompute), passes, common, joined)

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
