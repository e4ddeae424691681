"""The batched plan of a `MixedDag`: all edges that leave a state in one pass, the same mathematics as edge by edge.

- Chains of separable convolutions of one kind, over all targets: one depthwise convolution with a channel multiplier, one
  batched matrix product, one norm (search/kernels/separable).
- A candidate's weight (gate of the operation times gate of the edge) is the scale of its last norm, so products aren't stored.
- Pools and identities have no parameters: one map for all targets.
- Partial channels: what bypasses the candidates is summed over edges before it is concatenated and shuffled, once per node.

It reads the parameters of the modules that the reference plan runs; nothing is registered again. Sums come in another order, so
results differ by rounding. Gradients can be taken once; exact second order needs the reference plan.

What is kept for backward, by `memory`; the rest is computed again, of the same numbers, running statistics moved once:
- "fast": the input of each norm;
- "balanced": of each chain the input of its last norm alone;
- "small": the state that the candidates read, nothing of theirs.

Letters: B batch, T targets of a state, C channels of a candidate, H and W size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial as bind
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from search.supernet import partial
from search.supernet.bank import Job, Weight, chain_job, pool_job, run
from search.supernet.candidates import Chain, Kind, Other, kind_of
from search.supernet.mixed import MixedOp

if TYPE_CHECKING:
    from search.supernet.mixed_dag import MixedDag

MEMORY = ("fast", "balanced", "small")


@dataclass
class Sum:
    """A sum of maps that starts empty."""

    total: Tensor | None = None

    def add(self, y: Tensor, weight: Weight = None) -> None:
        """Add weight * y."""
        y = y if weight is None else weight * y
        self.total = y if self.total is None else self.total + y


class BatchedPlan:
    """Runs the modules of one `MixedDag`."""

    def __init__(self, dag: MixedDag) -> None:
        self.kinds: dict[str, list[Kind]] = {
            edge: [kind_of(op) for op in mixed.ops.values()] for edge, mixed in dag.edges.items()
        }

    def __call__(self, dag: MixedDag, given: Sequence[Tensor]) -> list[Tensor]:
        """`inputs` states [B, C * K, H, W] -> the nodes' states."""
        nodes = range(dag.inputs, dag.inputs + dag.nodes)
        edge_weights = {node: dag.edge_weights(node) for node in nodes}
        mixed = {node: Sum() for node in nodes}
        rest = {node: Sum() for node in nodes}
        states = list(given)
        for source in range(dag.inputs + dag.nodes):
            if source >= dag.inputs:
                states.append(self._node(dag, source, mixed.pop(source), rest.pop(source)))
            leaving = {node: edge_weights[node][source] for node in mixed if source in edge_weights[node]}
            if leaving:
                self._leave(dag, source, states[source], leaving, mixed, rest)
        return states[dag.inputs :]

    def _node(self, dag: MixedDag, node: int, mixed: Sum, rest: Sum) -> Tensor:
        assert mixed.total is not None, f"node {node} of {dag.name} has no active input"
        if dag.partial_channels == 1:
            return mixed.total
        assert rest.total is not None
        return partial.shuffle(torch.cat((mixed.total, rest.total), dim=1), dag.partial_channels)

    def _leave(
        self,
        dag: MixedDag,
        source: int,
        state: Tensor,
        leaving: dict[int, Weight],
        mixed: dict[int, Sum],
        rest: dict[int, Sum],
    ) -> None:
        """Add what a state gives to every node it leads to."""
        if dag.partial_channels > 1:
            x, untouched = partial.split(state, dag.partial_channels)
            # kept for backward alone, not the whole state
            x = x.contiguous()
            untouched = partial.bypass(untouched, dag.stride_of(source))
            for node, weight in leaving.items():
                rest[node].add(untouched, weight)
        else:
            x = state
        groups: dict[tuple, list[tuple[int, Weight, Kind]]] = {}
        for node, edge_weight in leaving.items():
            self._collect(dag, f"n{node}<-{source}", node, edge_weight, x, groups, mixed[node])
        if not groups:
            return
        jobs = [_job(targets, dag.memory) for targets in groups.values()]
        if dag.memory == "small":
            sums = checkpoint(bind(run, jobs=jobs), x, use_reentrant=False, preserve_rng_state=False)
        else:
            sums = run(x, jobs)
        for job in jobs:
            job.move_statistics()
        for node, y in sums.items():
            mixed[node].add(y)

    def _collect(
        self,
        dag: MixedDag,
        edge: str,
        node: int,
        edge_weight: Weight,
        x: Tensor,
        groups: dict[tuple, list[tuple[int, Weight, Kind]]],
        total: Sum,
    ) -> None:
        """Sort the active candidates of an edge into groups that run together; run what belongs to none."""
        op: MixedOp = dag.edges[edge]
        values, active = op.gates[op.choice]
        running = [i for i in active if self.kinds[edge][i] is not None]
        for i in running:
            weight = _product(edge_weight, None if values is None else values[i])
            kind = self.kinds[edge][i]
            if isinstance(kind, Other):
                module = kind.module
                total.add(x if isinstance(module, nn.Identity) else module(x), weight)
            else:
                groups.setdefault((type(kind), kind.key), []).append((node, weight, kind))
        if not running:
            # a zero alone still has a shape
            total.add(list(op.ops.values())[active[0]](x))


def _job(targets: list[tuple[int, Weight, Kind]], memory: str) -> Job:
    nodes, weights, kinds = (list(column) for column in zip(*targets, strict=True))
    if isinstance(kinds[0], Chain):
        return chain_job(nodes, weights, kinds, recompute=memory == "balanced")
    return pool_job(nodes, weights, kinds)


def _product(a: Weight, b: Weight) -> Weight:
    if a is None or b is None:
        return b if a is None else a
    return a * b
