"""One reading of a `MixedDag`: its gates and parameters as tensors, its candidates as jobs, run as often as needed.

All parameters of the candidates are concatenated once and cut into what the jobs read, and all their weights (gate of the
operation times gate of the edge) are one vector: a few operations for a whole graph, forward and backward.

Letters: B batch, C channels of a state, K of partial channels, E candidates of the graph, H and W size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from search.kernels.partial_node import max_pool_2x2, partial_node
from search.supernet.bank import (
    Bank,
    Chains,
    Pools,
    Shared,
    Single,
    Target,
    chain_job,
    dense_job,
    pool_job,
    weights_of,
)
from search.supernet.candidates import Chain, Dense, Kind, Other, Pool, Same
from search.supernet.mixed import MixedOp, Zero
from search.supernet.norms import Moves

if TYPE_CHECKING:
    from search.supernet.mixed_dag import MixedDag

# (a bank, the part of its state that candidates see [B, C/K, H, W], the graph) -> per node what it gets of it, summed
Executor = Callable[[Bank, Tensor, "Graph"], Sequence[tuple[int, Tensor]]]


class Graph:
    """See the module. `kinds`: of every edge's candidates; `memory`: as the batched plan's."""

    def __init__(self, dag: MixedDag, kinds: Mapping[str, Sequence[Kind]], given: Sequence[Tensor | None], memory: str) -> None:
        self.inputs, self.nodes, self.k = dag.inputs, dag.nodes, dag.partial_channels
        self._strides = [dag.stride_of(source) for source in range(dag.inputs + dag.nodes)]
        self._recompute = memory == "balanced"
        self._values: list[Tensor | None] = []
        self._edge_values: list[Tensor | None] = []
        self._places: list[tuple[int, int]] = []
        self._layers: list[list[Tensor]] = []
        self._makers: list[tuple[Bank, list[Target], list[Kind], range]] = []
        # of each node the sources that run, and their edges' weights
        self._sources: dict[int, list[int]] = {}
        self._of_edges: dict[int, Tensor | None] = {}
        self.banks = {source: Bank() for source in range(dag.inputs + dag.nodes)}
        self._read(dag, kinds, [i for i, state in enumerate(given) if state is None])
        self.weights = self._candidate_weights()
        self._make_jobs()

    def _read(self, dag: MixedDag, kinds: Mapping[str, Sequence[Kind]], missing: Sequence[int]) -> None:
        groups: dict[tuple, list[tuple[Target, Kind]]] = {}
        for node in range(dag.inputs, dag.inputs + dag.nodes):
            edges = {source: value for source, value in dag.edge_weights(node).items() if source not in missing}
            assert edges, f"node {node} of {dag.name} has no active input"
            self._sources[node] = list(edges)
            weighted = [value for value in edges.values() if value is not None]
            self._of_edges[node] = torch.stack(weighted) if weighted else None
            for source, value in edges.items():
                self._read_edge(dag.edges[f"n{node}<-{source}"], kinds[f"n{node}<-{source}"], node, source, value, groups)
        for (source, kind, _), members in groups.items():
            targets, alike = [target for target, _ in members], [one for _, one in members]
            layers = weights_of(alike) if kind in (Chain, Dense) else []
            self._makers.append((self.banks[source], targets, alike, range(len(self._layers), len(self._layers) + len(layers))))
            self._layers += layers

    def _read_edge(
        self,
        op: MixedOp,
        kinds: Sequence[Kind],
        node: int,
        source: int,
        edge_value: Tensor | None,
        groups: dict[tuple, list[tuple[Target, Kind]]],
    ) -> None:
        values, active = op.gates[op.choice]
        number = len(self._values)
        self._values.append(values)
        self._edge_values.append(edge_value)
        running = [i for i in active if kinds[i] is not None]
        for i in running:
            kind = kinds[i]
            target = Target(node, len(self._places))
            self._places.append((number, i))
            if isinstance(kind, Other):
                self.banks[source].singles.append(Single(target, kind.module))
            else:
                groups.setdefault((source, type(kind), kind.key), []).append((target, kind))
        if not running:
            # a zero alone still has a shape
            zero = list(op.ops.values())[active[0]]
            assert isinstance(zero, Zero)
            self._places.append((number, active[0]))
            self.banks[source].singles.append(Single(Target(node, len(self._places) - 1), zero))

    def _make_jobs(self) -> None:
        pieces = self._pieces()
        for bank, targets, kinds, layers in self._makers:
            weights = [pieces[i] for i in layers]
            if isinstance(kinds[0], Chain):
                bank.normed.append(chain_job(targets, kinds, weights, self._recompute))
            elif isinstance(kinds[0], Dense):
                bank.normed.append(dense_job(targets, kinds, weights))
            elif isinstance(kinds[0], Same):
                bank.shared.append(Shared(targets, None))
            else:
                assert isinstance(kinds[0], Pool)
                job = pool_job(targets, kinds)
                (bank.normed if isinstance(job, Pools) else bank.shared).append(job)

    def _pieces(self) -> list[Tensor]:
        """Of each layer the weights of all targets, [T * rows, ...], cut from one tensor."""
        flat = [weight.flatten() for layer in self._layers for weight in layer]
        if not flat:
            return []
        sizes = [sum(weight.numel() for weight in layer) for layer in self._layers]
        parts = torch.cat(flat).split(sizes)
        return [part.view(-1, *layer[0].shape[1:]) for part, layer in zip(parts, self._layers, strict=True)]

    def _candidate_weights(self) -> Tensor | None:
        """[E], or None where every weight is one."""
        products = [_gathered(self._values, self._places), _gathered(self._edge_values, [(n, None) for n, _ in self._places])]
        given = [product for product in products if product is not None]
        return None if not given else given[0] if len(given) == 1 else given[0] * given[1]

    def pick(self, places: Sequence[int], repeats: int = 1) -> Tensor | None:
        """Weights of candidates, each `repeats` times: [len(places) * repeats]; None where all are one."""
        if self.weights is None:
            return None
        index = _index(places, self.weights.device)
        return self.weights.index_select(0, index if repeats == 1 else index.repeat_interleave(repeats))

    def run(self, given: Sequence[Tensor | None], execute: Executor, triton: bool) -> tuple[Tensor, ...]:
        """`inputs` states [B, C, H, W], None for a missing one -> the nodes' states."""
        parts: dict[int, list[Tensor]] = {node: [] for node in self._sources}
        rests: dict[int, Tensor] = {}
        made: list[Tensor] = []
        for source in range(self.inputs + self.nodes):
            if source >= self.inputs:
                rest = [] if self.k == 1 else [rests[i] for i in self._sources[source]]
                weights = self._of_edges[source] if rest else None
                made.append(partial_node(parts.pop(source), rest, self.k, rest_weights=weights, triton=triton))
            state = given[source] if source < self.inputs else made[-1]
            if state is None or not any(source in sources for node, sources in self._sources.items() if node in parts):
                continue
            if self.k > 1:
                taken = state.shape[1] // self.k
                state, rest = state.split((taken, state.shape[1] - taken), dim=1)
                rests[source] = max_pool_2x2(rest, triton) if self._strides[source] == 2 else rest
            for node, y in execute(self.banks[source], state.contiguous(), self):
                parts[node].append(y)
        return tuple(made)

    def move_statistics(self) -> None:
        """Move the running statistics of all norms that ran; once for each forward."""
        moves = Moves()
        for bank in self.banks.values():
            for job in bank.normed:
                for norms in job.norms if isinstance(job, Chains) else [job.norm]:
                    moves.add(norms)
            for shared in bank.shared:
                if shared.batch is not None:
                    moves.add_shared(shared.norms, shared.batch)
        moves.apply()

    @property
    def has_modules(self) -> bool:
        """Whether modules of unknown kinds run, which may draw random numbers."""
        return any(bank.singles for bank in self.banks.values())


def _gathered(values: Sequence[Tensor | None], places: Sequence[tuple[int, int | None]]) -> Tensor | None:
    """One number for each place (which of the values, which entry; None: it has but one), one where there is no value."""
    given = [value for value in values if value is not None]
    if not given:
        return None
    begins, begin = [], 0
    for value in values:
        begins.append(begin)
        begin += 0 if value is None else value.numel()
    flat = [value.reshape(-1) for value in given]
    if len(given) < len(values):
        flat.append(given[0].new_ones(1))
    positions = [begin if values[n] is None else begins[n] + (i or 0) for n, i in places]
    return torch.cat(flat).index_select(0, _index(positions, given[0].device))


def _index(positions: Sequence[int], device: torch.device) -> Tensor:
    return torch.tensor(positions, dtype=torch.long, device=device)
