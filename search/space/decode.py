"""From the probabilities of a relaxed search to the architecture it found.

`probs` maps a choice's name to one probability for each of its `options`, in their order, `relax_only` ones
included (an order: for each of its `arrangements`; a walk: see `_best_path`). Only choices that turn out
active are read. Rules, with sources:

- DARTS (arXiv 1806.09055 section 2.4; quark0/darts f276dd3, model_search.py `genotype`): `none` is in the
  softmax, but is never chosen and not renormalised away; an edge is as strong as its best operation; a node
  keeps its 2 strongest inputs. Ties go to the lower index, of the input and of the operation.
- PC-DARTS (yuhuixu1993/PC-DARTS b74702f): the strength is multiplied by the edge's own softmax over the
  node's inputs.
- P-DARTS (chenxin061/pdarts b880e87, utils of train_search.py): the skip limit. While the cell keeps more
  skips than the limit, the kept skip of smallest probability is set to 0 and the cell is decoded again.
  Ties there go to the skip that comes first in the space, as `np.argmin` does. P-DARTS breaks ties between
  *inputs* towards the higher index; here they go to the lower one, as in DARTS, so that all strategies
  share one rule.
"""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from search.space.architecture import Architecture
from search.space.choice import Choice, OneOf, Option, Ordinal, Value, position, same
from search.space.space import Space
from search.space.structured import Order, SomeOf, Transition, Walk

Probs = Mapping[str, Any]
# stands for 0 where a logarithm is taken
_SMALLEST = sys.float_info.min


@dataclass(frozen=True)
class Penalties:
    """How many nats less likely than the decoded architecture every other one is, as a sum over what it chooses.

    `options`: by choice and option, of active choices; `moves`: by walk and move; `orders`: by order and arrangement. The
    decoded architecture has a sum of 0, and no other a smaller one. `at_most`: no architecture may hold more than a number of
    these (choice, option) pairs.
    """

    options: Mapping[str, Mapping[Option, float]]
    moves: Mapping[str, Mapping[Transition, float]]
    orders: Mapping[str, Mapping[Value, float]]
    at_most: tuple[tuple[tuple[tuple[str, Option], ...], int], ...] = ()


@dataclass(frozen=True)
class Argmax:
    """The likeliest option of every choice; the k likeliest of a subset with fixed k (ties: lower index)."""

    def __call__(self, space: Space, probs: Probs) -> Architecture:
        """The architecture; ValueError where a choice has no usable probabilities."""
        return _decode(space, probs, lambda choice: _row(choice, probs))

    def penalties(self, space: Space, probs: Probs) -> Penalties:
        """What other architectures than the decoded one lose; ValueError where a choice has no usable probabilities."""
        return _penalties(space, probs, lambda choice: _row(choice, probs))


@dataclass(frozen=True)
class TopInputs:
    """The strongest inputs of each node, and the likeliest operation on each (ties: lower index).

    The strength of option i of a subset is the best probability among the operations that (subset, i)
    activates, times the subset's own probability of i where `probs` has it. `skip_limit` bounds how many
    choices whose names begin with `scope` may decode to the option `skip`.
    """

    skip_limit: int | None = None
    skip: str = "skip_connect"
    scope: str = "normal/"

    def __post_init__(self) -> None:
        if self.skip_limit is not None and (type(self.skip_limit) is not int or self.skip_limit < 0):
            raise ValueError(f"skip_limit={self.skip_limit!r} must be None or a whole number of at least 0")

    def __call__(self, space: Space, probs: Probs) -> Architecture:
        """The architecture; ValueError where probabilities are unusable or the limit cannot be met."""
        if self.skip_limit is not None and not self._skips(space):
            raise ValueError(
                f"skip_limit={self.skip_limit} has nothing to bound: space {space.name!r} has no choice beginning with "
                f"{self.scope!r} that offers {self.skip!r}"
            )
        left = dict(probs)
        cut: set[str] = set()
        while True:
            found = _decode(space, left, lambda choice: _strengths(space, choice, left))
            skips = [n for n, value in found.items() if n.startswith(self.scope) and same(value, self.skip)]
            if self.skip_limit is None or len(skips) <= self.skip_limit:
                return found
            rest = [name for name in skips if name not in cut]
            if not rest:
                raise ValueError(
                    f"skip_limit={self.skip_limit} cannot be met: {len(skips)} choices that begin with "
                    f"{self.scope!r} have no other option than {self.skip!r}"
                )
            weakest = min(rest, key=lambda name: left[name][_skip_index(space[name], self.skip)])
            row = list(left[weakest])
            row[_skip_index(space[weakest], self.skip)] = 0.0
            left[weakest] = row
            cut.add(weakest)

    def penalties(self, space: Space, probs: Probs) -> Penalties:
        """What other architectures lose against the one decoded without a skip limit; ValueError as `Argmax.penalties`."""
        found = _penalties(space, probs, lambda choice: _strengths(space, choice, probs))
        return found if self.skip_limit is None else replace(found, at_most=((self._skips(space), self.skip_limit),))

    def _skips(self, space: Space) -> tuple[tuple[str, Option], ...]:
        """What `skip_limit` bounds."""
        bounded = [c for c in space if c.name.startswith(self.scope) and isinstance(c, OneOf)]
        return tuple((c.name, self.skip) for c in bounded if position(c.options, self.skip) is not None)


