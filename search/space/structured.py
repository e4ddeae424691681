"""The choices whose value is a tuple: a subset, an order, a path. See choice.py for the words used."""
# ruff: noqa: D102 -- the methods of each kind are documented once, in Choice

import math
from abc import abstractmethod
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, groupby, pairwise
from typing import Any, cast

from search.space.choice import Choice, Option, Token, Value, frozen, position, same

# a move of a walk: (layer, the state before, the state of the layer); None before the first
Transition = tuple[int, Option | None, Option]


class _Stepped(Choice):
    """A choice whose values are counted and numbered over its steps; any state may be its last."""

    @cached_property
    def _ways(self) -> list[dict[Hashable, int]]:
        """For each step and local state, the number of ways to finish."""
        reached: list[dict[Hashable, int]] = [{None: 0}]
        for step in range(self.length):
            reached.append({after: 1 for local in reached[step] for _, after in self.follow(step, local)})
        for step in reversed(range(self.length)):
            for local in reached[step]:
                reached[step][local] = sum(reached[step + 1][after] for _, after in self.follow(step, local))
        return reached

    @property
    def count(self) -> int:
        return self._ways[0][None]

    def at(self, index: int) -> Value:
        assert 0 <= index < self.count, index
        tokens: list[Token | None] = []
        local: Hashable = None
        for step in range(self.length):
            for token, after in self.follow(step, local):
                ways = self._ways[step + 1][after]
                if index < ways:
                    tokens.append(token)
                    local = after
                    break
                index -= ways
        return self.build(tokens)


class _Placed(_Stepped):
    """A choice with one option at every step. Its tokens are (step, option) pairs."""

    @property
    @abstractmethod
    def placed(self) -> tuple[Option, ...]:
        """The options that steps may have."""

    def build(self, tokens: Sequence[Token | None]) -> Value:
        return tuple(token[1] for token in tokens if isinstance(token, tuple))

    def tokens(self, value: Any) -> tuple[Token, ...]:
        return tuple(enumerate(value))

    def step_of(self, token: object) -> int | None:
        if not isinstance(token, tuple) or len(token) != 2 or type(token[0]) is not int:
            return None
        return token[0] if 0 <= token[0] < self.length and position(self.placed, token[1]) is not None else None


@dataclass(frozen=True)
class SomeOf(_Stepped):
    """A subset, such as the inputs a node keeps. Value: the chosen ones, a tuple in the order of `options`.

    k is the number to choose, or (fewest, most). A small step: one option exchanged, added or dropped.
    """

    options: tuple[Option, ...]
    k: int | tuple[int, int]

    def _check(self) -> None:
        self._check_options("options", self.options)
        k = self.k if isinstance(self.k, tuple) else (self.k, self.k)
        if len(k) != 2 or not all(type(n) is int for n in k) or not 0 <= k[0] <= k[1] <= len(self.options):
            raise self._refuse(f"k={self.k!r} must be a number, or (fewest, most), from 0 to its {len(self.options)} options")

    @property
    def bounds(self) -> tuple[int, int]:
        """The fewest and the most options a value holds."""
        return self.k if isinstance(self.k, tuple) else (self.k, self.k)

    @property
    def decodable(self) -> tuple[Option, ...]:
        """All its options."""
        return self.options

    @property
    def length(self) -> int:
        return len(self.options)

    def follow(self, step: int, local: Hashable) -> Iterable[tuple[Token | None, Hashable]]:
        held = local if isinstance(local, int) else 0
        fewest, most = self.bounds
        if held < most:
            yield self.options[step], held + 1
        if held + self.length - step - 1 >= fewest:
            yield None, held

    def build(self, tokens: Sequence[Token | None]) -> Value:
        return tuple(token for token in tokens if token is not None and not isinstance(token, tuple))

    def contains(self, value: object) -> bool:
        fewest, most = self.bounds
        if not isinstance(value, tuple) or not fewest <= len(value) <= most:
            return False
        found = [position(self.options, v) for v in value]
        return all(b is not None and a is not None and a < b for a, b in zip([-1, *found], found, strict=False))

    def normal(self, value: Any) -> Any:
        """The value in the order of `options`; unchanged where an option is foreign."""
        value = frozen(value)
        if not isinstance(value, tuple) or any(position(self.options, v) is None for v in value):
            return value
        return tuple(sorted(value, key=lambda v: position(self.options, v) or 0))

    def neighbours(self, value: Any) -> list[Value]:
        held = {i for i, option in enumerate(self.options) if position(value, option) is not None}
        spare = set(range(len(self.options))) - held
        exchanged = [held - {old} | {new} for old in sorted(held) for new in sorted(spare)]
        dropped = [held - {old} for old in sorted(held)]
        added = [held | {new} for new in sorted(spare)]
        changed = [tuple(self.options[i] for i in sorted(new)) for new in exchanged + dropped + added]
        return [new for new in changed if self.contains(new)]

    def tokens(self, value: Any) -> tuple[Token, ...]:
        return tuple(value)

    def step_of(self, token: object) -> int | None:
        return position(self.options, token)

    def describe(self) -> str:
        fewest, most = self.bounds
        number = f"{fewest}" if fewest == most else f"{fewest} to {most}"
        return f"{number} of " + ", ".join(map(repr, self.options))


