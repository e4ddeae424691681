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

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from search.kernels.norm_sum import norm_sum
from search.supernet.bank import Bank, Normed, Shared
from search.supernet.candidates import kind_of
from search.supernet.graph import Graph

if TYPE_CHECKING:
    from search.supernet.mixed_dag import MixedDag


class BatchedPlan:
    """Runs the modules of one `MixedDag`."""

    triton = False

    def __init__(self, dag: MixedDag) -> None:
        self.kinds = {edge: [kind_of(op) for op in mixed.ops.values()] for edge, mixed in dag.edges.items()}

    def __call__(self, dag: MixedDag, given: Sequence[Tensor | None]) -> list[Tensor]:
        """`inputs` states [B, C * K, H, W], None for a missing one -> the nodes' states."""
        graph = Graph(dag, self.kinds, given, dag.memory)

        def run(*states: Tensor | None) -> tuple[Tensor, ...]:
            return graph.run(states, self.execute, self.triton)

        if dag.memory == "small":
            nodes = checkpoint(run, *given, use_reentrant=False, preserve_rng_state=graph.has_modules)
        else:
            nodes = run(*given)
        graph.move_statistics()
        return list(nodes)

    def execute(self, bank: Bank, x: Tensor, graph: Graph) -> list[tuple[int, Tensor]]:
        """What each node gets of the candidates' channels x [B, C, H, W] of a state, in one or more parts."""
        normed, shared = self.maps(bank, x)
        wide: dict[tuple[int, ...], Tensor] = {}
        for numbers in _alike(bank.normed):
            jobs = [bank.normed[n] for n in numbers]
            _add(wide, jobs[0], normalised_sum(jobs, [normed[n] for n in numbers], graph, self.triton))
        for numbers in _alike(bank.shared):
            jobs = [bank.shared[n] for n in numbers]
            _add(wide, jobs[0], mixture(jobs, [shared[n] for n in numbers], graph))
        parts = [
            (node, part) for nodes, y in wide.items() for node, part in zip(nodes, y.chunk(len(nodes), dim=1), strict=True)
        ]
        for single in bank.singles:
            weight = graph.pick([single.target.place])
            y = single(x)
            parts.append((single.target.node, y if weight is None else weight * y))
        return parts

    def maps(self, bank: Bank, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Of the bank's normed jobs what their last norms read, of its shared ones what all their targets get."""
        return [job.maps(x) for job in bank.normed], [job.map(x) for job in bank.shared]


def mixture(jobs: Sequence[Shared], maps: Sequence[Tensor], graph: Graph) -> Tensor:
    """M maps [B, C, H, W] of the same T targets, weighted and summed: [B, T*C, H, W]."""
    targets = len(jobs[0].targets)
    weights = graph.pick([job.targets[t].place for t in range(targets) for job in jobs])
    stacked = torch.stack(list(maps), dim=1)
    with torch.autocast(stacked.device.type, enabled=False):
        # half types in float32: the matrix product would round the weights
        exact = torch.promote_types(stacked.dtype, torch.float32)
        if weights is None:
            weights = stacked.new_ones(targets * len(jobs), dtype=exact)
        mixed = torch.matmul(weights.to(exact).view(targets, -1), stacked.flatten(2).to(exact))
    return mixed.view(len(stacked), -1, *stacked.shape[-2:]).to(stacked.dtype)


def normalised_sum(jobs: Sequence[Normed], zs: Sequence[Tensor], graph: Graph, triton: bool) -> Tensor:
    """The last norms of jobs with the same T targets, weighted and summed: zs [B, T*C, H, W] each -> [B, T*C, H, W]."""
    norms = [job.norm for job in jobs]
    first = norms[0]
    channels = zs[0].shape[1]
    weights = graph.pick([target.place for job in jobs for target in job.targets], channels // len(jobs[0].targets))
    weights = None if weights is None else weights.view(len(jobs), channels)
    gammas, betas = (
        None if norms[0].weight is None else torch.stack(rows)
        for rows in ([norm.weight for norm in norms], [norm.bias for norm in norms])
    )
    running = None
    if not first.training:
        running = tuple(list(rows) for rows in zip(*(norm.read_running() for norm in norms), strict=True))
    gammas, betas = (_product(weights, rows) for rows in (gammas, betas)) if first.weight is not None else (weights, None)
    y, mean, var = norm_sum(zs, zs[0].new_ones(len(zs), dtype=torch.float32), gammas, betas, running, first.eps, triton=triton)
    if first.training:
        for norm, *batch in zip(norms, mean, var, strict=True):
            norm.batch = tuple(batch)
    return y


def _alike(jobs: Sequence[Normed | Shared]) -> list[list[int]]:
    """The numbers of jobs that can be summed together: of the same targets, and their norms, if any, of the same mode."""
    groups: dict[tuple, list[int]] = {}
    for n, job in enumerate(jobs):
        norm = getattr(job, "norm", None)
        mode = None if norm is None else (norm.eps, norm.training, norm.weight is None)
        groups.setdefault((mode, *(target.node for target in job.targets)), []).append(n)
    return list(groups.values())


def _add(wide: dict[tuple[int, ...], Tensor], job: Normed | Shared, y: Tensor) -> None:
    nodes = tuple(target.node for target in job.targets)
    wide[nodes] = wide[nodes] + y if nodes in wide else y


def _product(weights: Tensor | None, rows: Tensor) -> Tensor:
    return rows if weights is None else weights * rows