def _decode(space: Space, probs: Probs, strengths: Callable[[SomeOf], list[float]]) -> Architecture:
    """Choose in the space's order, so that what is inactive is never read."""
    for name in probs:
        if name not in space:
            raise ValueError(f"there are probabilities for {name!r}, but space {space.name!r} has no such choice")
    found: dict[str, Value] = {}
    for choice in space:
        if not space.is_active(choice, found):
            continue
        if isinstance(choice, SomeOf):
            found[choice.name] = _strongest(choice, strengths(choice))
        elif isinstance(choice, OneOf | Ordinal):
            found[choice.name] = _likeliest(choice, _row(choice, probs))
        elif isinstance(choice, Order):
            row = _row(choice, probs)
            found[choice.name] = choice.arrangements[row.index(max(row))]
        else:
            assert isinstance(choice, Walk), choice
            found[choice.name] = _best_path(choice, probs)
    return Architecture(found)


def _row(choice: OneOf | Order | Ordinal | SomeOf, probs: Probs) -> list[float]:
    """One probability for each option (ValueError unless there are as many, all finite and not negative)."""
    options: Sequence[Value] = choice.arrangements if isinstance(choice, Order) else choice.options
    if choice.name not in probs:
        way_out = "; use TopInputs, or a strategy with edge logits" if isinstance(choice, SomeOf) else ""
        raise ValueError(f"choice {choice.name!r} has no probabilities to decode{way_out}")
    row = [float(p) for p in probs[choice.name]]
    if len(row) != len(options):
        raise ValueError(f"choice {choice.name!r} has {len(options)} options, but {len(row)} probabilities")
    for option, p in zip(options, row, strict=True):
        if not math.isfinite(p) or p < 0:
            raise ValueError(f"choice {choice.name!r} has probability {p} for {option!r}: the search has diverged")
    return row


def _likeliest(choice: OneOf | Ordinal, row: Sequence[float]) -> Option:
    best = max(range(len(row)), key=lambda i: (choice.contains(choice.options[i]), row[i], -i))
    return choice.options[best]


def _best(choice: OneOf, row: Sequence[float]) -> float:
    return max(p for p, option in zip(row, choice.options, strict=True) if choice.contains(option))


def _strengths(space: Space, choice: SomeOf, probs: Probs) -> list[float]:
    """The strength of each option of a subset, see `TopInputs`."""
    below: dict[int, list[OneOf]] = {}
    for child in space:
        for parent, token in child.when:
            if parent == choice.name and isinstance(child, OneOf):
                i = position(choice.options, token)
                assert i is not None
                below.setdefault(i, []).append(child)
    edges = _row(choice, probs) if choice.name in probs else [1.0] * len(choice.options)
    if choice.name not in probs and not below and choice.bounds[0] < len(choice.options):
        raise ValueError(f"choice {choice.name!r} has no probabilities and activates no operation to rank by")
    return [
        edge * max((_best(child, _row(child, probs)) for child in below.get(i, [])), default=1.0)
        for i, edge in enumerate(edges)
    ]


def _number_kept(choice: SomeOf) -> int:
    fewest, most = choice.bounds
    if fewest != most:
        raise ValueError(
            f"choice {choice.name!r} keeps {fewest} to {most} options, which strengths alone cannot settle; "
            f"restrict it to one number first, such as {{'k': {most}}}"
        )
    return most


def _strongest(choice: SomeOf, strengths: Sequence[float]) -> Value:
    ranked = sorted(range(len(strengths)), key=lambda i: (-strengths[i], i))[: _number_kept(choice)]
    return tuple(choice.options[i] for i in sorted(ranked))