@dataclass(frozen=True)
class Order(_Placed):
    """A permutation, such as which level each merging cell makes. Value: the items, a tuple in new order.

    Its tokens are (place, item) pairs, places counted from 0. A small step: two items change places.
    """

    items: tuple[Option, ...]

    def _check(self) -> None:
        self._check_options("items", self.items)

    @cached_property
    def arrangements(self) -> tuple[tuple[Option, ...], ...]:
        """All its values, by number: what a relaxation weighs. ValueError beyond 6 items, which have 720."""
        if len(self.items) > 6:
            raise self._refuse(f"{len(self.items)} items have {self.count:,} orders, too many to be weighed: 6 items at most")
        return tuple(cast(tuple[Option, ...], self.at(index)) for index in range(self.count))

    @property
    def count(self) -> int:
        return math.factorial(len(self.items))

    def at(self, index: int) -> Value:
        # the order that `_Stepped.at` gives, without its table over all sets of items, of which there are 2^n
        assert 0 <= index < self.count, index
        left, value = list(self.items), []
        while left:
            first, index = divmod(index, math.factorial(len(left) - 1))
            value.append(left.pop(first))
        return tuple(value)

    def contains(self, value: object) -> bool:
        if not isinstance(value, tuple) or len(value) != len(self.items):
            return False
        return {position(self.items, v) for v in value} == set(range(len(self.items)))

    def neighbours(self, value: Any) -> list[Value]:
        changed = []
        for i, j in combinations(range(len(value)), 2):
            new = list(value)
            new[i], new[j] = new[j], new[i]
            changed.append(tuple(new))
        return list(changed)

    @property
    def length(self) -> int:
        return len(self.items)

    @property
    def placed(self) -> tuple[Option, ...]:
        """Its items."""
        return self.items

    def follow(self, step: int, local: Hashable) -> Iterable[tuple[Token | None, Hashable]]:
        # the items used before, as bits of a number
        used = local if isinstance(local, int) else 0
        return (((step, item), used | 1 << i) for i, item in enumerate(self.items) if not used >> i & 1)

    def describe(self) -> str:
        return "an order of " + ", ".join(map(repr, self.items))


