"""An architecture as a vector of fixed length, for predictors and plots.

An inactive choice is all zeros. Different architectures have different vectors.

    OneOf    one entry for each option that can be decoded: 1 for the chosen one
    Ordinal  one entry for each option: 1 up to and including the chosen one, so close options have close vectors
    SomeOf   one entry for each option: 1 for the chosen ones; one more, always 1, where a subset may be empty
    Order    n x n entries, by place: 1 for the item in that place
    Walk     layers x states entries: 1 for the state of each layer
"""

from collections.abc import Mapping
from typing import Any

from search.space.choice import Choice, OneOf, Ordinal, position
from search.space.space import Space
from search.space.structured import Order, SomeOf, Walk


def width(space: Space) -> int:
    """The length of the vectors of a space."""
    return sum(_width(choice) for choice in space)


def encode(space: Space, architecture: Mapping[str, Any]) -> list[float]:
    """The vector of an architecture (ValueError when it is not one of the space)."""
    space.check(architecture)
    vector: list[float] = []
    for choice in space:
        active = choice.name in architecture
        vector += _entries(choice, architecture[choice.name]) if active else [0.0] * _width(choice)
    return vector


def _width(choice: Choice) -> int:
    if isinstance(choice, SomeOf):
        return len(choice.options) + (choice.bounds[0] == 0)
    if isinstance(choice, Order):
        return len(choice.items) ** 2
    if isinstance(choice, Walk):
        return choice.layers * len(choice.states)
    assert isinstance(choice, OneOf | Ordinal), choice
    return len(choice.decodable)


def _entries(choice: Choice, value: Any) -> list[float]:
    if isinstance(choice, SomeOf):
        return [float(position(value, option) is not None) for option in choice.options] + [1.0] * (choice.bounds[0] == 0)
    if isinstance(choice, Order):
        return [float(position(choice.items, item) == i) for item in value for i in range(len(choice.items))]
    if isinstance(choice, Walk):
        return [float(position(choice.states, state) == i) for state in value for i in range(len(choice.states))]
    assert isinstance(choice, OneOf | Ordinal), choice
    chosen = position(choice.decodable, value)
    assert chosen is not None, value
    if isinstance(choice, Ordinal):
        return [float(i <= chosen) for i in range(len(choice.options))]
    return [float(i == chosen) for i in range(len(choice.decodable))]
