"""One reading of a `MixedDag`: its gates and parameters as tensors, its candidates as sums over jobs, run as often as needed.

All parameters of the candidates are concatenated once and cut into what the jobs read, and all their weights (gate of the
operation times gate of the edge) are one vector: a few operations for a whole graph, forward and backward. Cells that read the
same gates share the vector; passes that run one after the other share the concatenated parameters.

P passes through the graph may lie side by side, as maps [B*P, C, H, W] (see norms.py). A given state that is the same in all of
them is `common`: what leaves it is computed once.

Letters: B batch, C channels of a state, K of partial channels, E candidates of the graph, H and W size.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from search.kernels.partial_node import max_pool_2x2, partial_node
from search.supernet.bank import Alike, Single, Target, job_of, weights_of
from search.supernet.candidates import Kind, Other
from search.supernet.mixed import MixedOp, Zero
from search.supernet.norms import Moves, Passes
from search.supernet.partial import fitted
from search.supernet.sums import Lone, Sum, sums_of

if TYPE_CHECKING:
    from search.supernet.fused import Fused
    from search.supernet.mixed_dag import MixedDag

# of one state's candidates (and its stride) those that run as one operation of kernels, and the others
Fuse = Callable[[Sequence[Alike], int], "tuple[list[Fused], list[Alike]]"]

# by their identities, parameters and all of them flat in one tensor
Joined = dict[tuple[int, ...], tuple[list[Tensor], Tensor]]


class Edge(NamedTuple):
    """An edge: node, state that it leaves, choice and option of its gate."""

    node: int
    source: int
    gate: tuple[str, int]


class Graph:
    """See the module.

    `kinds`: of every edge's candidates; `recompute`: keep of each chain only what its last norm reads; `triton`: whether sums
    and nodes are Triton kernels; `fuse`: see `Fuse`; `passes`: P; `common`: given states. `joined`: the parameters that other
    graphs of the same call have concatenated.
    """

    def __init__(
        self,
        dag: MixedDag,
        kinds: Mapping[str, Sequence[Kind]],
        given: Sequence[Tensor | None],
        recompute: bool,
        triton: bool,
        fuse: Fuse | None,
        passes: int = 1,
        common: Collection[int] = (),
        joined: Joined | None = None,
    ) -> None:
        self._dag = dag
        self._triton = triton
        self._passes = passes
        self._common = common
        # of every candidate the choice and the option of its gate, and those of its edge's
        self._places: list[tuple[tuple[str, int], tuple[str, int]]] = []
        # of each node the sources that run, and their edges' weights
        self._sources: dict[int, list[int]] = {}
        self._of_edges: dict[int, Tensor | None] = {}
        self.sums: dict[int, list[Sum]] = {source: [] for source in range(dag.inputs + dag.nodes)}
        groups = self._read(kinds, [i for i, state in enumerate(given) if state is None])
        self._make_sums(groups, recompute, fuse, {} if joined is None else joined)
        self._weigh()

    def _read(self, kinds: Mapping[str, Sequence[Kind]], missing: Sequence[int]) -> dict[int, list[Alike]]:
        """By state, the candidates that run alike; those of unknown kinds are sums already."""
        dag = self._dag
        groups: dict[tuple, Alike] = {}
        for node in range(dag.inputs, dag.inputs + dag.nodes):
            choice, values, edges = dag.edge_gate(node)
            edges = {source: option for source, option in edges.items() if source not in missing}
            assert edges, f"node {node} of {dag.name} has no active input"
            self._sources[node] = list(edges)
            weighted = values is not None and dag.partial_channels > 1
            self._of_edges[node] = _taken(values, list(edges.values())) if weighted else None
            for source, option in edges.items():
                name = f"n{node}<-{source}"
                self._read_edge(dag.edges[name], kinds[name], Edge(node, source, (choice, option)), groups)
        of_state: dict[int, list[Alike]] = {}
        for (source, *_), alike in groups.items():
            of_state.setdefault(source, []).append(alike)
        return of_state

    def _read_edge(self, op: MixedOp, kinds: Sequence[Kind], edge: Edge, groups: dict[tuple, Alike]) -> None:
        _, active = self._dag.gates[op.choice]
        running = [i for i in active if kinds[i] is not None]
        modules = list(op.ops.values())
        # a zero alone still has a shape
        for i in running or active[:1]:
            kind = kinds[i]
            assert kind is not None or isinstance(modules[i], Zero)
            target = Target(edge.node, len(self._places))
            self._places.append(((op.choice, i), edge.gate))
            if kind is None or isinstance(kind, Other):
                self.sums[edge.source].append(Lone(Single(target, modules[i])))
                continue
            alike = groups.setdefault((edge.source, type(kind), kind.key), Alike([], []))
            alike.targets.append(target)
            alike.kinds.append(kind)

    def _make_sums(self, groups: Mapping[int, list[Alike]], recompute: bool, fuse: Fuse | None, joined: Joined) -> None:
        layers: list[list[Tensor]] = []
        makers: list[tuple[int, Fused | Alike, range]] = []
        for source, alikes in groups.items():
            fused, rest = fuse(alikes, self._dag.stride_of(source)) if fuse else ([], alikes)
            for maker in (*fused, *rest):
                own = weights_of(maker) if isinstance(maker, Alike) else maker.layers()
                makers.append((source, maker, range(len(layers), len(layers) + len(own))))
                layers += own
        pieces = _pieces(layers, joined)
        jobs: dict[int, list] = {}
        for source, maker, own in makers:
            if isinstance(maker, Alike):
                weights = [pieces[i].view(-1, *layers[i][0].shape[1:]) for i in own]
                passes = Passes(times=self._passes) if source in self._common else Passes(beside=self._passes)
                jobs.setdefault(source, []).append(job_of(maker, weights, recompute, passes))
            else:
                maker.read([pieces[i] for i in own])
                self.sums[source].append(maker)
        for source, of_state in jobs.items():
            self.sums[source] += sums_of(of_state, self._triton)

    def _weigh(self) -> None:
        """Give every sum its gates."""
        sums = [one for of_state in self.sums.values() for one in of_state]
        places = [[self._places[place] for place in one.places()] for one in sums]
        order = [place for of_sum in places for place in of_sum]
        weights = self._dag.gates.shared(tuple(order), lambda: self._weights(order))
        if weights is None:
            return
        for one, gates in zip(sums, weights.split(list(map(len, places))), strict=True):
            one.gates = gates.view(-1, len(one.nodes()))

    def _weights(self, places: Sequence[tuple[tuple[str, int], tuple[str, int]]]) -> Tensor | None:
        """[E], or None where every weight is one."""
        products = [self._gathered(gates) for gates in zip(*places, strict=True)]
        given = [product for product in products if product is not None]
        return None if not given else given[0] if len(given) == 1 else given[0] * given[1]

    def _gathered(self, gates: Sequence[tuple[str, int]]) -> Tensor | None:
        """One number for each (choice, option), one where a choice has no weights."""
        values = {choice: self._dag.gates[choice][0] for choice, _ in gates}
        given = {choice: value for choice, value in values.items() if value is not None}
        if not given:
            return None
        begins, begin = {}, 0
        for choice, value in given.items():
            begins[choice] = begin
            begin += len(value)
        flat = list(given.values())
        if len(given) < len(values):
            flat.append(flat[0].new_ones(1))
        return _taken(torch.cat(flat), [begins[choice] + option if choice in begins else begin for choice, option in gates])

    def run(self, given: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
        """States [B*P, C, H, W], common ones [B, C, H, W], None for a missing one -> the nodes' states [B*P, C, H', W']."""
        dag, k = self._dag, self._dag.partial_channels
        parts: dict[int, list[Tensor]] = {node: [] for node in self._sources}
        rests: dict[int, Tensor] = {}
        made: list[Tensor] = []
        for source in range(dag.inputs + dag.nodes):
            if source >= dag.inputs:
                rest = [] if k == 1 else [rests[i] for i in self._sources[source]]
                weights = self._of_edges[source] if rest else None
                made.append(partial_node(parts.pop(source), rest, k, rest_weights=weights, triton=self._triton))
            state = given[source] if source < dag.inputs else made[-1]
            if state is None or not any(source in sources for node, sources in self._sources.items() if node in parts):
                continue
            if k > 1:
                taken = state.shape[1] // k
                state, rest = state.split((taken, state.shape[1] - taken), dim=1)
                rest = fitted(rest, k, dag.channels)
                rest = max_pool_2x2(rest, self._triton) if dag.stride_of(source) == 2 else rest
                rests[source] = self._to_passes(source, rest)
            for node, y in self._of_state(source, state):
                parts[node].append(y)
        return tuple(made)

    def _of_state(self, source: int, x: Tensor) -> list[tuple[int, Tensor]]:
        """What each node gets of the candidates' channels x [B, C, H, W] of a state, in one or more parts."""
        wide: dict[tuple[int, ...], Tensor] = {}
        for one in self.sums[source]:
            y, nodes = one(x), one.nodes()
            wide[nodes] = wide[nodes] + y if nodes in wide else y
        own = {nodes: self._to_passes(source, y).chunk(len(nodes), dim=1) for nodes, y in wide.items()}
        return [(node, part) for nodes, parts in own.items() for node, part in zip(nodes, parts, strict=True)]

    def _to_passes(self, source: int, y: Tensor) -> Tensor:
        """For each pass what a state gives."""
        return y.repeat_interleave(self._passes, dim=0) if source in self._common else y

    def move_statistics(self) -> None:
        """Move the running statistics of all norms that ran; once for each forward."""
        moves = Moves()
        for of_state in self.sums.values():
            for one in of_state:
                one.move(moves)
        moves.apply()

    @property
    def has_modules(self) -> bool:
        """Whether modules of unknown kinds run, which may draw random numbers."""
        return any(isinstance(one, Lone) for of_state in self.sums.values() for one in of_state)


def _pieces(layers: Sequence[Sequence[Tensor]], joined: Joined) -> list[Tensor]:
    """Of each layer all weights, flat, cut from one tensor, which is `joined` already or will be."""
    weights = [weight for layer in layers for weight in layer]
    if not weights:
        return []
    key = tuple(map(id, weights))
    if key not in joined:
        joined[key] = weights, torch.cat([weight.flatten() for weight in weights])
    return list(joined[key][1].split([sum(weight.numel() for weight in layer) for layer in layers]))


def _taken(values: Tensor, positions: Sequence[int]) -> Tensor:
    """The numbers at some positions; the tensor itself where these are all in order."""
    if list(positions) == list(range(len(values))):
        return values
    return values.index_select(0, torch.tensor(positions, dtype=torch.long, device=values.device))
