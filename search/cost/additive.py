"""The cost of every architecture of a space, as a sum whose terms are found by counting some of its networks.

A network's cost is a sum of items (`search.cost.items`). Which items a network has depends on the architecture; what an item
of a choice costs, on that choice's option. So the cost of any architecture is a sum over *terms*

    [one of the term's conditions holds] x amount(option of the term's choice)

A condition is a set of *literals*, (choice, token) pairs as a `when` has them ("layer 3 of the path is at stride 8"), all of
which the architecture must have. Conditions are learned: of the architectures that were counted, the ones with the item must
meet one, and no other may. The smallest such condition is looked for, token by token, and where no single one will do several,
each for some of the architectures. First, architectures that show the most new pairs of literals are counted; then random ones
until none of `quiet` in a row is predicted wrongly in any item. Each one that is is learned from.

What this can and can't say:
- Chains of blocks, depths, widths, cells and paths are exact: their items depend on few literals at once.
- What depends on much at once (how many states of a cell nobody reads) needs a condition for each combination, so combinations
  that were never counted may be predicted wrongly. `AdditiveCost.errors` says by how much, on random architectures.
- With probability 0.95 fewer than 3 / `quiet` of all architectures, drawn uniformly, are predicted wrongly once `quiet` in a
  row were not (the rule of three).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import cast

from search.cost.items import Item
from search.cost.operations import all_tokens, containing
from search.space import Architecture, OneOf, Option, Space, Token

Literal = tuple[str, Token]
Condition = frozenset[Literal]
Itemise = Callable[[Architecture], Collection[Item]]
# architectures of which the one with the most unseen pairs of literals is counted next
_CANDIDATES = 30
# spaces of no more architectures are counted whole
_SMALL = 64


def literals_of(space: Space, architecture: Mapping[str, object]) -> Condition:
    """All literals that hold in an architecture."""
    return frozenset((name, token) for name, value in architecture.items() for token in space[name].tokens(value))


@dataclass(frozen=True)
class Term:
    """Costs `amounts[option of choice]`, one number for each metric, where one of the conditions holds and the choice is
    active.

    Without a choice the one option is None.
    """

    conditions: tuple[Condition, ...]
    choice: str | None
    amounts: Mapping[Option | None, tuple[float, ...]]

    def applies(self, literals: Condition) -> bool:
        """Whether a condition holds."""
        return any(condition <= literals for condition in self.conditions)


@dataclass(frozen=True)
class AdditiveCost:
    """The cost of any architecture of `space` in `metrics`, see the file's description.

    `counted` networks were counted. `errors`: by metric, the mean and the largest relative error (of predictions made before
    the network was learned from) over the last random architectures; all 0 where `exact`.
    """

    space: Space
    metrics: tuple[str, ...]
    terms: tuple[Term, ...]
    counted: int
    exact: bool
    errors: Mapping[str, tuple[float, float]]

    def of(self, architecture: Mapping[str, object]) -> dict[str, float]:
        """The cost by metric."""
        literals = literals_of(self.space, architecture)
        totals = [0.0] * len(self.metrics)
        for term in self.terms:
            if (term.choice is None or term.choice in architecture) and term.applies(literals):
                option = None if term.choice is None else cast(Option, architecture[term.choice])
                totals = [a + b for a, b in zip(totals, term.amounts[option], strict=True)]
        return dict(zip(self.metrics, totals, strict=True))

    @property
    def fixed(self) -> dict[str, float]:
        """What every architecture has, by metric."""
        always = [t.amounts[None] for t in self.terms if t.choice is None and frozenset() in t.conditions]
        return {metric: sum(amounts[i] for amounts in always) for i, metric in enumerate(self.metrics)}


def learn(
    space: Space,
    itemise: Itemise,
    *,
    metrics: Sequence[str] = ("macs", "params", "activations"),
    seed: int = 0,
    quiet: int = 20,
    most: int = 400,
) -> AdditiveCost:
    """Count networks of a space until their costs are known, at most `most`; of a small space all of them.

    Raises whatever `itemise` does.
    """
    learner, rng = _Learner(space), random.Random(f"costs {seed}")
    if space.size <= _SMALL:
        for architecture in space.enumerate():
            learner.add(architecture, itemise(architecture))
        return learner.result(metrics, True, [])
    _explore(space, learner, itemise, rng, most)
    misses: list[dict[str, float]] = []
    silent = 0
    while silent < quiet and len(learner.samples) < min(most, space.size):
        architecture = space.sample(rng)
        if literals_of(space, architecture) in learner.samples:
            continue
        items = itemise(architecture)
        misses.append(learner.errors(architecture, items, metrics))
        silent = 0 if learner.add(architecture, items) else silent + 1
    exact = silent >= quiet or len(learner.samples) == space.size
    return learner.result(metrics, exact, [] if exact else misses[-quiet:])


def _explore(space: Space, learner: _Learner, itemise: Itemise, rng: random.Random, most: int) -> None:
    """Count architectures that hold much that is new, then ones that hold the tokens not yet met."""

    def unseen(architecture: Architecture) -> int:
        return sum(pair not in seen for pair in _pairs(space, architecture))

    seen: set[tuple[Literal, Literal]] = set()
    while len(learner.samples) < most // 2:
        architecture = max([space.sample(rng) for _ in range(_CANDIDATES)], key=unseen)
        if not unseen(architecture):
            break
        seen.update(_pairs(space, architecture))
        learner.add(architecture, itemise(architecture))
    # of a choice that items have, every option is known from any one of them
    known = {item.choice for item in learner.has}
    for choice in space:
        for token in all_tokens(choice):
            if choice.name not in known and (choice.name, token) not in learner.masks and len(learner.samples) < most:
                architecture = containing(space, choice.name, token, rng)
                learner.add(architecture, itemise(architecture))


def _pairs(space: Space, architecture: Architecture) -> list[tuple[Literal, Literal]]:
    """Pairs of literals, without operations, which decide nothing but their own costs, unless there is nothing else."""
    names = [n for n in architecture if not isinstance(space[n], OneOf)] or list(architecture)
    literals = [(name, token) for name in names for token in space[name].tokens(architecture[name])]
    return list(combinations(literals, 2)) if len(literals) > 1 else [(literal, literal) for literal in literals]


class _Learner:
    """What was counted, and the conditions that explain it. Sets of samples are bits of a number."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.samples: list[Condition] = []
        self.masks: dict[Literal, int] = {}
        self.has: dict[Item, int] = {}
        self.rules: dict[Item, tuple[Condition, ...]] = {}
        self._active: dict[str | None, int] = {None: 0}
        # where literals explain equally well: structure before operations, then the space's order
        self._rank: dict[Literal, tuple[bool, int, str]] = {}
        self._places = {choice.name: i for i, choice in enumerate(space)}
        self._learned: dict[tuple[int, int], tuple[Condition, ...]] = {}

    def add(self, architecture: Architecture, items: Collection[Item]) -> bool:
        """Learn from a network; whether anything of it was predicted wrongly."""
        literals = literals_of(self.space, architecture)
        wrong = [item for item in self.has if self._predicted(item, architecture, literals) != (item in items)]
        wrong += [item for item in items if item not in self.has]
        bit = 1 << len(self.samples)
        self.samples.append(literals)
        for literal in literals:
            self.masks[literal] = self.masks.get(literal, 0) | bit
            operation = isinstance(self.space[literal[0]], OneOf)
            self._rank.setdefault(literal, (operation, self._places[literal[0]], str(literal[1])))
        for name in (None, *architecture):
            self._active[name] = self._active.get(name, 0) | bit
        for item in items:
            self.has[item] = self.has.get(item, 0) | bit
        self._learned.clear()
        for item in wrong:
            among, present = self._active[item.choice], self.has[item]
            if (present, among) not in self._learned:
                self._learned[present, among] = self._conditions(present, among & ~present)
            self.rules[item] = self._learned[present, among]
        return bool(wrong)

    def _predicted(self, item: Item, architecture: Architecture, literals: Condition) -> bool:
        active = item.choice is None or item.choice in architecture
        return active and any(condition <= literals for condition in self.rules[item])

    def errors(self, architecture: Architecture, items: Collection[Item], metrics: Sequence[str]) -> dict[str, float]:
        """Relative errors of what is predicted for a network, by metric."""
        literals = literals_of(self.space, architecture)
        predicted = [item for item in self.has if self._predicted(item, architecture, literals)]
        found = {}
        for metric in metrics:
            guess, truth = (sum(i.cost(architecture) for i in of if i.metric == metric) for of in (predicted, items))
            # sums of the same numbers in another order differ in their last bits
            found[metric] = abs(guess - truth) / abs(truth) if abs(guess - truth) > 1e-12 * abs(truth) else 0.0
        return found

    def _conditions(self, present: int, absent: int) -> tuple[Condition, ...]:
        """Conditions that the present samples, as bits, meet and the absent ones don't; one if one will do."""
        if not absent:
            return (frozenset(),)
        common = [literal for literal, mask in self.masks.items() if mask & present == present]
        if (condition := self._smallest(common, present, absent)) is not None:
            return (condition,)
        found, left = [], present
        while left:
            first = self.samples[(left & -left).bit_length() - 1]
            # an architecture that nothing tells from an absent one is remembered as a whole
            condition = self._smallest(list(first), left, absent) or first
            found.append(condition)
            left &= ~self._holding(condition)
        return tuple(found)

    def _smallest(self, candidates: list[Literal], wanted: int, absent: int) -> Condition | None:
        """A small condition among the literals that no absent sample meets, and of the wanted ones many; None if none is."""
        chosen: list[Literal] = []
        left, kept = absent, wanted
        while left:
            best = min(
                candidates,
                key=lambda one: ((left & self.masks[one]).bit_count(), -(kept & self.masks[one]).bit_count(), self._rank[one]),
                default=None,
            )
            if best is None or left & self.masks[best] == left:
                return None
            chosen.append(best)
            left, kept = left & self.masks[best], kept & self.masks[best]
        for literal in list(chosen):
            rest = [other for other in chosen if other != literal]
            if not absent & self._holding(rest):
                chosen = rest
        return frozenset(chosen)

    def _holding(self, literals: Collection[Literal]) -> int:
        mask = (1 << len(self.samples)) - 1
        for literal in literals:
            mask &= self.masks[literal]
        return mask

    def result(self, metrics: Sequence[str], exact: bool, misses: Sequence[Mapping[str, float]]) -> AdditiveCost:
        """Items of equal conditions and choice as one term."""
        terms: dict[tuple[tuple[Condition, ...], str | None], dict[Option | None, list[float]]] = {}
        for item, conditions in self.rules.items():
            amounts = terms.setdefault((conditions, item.choice), {})
            for option, amount in item.amounts:
                amounts.setdefault(option, [0.0] * len(metrics))[metrics.index(item.metric)] += amount
        return AdditiveCost(
            space=self.space,
            metrics=tuple(metrics),
            terms=tuple(
                Term(conditions, choice, {option: tuple(row) for option, row in amounts.items()})
                for (conditions, choice), amounts in terms.items()
            ),
            counted=len(self.samples),
            exact=exact,
            errors={
                metric: (sum(m[metric] for m in misses) / max(len(misses), 1), max((m[metric] for m in misses), default=0.0))
                for metric in metrics
            },
        )
