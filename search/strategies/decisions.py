"""An architecture as a sequence of decisions, each among few tokens: what a controller emits one by one.

Choices are read in the space's order, inactive ones never. A choice is one decision (`OneOf`, `Ordinal`) or one for each
element: a subset's options in their order, then that there are no more; an order's items from the first place on; a walk's
states layer by layer. Every architecture is exactly one sequence. Where a single token is allowed nothing is decided.
"""

import functools
import math
from collections.abc import Generator, Sequence
from typing import Any, NamedTuple

from search.space import Architecture, Choice, OneOf, Order, Ordinal, SomeOf, Space, Value, Walk
from search.space.choice import position

# the token after a subset's last option
_END = object()


class Decision(NamedTuple):
    """What may be decided next.

    ``first``: the row of its first token in a table of all tokens of the space, the others follow; ``ways``: for each of them
    how many values of the choice go on with it, 0 where it isn't allowed.
    """

    first: int
    ways: tuple[int, ...]

    @property
    def only(self) -> int | None:
        """The number of the one token that is allowed; None where there are several."""
        allowed = [i for i, ways in enumerate(self.ways) if ways]
        return allowed[0] if len(allowed) == 1 else None


class Decisions:
    """The decisions of a space. ``size``: how many tokens there are in all; every place of a sequence has its own."""

    def __init__(self, space: Space) -> None:
        self.space, self.size = space, 0
        # counted again and again
        self._decision = functools.lru_cache(maxsize=10_000)(self._counted)
        self._first: dict[str, int] = {}
        for choice in space:
            self._first[choice.name] = self.size
            self.size += _places(choice) * len(_tokens(choice))

    def make(self) -> Generator[Decision, int, Architecture]:
        """Makes an architecture: gives decisions, is sent the number of an allowed token for each."""
        found: dict[str, Value] = {}
        for choice in self.space:
            if self.space.is_active(choice, found):
                tokens, made = _tokens(choice), list[Any]()
                while not _whole(choice, made):
                    decision = self._decision(choice.name, tuple(made))
                    made.append(tokens[decision.only if decision.only is not None else (yield decision)])
                found[choice.name] = made[0] if isinstance(choice, OneOf | Ordinal) else tuple(x for x in made if x is not _END)
        return Architecture(found)

    def of(self, architecture: Architecture) -> list[tuple[Decision, int]]:
        """The decisions that make an architecture of the space, and what each decides."""
        taken = []
        for choice in self.space:
            if choice.name not in architecture:
                continue
            value, tokens = architecture[choice.name], _tokens(choice)
            elements = [*value, _END] if isinstance(value, tuple) else [value]
            for number, element in enumerate(elements):
                if _whole(choice, elements[:number]):
                    break
                decision, index = self._decision(choice.name, tuple(elements[:number])), position(tokens, element)
                assert index is not None and decision.ways[index], (choice, value)
                if decision.only is None:
                    taken.append((decision, index))
        return taken

    def _counted(self, name: str, made: tuple[Any, ...]) -> Decision:
        choice = self.space[name]
        first = self._first[name] + len(made) * len(_tokens(choice))
        return Decision(first, tuple(_ways(choice, made, token) for token in _tokens(choice)))


def _tokens(choice: Choice) -> tuple[Any, ...]:
    if isinstance(choice, SomeOf):
        return (*choice.options, _END)
    if isinstance(choice, Order):
        return choice.items
    if isinstance(choice, Walk):
        return choice.states
    assert isinstance(choice, OneOf | Ordinal), choice
    return choice.decodable


def _places(choice: Choice) -> int:
    """The most tokens that a value is made of."""
    if isinstance(choice, SomeOf):
        return choice.bounds[1] + 1
    if isinstance(choice, Order):
        return len(choice.items)
    return choice.layers if isinstance(choice, Walk) else 1


def _whole(choice: Choice, made: Sequence[Any]) -> bool:
    return (bool(made) and made[-1] is _END) if isinstance(choice, SomeOf) else len(made) == _places(choice)


def _ways(choice: Choice, made: Sequence[Any], token: Any) -> int:
    """How many values of the choice begin with ``made`` and then ``token``."""
    if isinstance(choice, SomeOf):
        fewest, most = choice.bounds
        held = len(made)
        if token is _END:
            return int(fewest <= held)
        place = position(choice.options, token)
        last = position(choice.options, made[-1]) if made else -1
        assert place is not None and last is not None
        left = len(choice.options) - place - 1
        return sum(math.comb(left, more) for more in range(max(0, fewest - held - 1), most - held)) if place > last else 0
    if isinstance(choice, Order):
        return math.factorial(len(choice.items) - len(made) - 1) if position(made, token) is None else 0
    if isinstance(choice, Walk):
        allowed = choice.after(made[-1]) if made else choice.start
        return _paths(choice, len(made))[position(choice.states, token) or 0] if position(allowed, token) is not None else 0
    return 1


def _paths(walk: Walk, layer: int) -> list[int]:
    """For each state of a layer the number of paths that go on from it."""
    ways = [1] * len(walk.states)
    for _ in range(walk.layers - 1 - layer):
        ways = [sum(ways[position(walk.states, after) or 0] for after in walk.after(state)) for state in walk.states]
    return ways
