"""The structure DARTS cells, Auto-DeepLab cells and Auto-FPN share: states, mixed edges, a node sums its inputs.

Shapes: B batch, C channels of every state, H and W height and width.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial as bind

from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torchvision.ops import stochastic_depth

from search.supernet import partial
from search.supernet.batched import BatchedPlan
from search.supernet.fused import TritonPlan
from search.supernet.mixed import MixedOp
from search.supernet.pick import Pick
from search.supernet.plans import check_plan, choose_plan, require_triton

# makes one candidate: (channels, stride) -> module; where `given_channels` are said also c_in=, the channels it reads
Candidate = Callable[..., nn.Module]


class MixedDag(nn.Module):
    """Directed acyclic graph of mixed edges (DARTS, arXiv 1806.09055, section 2.1), run edge by edge: the reference plan.

    States 0 .. inputs-1 are given; node j (numbered on from there) sums an edge from every earlier state, or, in the narrow
    build, from the `keep` states its choice ``<name>/n<j>/inputs`` names. The operation on an edge is the choice
    ``<name>/n<j><-<i>``, active where i is kept. Edges that leave a given state have `stride`. A given state may be missing
    (None): edges that leave it are left out of the sums; those of the states in `absent` aren't even built. Given states may
    have other channels than the nodes: `given_channels`, one number for each.

    With `partial_channels` K > 1 an edge's candidates see C/K channels only (see `partial`). If the inputs' choice has
    logits, an edge is weighted by its softmax over the node's edges (edge normalisation, PC-DARTS eq. 2). Both belong to the
    relaxation: the narrow build has all channels on every edge and plain sums.

    `plan`: "reference"; "batched" (search/supernet/batched.py), which computes the same of the same parameters, faster and in
    fewer bytes; "triton" (search/supernet/fused.py), the same with kernels for CUDA; "auto", the best that runs (plans.py).
    `memory`: what plans other than the reference keep for backward, "fast", "balanced" or "small"; the rest is recomputed.
    `never_dropped`: options whose edges drop path (`drop_path`, of derived networks) leaves alone, as it does identities.

    Raises ValueError where C or the channels of a given state aren't divisible by K, and for an unknown plan or memory.
    """

    def __init__(
        self,
        pick: Pick,
        name: str,
        candidates: Mapping[str, Candidate],
        *,
        channels: int,
        inputs: int = 2,
        nodes: int = 4,
        keep: int = 2,
        stride: int = 1,
        absent: Collection[int] = (),
        given_channels: Sequence[int] | None = None,
        relax_only: tuple[str, ...] = ("none",),
        partial_channels: int = 1,
        plan: str = "reference",
        memory: str = "fast",
        never_dropped: Collection[str] = (),
    ) -> None:
        super().__init__()
        check_plan(plan, memory)
        if partial_channels < 1 or nodes < 1 or channels < 1:
            raise ValueError(f"partial_channels={partial_channels}, nodes={nodes} and channels={channels} must be at least 1")
        for count in (channels, *(given_channels or ())):
            if count % partial_channels:
                raise ValueError(f"{count} channels can't be split in partial_channels={partial_channels} equal parts")
        self.name = name
        # of a node's state, where given ones have others
        self.channels = None if given_channels is None else channels
        self.inputs = inputs
        self.nodes = nodes
        self.stride = stride
        self.partial_channels = partial_channels if pick.wide else 1
        self.gates = pick.gates()
        self.drop_path = 0.0
        self._never_dropped = frozenset(never_dropped)
        self.plan = plan
        self.memory = memory
        self._plans: dict[str, BatchedPlan] = {}
        # sources[j - inputs]: the states node j may read, in the order of its choice's options
        self.sources: list[tuple[int, ...]] = []
        self.edges = nn.ModuleDict()
        for node in range(inputs, inputs + nodes):
            sources = tuple(range(node))
            kept = pick.subset(self._inputs_choice(node), sources, keep)
            self.sources.append(sources if pick.wide else kept)
            for source in sources:
                edge = (channels // self.partial_channels, self.stride_of(source))
                read = {}
                if given_channels is not None and source < inputs:
                    read["c_in"] = given_channels[source] // self.partial_channels
                op = pick.op(
                    f"{name}/n{node}<-{source}",
                    {option: bind(make, *edge, **read) for option, make in candidates.items()},
                    when=[(self._inputs_choice(node), source)],
                    relax_only=relax_only,
                    absent=source in absent,
                )
                if op is not None:
                    self.edges[f"n{node}<-{source}"] = op

    def forward(self, *given: Tensor | None) -> list[Tensor]:
        """`inputs` tensors [B, C, H, W], None for a missing one -> the nodes' states, each [B, C, H / stride, W / stride]."""
        return self.passes([given])[0]

    def passes(self, passes: Sequence[Sequence[Tensor | None]]) -> list[list[Tensor]]:
        """Of each pass, given as in `forward`, the nodes' states; running statistics move from one to the next.

        The batched plan runs passes with states of equal shapes as one.
        """
        # a box head may be given no regions: there is nothing to run faster
        empty = any(state is not None and not state.numel() for given in passes for state in given)
        if self.gates is not None and self.plan != "reference" and not empty:
            return self._fast_plan(passes[0])(self, passes)
        return [self._pass(given) for given in passes]

    def _pass(self, given: Sequence[Tensor | None]) -> list[Tensor]:
        states = list(given)
        for node in range(self.inputs, self.inputs + self.nodes):
            sources = self.sources[node - self.inputs]
            values, active = (None, range(len(sources))) if self.gates is None else self.gates[self._inputs_choice(node)]
            total = None
            for i in active:
                if states[sources[i]] is None:
                    continue
                y = self._edge(node, sources[i], states[sources[i]])
                if values is not None:
                    y = values[i] * y
                total = y if total is None else total + y
            assert total is not None, f"node {node} of {self.name} has no active input"
            states.append(total)
        return states[self.inputs :]

    def _fast_plan(self, given: Sequence[Tensor | None]) -> BatchedPlan:
        x = next(state for state in given if state is not None)
        plan = choose_plan(x.device, x.dtype)[0] if self.plan == "auto" else self.plan
        # tensors without values run no kernel: the planner counts this plan anywhere
        if plan == "triton" and not isinstance(x, FakeTensor):
            require_triton(x.device, x.dtype)
        if plan not in self._plans:
            self._plans[plan] = (TritonPlan if plan == "triton" else BatchedPlan)(self)
        return self._plans[plan]

    def _edge(self, node: int, source: int, x: Tensor) -> Tensor:
        edge: MixedOp = self.edges[f"n{node}<-{source}"]
        y = partial.through(edge, x, self.partial_channels, self.stride_of(source), self.channels)
        if self.training and self.drop_path > 0 and self.gates is None and not self._stays(edge):
            y = stochastic_depth(y, self.drop_path, mode="row")
        return y

    def _stays(self, edge: MixedOp) -> bool:
        """Whether drop path leaves an edge of the narrow build alone."""
        return isinstance(edge.only, nn.Identity) or not self._never_dropped.isdisjoint(edge.ops)

    def stride_of(self, source: int) -> int:
        """The stride of the edges that leave a state."""
        return self.stride if source < self.inputs else 1

    def edge_gate(self, node: int) -> tuple[str, Tensor | None, dict[int, int]]:
        """Of a node in a supernet the inputs' choice, its weights [options] (None: ones), its active sources' options."""
        choice = self._inputs_choice(node)
        values, active = self.gates[choice]
        return choice, values, {self.sources[node - self.inputs][i]: i for i in active}

    def _inputs_choice(self, node: int) -> str:
        return f"{self.name}/n{node}/inputs"