def _best_path(walk: Walk, probs: Probs) -> Value:
    """The path whose moves have the largest product (Viterbi, as in Auto-DeepLab, arXiv 1901.02985).

    probs[walk.name] maps (layer, from, to), for layer >= 1 and the states of layer - 1 and layer, to a
    probability; (0, None, to) weighs the first states, all 1 when none is given. Ties: the path that is
    first by the order of states, compared from layer 0.
    """
    if walk.name not in probs:
        raise ValueError(f"choice {walk.name!r} has no probabilities to decode")
    table = probs[walk.name]
    weighs_start = any((0, None, state) in table for state in walk.start)

    def weight(layer: int, before: Option | None, state: Option) -> Fraction:
        if layer == 0 and not weighs_start:
            return Fraction(1)
        p = table.get((layer, before, state))
        if p is None or not math.isfinite(p) or p < 0:
            raise ValueError(f"choice {walk.name!r} has probability {p} for the move {(layer, before, state)!r}")
        return Fraction(p)  # exact, so that ties are ties and long paths don't underflow

    def following(state: Option | None) -> list[Option]:
        options = walk.start if state is None else walk.after(state)
        return [known for known in walk.states if position(options, known) is not None]

    met = [following(None)]
    for _ in range(1, walk.layers):
        met.append([to for to in walk.states if any(to in following(now) for now in met[-1])])
    # rest[layer][state]: the best product of the moves after this layer, None where no path can go on
    rest: list[dict[Option, Fraction | None]] = [dict.fromkeys(met[-1], Fraction(1))]
    for layer in range(walk.layers - 1, 0, -1):
        ends = rest[0]
        rest.insert(0, {})
        for now in met[layer - 1]:
            scores = [weight(layer, now, to) * end for to in following(now) if (end := ends[to]) is not None]
            rest[0][now] = max(scores, default=None)
    path: list[Option] = []
    state: Option | None = None
    so_far = Fraction(1)  # where it is 0 all that may follow ties
    for layer, ends in enumerate(rest):
        scored = [(so_far * weight(layer, state, to) * end, to) for to in following(state) if (end := ends[to]) is not None]
        before, state = state, max(scored, key=lambda pair: pair[0])[1]
        so_far *= weight(layer, before, state)
        path.append(state)
    return tuple(path)


def _penalties(space: Space, probs: Probs, strengths: Callable[[SomeOf], list[float]]) -> Penalties:
    options: dict[str, dict[Option, float]] = {}
    moves: dict[str, dict[Transition, float]] = {}
    orders: dict[str, dict[Value, float]] = {}
    for choice in space:
        if isinstance(choice, Walk):
            moves[choice.name] = _moves_lost(choice, probs)
        elif isinstance(choice, Order):
            logs = [_log(p) for p in _row(choice, probs)]
            orders[choice.name] = {value: max(logs) - log for value, log in zip(choice.arrangements, logs, strict=True)}
        elif isinstance(choice, SomeOf):
            logs = [_log(strength) for strength in strengths(choice)]
            # the decoded ones, the strongest, lose nothing in sum
            kept = _number_kept(choice)
            mean = sum(sorted(logs, reverse=True)[:kept]) / max(kept, 1)
            options[choice.name] = {option: mean - log for option, log in zip(choice.options, logs, strict=True)}
        else:
            assert isinstance(choice, OneOf | Ordinal), choice
            held = [(o, _log(p)) for o, p in zip(choice.options, _row(choice, probs), strict=True) if choice.contains(o)]
            best = max(log for _, log in held)
            options[choice.name] = {option: best - log for option, log in held}
    return Penalties(options, moves, orders)


def _log(p: float) -> float:
    return math.log(max(p, _SMALLEST))


def _moves_lost(walk: Walk, probs: Probs) -> dict[Transition, float]:
    """What each move loses against the best way on from the state that it leaves."""
    if walk.name not in probs:
        raise ValueError(f"choice {walk.name!r} has no probabilities to decode")
    table = probs[walk.name]
    scores: dict[Transition, float] = {}
    # the best sum of logarithms after a layer's state, moves of later layers first
    after: dict[tuple[int, Option | None], float] = {}
    for layer, before, state in reversed(walk.transitions):
        p = table.get((layer, before, state), 1.0 if before is None else None)
        if p is None or not math.isfinite(p) or p < 0:
            raise ValueError(f"choice {walk.name!r} has probability {p} for the move {(layer, before, state)!r}")
        score = scores[layer, before, state] = _log(p) + after.get((layer, state), 0.0)
        after[layer - 1, before] = max(after.get((layer - 1, before), -math.inf), score)
    return {move: after[move[0] - 1, move[1]] - score for move, score in scores.items()}


def _skip_index(choice: Choice, skip: str) -> int:
    assert isinstance(choice, OneOf | Ordinal), choice
    index = position(choice.options, skip)
    assert index is not None
    return index