@dataclass(frozen=True)
class Walk(_Placed):
    """A path in a layered graph, such as each layer's resolution. Value: the state of each layer, a tuple.

    moves: (state, (next states, ...)) pairs, also accepted as a mapping; start: the states layer 0 may have.
    Its tokens are (layer, state) pairs, layers counted from 0. A small step: another state at one layer.
    """

    layers: int
    moves: tuple[tuple[Option, tuple[Option, ...]], ...]
    start: tuple[Option, ...]

    def _check(self) -> None:
        if type(self.layers) is not int or self.layers < 1:
            raise self._refuse(f"layers={self.layers!r} must be a whole number of at least 1")
        if isinstance(self.moves, Mapping):
            object.__setattr__(self, "moves", frozen(list(self.moves.items())))
        if not isinstance(self.moves, tuple) or not all(isinstance(m, tuple) and len(m) == 2 for m in self.moves):
            raise self._refuse("moves must list (state, (next states, ...)) pairs")
        self._check_options("moves", self.states)
        self._check_options("start", self.start)
        for state, following in self.moves:
            if following:
                self._check_options(f"moves from {state!r}", following)
        for state in (*self.start, *(after for _, following in self.moves for after in following)):
            if position(self.states, state) is None:
                raise self._refuse(f"state {state!r} is used, but moves does not say what follows it")
        if self.count == 0:
            raise self._refuse(f"no path has {self.layers} layers")

    @cached_property
    def states(self) -> tuple[Option, ...]:
        """The states, in the order of `moves`."""
        return tuple(state for state, _ in self.moves)

    def after(self, state: Option) -> tuple[Option, ...]:
        """The states that may follow this one."""
        i = position(self.states, state)
        return () if i is None else self.moves[i][1]

    @cached_property
    def transitions(self) -> tuple[Transition, ...]:
        """The moves (layer, from, to) into each layer that some path makes: by layer, then by the order of states.

        Where layer 0 has several states, the moves (0, None, state) into it come first.
        """
        ways = [set(self.states)]
        for _ in range(1, self.layers):
            ways.insert(0, {state for state in self.states if ways[0].intersection(self.after(state))})
        met = [state for state in self.states if state in self.start and state in ways[0]]
        found: list[Transition] = [(0, None, state) for state in met] if len(met) > 1 else []
        for layer in range(1, self.layers):
            moves = [(layer, a, b) for a in met for b in self.states if b in self.after(a) and b in ways[layer]]
            found += moves
            met = [state for state in self.states if any(state == to for _, _, to in moves)]
        return tuple(found)

    def transitions_of(self, value: Sequence[Option]) -> tuple[int, ...]:
        """The numbers, in `transitions`, of the moves that a path makes."""
        numbers = {move: number for number, move in enumerate(self.transitions)}
        path = [(layer, a, b) for layer, (a, b) in enumerate(pairwise((None, *value)))]
        return tuple(numbers[move] for move in path if move in numbers)

    @cached_property
    def outgoing(self) -> tuple[int, ...]:
        """How many of `transitions`, one after the other, leave each state of a layer: what shares a probability of 1."""
        return tuple(len(list(moves)) for _, moves in groupby(self.transitions, key=lambda move: move[:2]))

    @staticmethod
    def transition_text(transition: Transition) -> str:
        """A move as a name in files, such as '3: 8 -> 16'."""
        layer, before, after = transition
        return f"{layer}: {'start' if before is None else before} -> {after}"

    @property
    def length(self) -> int:
        return self.layers

    @property
    def placed(self) -> tuple[Option, ...]:
        """Its states."""
        return self.states

    def follow(self, step: int, local: Hashable) -> Iterable[tuple[Token | None, Hashable]]:
        states = self.start if local is None else self.after(cast(Option, local))
        return (((step, state), state) for state in states)

    def contains(self, value: object) -> bool:
        if not isinstance(value, tuple) or len(value) != self.layers or position(self.start, value[0]) is None:
            return False
        return all(position(self.after(a), b) is not None for a, b in pairwise(value))

    def neighbours(self, value: Any) -> list[Value]:
        changed = [
            (*value[:i], state, *value[i + 1 :])
            for i in range(self.layers)
            for state in self.states
            if not same(state, value[i])
        ]
        return [new for new in changed if self.contains(new)]

    def describe(self) -> str:
        return f"a path of {self.layers} layers that begins at " + " or ".join(map(repr, self.start))
