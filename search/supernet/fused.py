"""The Triton plan of a `MixedDag`: the batched plan, with what leaves a state towards the same nodes as one operation.

From one read of a state to the nodes' sums a dozen launches make chains of separable convolutions, pools and the identity
(search/kernels/mixed_state); nodes are kernels too (partial_node). What that operation doesn't know (unknown modules, other
pools, group norms, norms in eval mode) runs as in the batched plan.

With memory="balanced" it keeps for backward the states alone.

States may lie channels-last; what the candidates read of them is copied to planes, so of the kernels for channels-last only the
node's run here, and those of the depthwise bank and of norm_sum in functions of their own.

Letters: B batch, T targets, J chains, N maps of a sum, C channels of a candidate, H and W size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from search.kernels.mixed_state import Structure, mixed_state
from search.supernet.bank import Alike, Normed, chain_norms, job_of, pool_name, shared_norm, weights_of
from search.supernet.batched import BatchedPlan
from search.supernet.candidates import Chain, Pool, Same
from search.supernet.graph import Fuse
from search.supernet.norms import Moves, Norms, single_value_error, uses_own_statistics


class TritonPlan(BatchedPlan):
    """Runs the modules of one `MixedDag`."""

    triton = True

    def fuse(self, recompute: bool) -> Fuse:
        """See `BatchedPlan.fuse`."""
        return partial(_fuse, recompute)


class Fused:
    """A sum (see sums.py) over all candidates of a state for the same nodes, as one operation."""

    def __init__(
        self, chains: list[Alike], others: list[Alike], pools: dict[str, Alike], same: list[Alike], recompute: bool
    ) -> None:
        # the longest first: those that go on after a step are the first ones
        self._chains = sorted(chains, key=lambda alike: -len(alike.kinds[0].parts))
        self._pools = [pools[name] for name in ("max", "avg") if name in pools]
        self._alikes = [*self._chains, *others, *self._pools, *same]
        self._others = others
        self._recompute = recompute
        self._norms = [chain_norms(alike.kinds) for alike in self._chains]
        geometries = self._by_step([[part.geometry for part in alike.kinds[0].parts] for alike in self._chains])
        sizes = self._by_step([[part.depthwise.kernel_size[0] for part in alike.kinds[0].parts] for alike in self._chains])
        self._structure = Structure(
            targets=len(self._alikes[0].targets),
            lengths=tuple(map(len, self._norms)),
            sizes=tuple(sizes),
            dilations=tuple(dilation for _, _, dilation in geometries),
            stride=geometries[0][0] if geometries else _stride(self._pools[0].kinds[0].pool) if self._pools else 1,
            max_pool="max" in pools,
            avg_pool="avg" in pools,
            same=bool(same),
            normalised=any(alike.kinds[0].norm is not None for alike in self._pools),
            others=len(others),
        )
        self.gates: Tensor | None = None
        self._batches: list[tuple[Tensor, Tensor]] = []

    @staticmethod
    def _by_step(of_chains: Sequence[Sequence]) -> list:
        """What each chain has at each step: all of the first step, then all of the second."""
        longest = max(map(len, of_chains), default=0)
        return [values[i] for i in range(longest) for values in of_chains if i < len(values)]

    def layers(self) -> list[list[Tensor]]:
        """The convolutions' weights as one layer in the operation's order, then those of each other job."""
        of_chains = [weights_of(alike) for alike in self._chains]
        longest = max(map(len, of_chains), default=0)
        own = [weight for i in range(longest) for layers in of_chains if i < len(layers) for weight in layers[i]]
        return ([own] if own else []) + [layer for alike in self._others for layer in weights_of(alike)]

    def read(self, pieces: Sequence[Tensor]) -> None:
        """Take what `layers` asked for, flat."""
        rest = iter(pieces)
        self._weights = next(rest) if self._chains else None
        self._jobs: list[Normed] = []
        for alike in self._others:
            layers = weights_of(alike)
            self._jobs.append(job_of(alike, [next(rest).view(-1, *layer[0].shape[1:]) for layer in layers], False))
        last = [norms[-1] for norms in self._norms] + [job.norm for job in self._jobs]
        self._vectors: list[Tensor | None] = [None] * 4
        if any(norms.weight is not None for norms in last):
            rows = [(norms.weight, norms.bias) for norms in last]
            shared = self._structure.shared()
            self._vectors[:2] = [
                torch.stack([*of, *[fill(of[0]) for _ in range(shared)]])
                for of, fill in zip(zip(*rows, strict=True), (torch.ones_like, torch.zeros_like), strict=True)
            ]
            if inner := self._by_step([norms[:-1] for norms in self._norms]):
                self._vectors[2:] = torch.cat([n.weight for n in inner]), torch.cat([n.bias for n in inner])

    def nodes(self) -> tuple[int, ...]:
        """See `Sum`."""
        return self._alikes[0].nodes

    def places(self) -> list[int]:
        """See `Sum`."""
        return [target.place for alike in self._alikes for target in alike.targets]

    def __call__(self, x: Tensor) -> Tensor:
        """See `Sum`."""
        if self._recompute:
            return checkpoint(self._run, x, use_reentrant=False, preserve_rng_state=False)
        return self._run(x)

    def _run(self, x: Tensor) -> Tensor:
        values = len(x) * math.prod(-(-side // self._structure.stride) for side in x.shape[2:])
        # of pools and identities alone nothing may be normalised
        if values <= 1 and any(_norms_of(alike) for alike in self._alikes):
            raise single_value_error(x)
        weights = x.new_empty(0) if self._weights is None else self._weights
        others = [job.maps(x) for job in self._jobs]
        y, self._batches = mixed_state(x, weights, self._structure, self.gates, *self._vectors, others, self._eps())
        return y

    def _eps(self) -> float:
        return next((norm.eps for alike in self._alikes for norm in _norms_of(alike)), 0.0)

    def move(self, moves: Moves) -> None:
        """See `Sum`."""
        *inner, (mean, var) = self._batches
        for i, statistics in enumerate(inner):
            going_on = [norms for norms in self._norms if i + 1 < len(norms)]
            for j, parts in enumerate(zip(*(t.chunk(len(going_on)) for t in statistics), strict=True)):
                _moved(moves, going_on[j][i], parts)
        last = [norms[-1] for norms in self._norms] + [job.norm for job in self._jobs]
        for norms, *parts in zip(last, mean, var, strict=False):
            _moved(moves, norms, parts)
        for n, alike in enumerate(self._pools, start=len(last)):
            norms = [pool.norm for pool in alike.kinds]
            if norms[0] is not None and norms[0].training and norms[0].track_running_stats:
                channels = norms[0].num_features
                moves.add_shared(norms, (mean[n, :channels], var[n, :channels]))


def _moved(moves: Moves, norms: Norms, batch: Sequence[Tensor]) -> None:
    norms.batch = tuple(batch)
    moves.add(norms)


def _fuse(recompute: bool, alikes: Sequence[Alike], stride: int) -> tuple[list[Fused], list[Alike]]:
    """The sums that are one operation, and what isn't in one."""
    groups: dict[tuple, list[Alike]] = {}
    rest: list[Alike] = []
    for alike in alikes:
        if _fits(alike, stride):
            groups.setdefault(alike.nodes, []).append(alike)
        else:
            rest.append(alike)
    fused: list[Fused] = []
    for group in groups.values():
        made, left = _fused(group, recompute)
        fused += [] if made is None else [made]
        rest += left
    return fused, rest


def _fused(group: Sequence[Alike], recompute: bool) -> tuple[Fused | None, list[Alike]]:
    """Candidates for the same nodes as one operation, or None, and those that can't be in it with its first candidate.

    All its norms have one eps; those that chains and convolutions end with are affine, or none is; of pools there is one of
    each name, and all of them have a norm, or none has.
    """
    chains: list[Alike] = []
    convolutions: list[Alike] = []
    pools: dict[str, Alike] = {}
    same: list[Alike] = []
    left: list[Alike] = []
    eps: set[float] = set()
    affine: set[bool] = set()
    # chains first: what differs from them is left to run alone
    for alike in sorted(group, key=lambda alike: not isinstance(alike.kinds[0], Chain)):
        kind, norms = alike.kinds[0], _norms_of(alike)
        # pools' norms are never affine
        own_affine = set() if isinstance(kind, Pool) else {norm.affine for norm in norms}
        own_eps = {norm.eps for norm in norms}
        name = _pool_name(alike)
        pools_alike = name is None or (
            name not in pools and all(bool(_norms_of(pool)) == bool(norms) for pool in pools.values())
        )
        if len(eps | own_eps) > 1 or len(affine | own_affine) > 1 or not pools_alike:
            left.append(alike)
            continue
        eps, affine = eps | own_eps, affine | own_affine
        if name is not None:
            pools[name] = alike
        else:
            (chains if isinstance(kind, Chain) else same if isinstance(kind, Same) else convolutions).append(alike)
    if not chains and not pools:
        return None, list(group)
    return Fused(chains, convolutions, pools, same, recompute), left


def _fits(alike: Alike, stride: int) -> bool:
    """Whether the operation knows such candidates, by batch statistics."""
    first = alike.kinds[0]
    if any(isinstance(norm, nn.GroupNorm) or not uses_own_statistics(norm) for norm in _norms_of(alike)):
        return False
    if isinstance(first, Chain):
        return all(part.depthwise.kernel_size[0] in (3, 5, 7) and part.geometry[2] in (1, 2) for part in first.parts)
    if isinstance(first, Pool):
        return _pool_name(alike) is not None and shared_norm(first)
    return not isinstance(first, Same) or stride == 1


def _norms_of(alike: Alike) -> list[nn.BatchNorm2d | nn.GroupNorm]:
    first = alike.kinds[0]
    if isinstance(first, Chain):
        return [part.norm for part in first.parts]
    norm = getattr(first, "norm", None)
    return [] if norm is None else [norm]


def _pool_name(alike: Alike) -> str | None:
    return pool_name(alike.kinds[0].pool) if isinstance(alike.kinds[0], Pool) else None


def _stride(pool: nn.Module) -> int:
    return pool.stride if isinstance(pool.stride, int) else pool.stride[0]
