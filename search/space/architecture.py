"""An architecture: which option each choice has."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from search.space.choice import Value, frozen


class Architecture(Mapping[str, Value]):
    """An immutable mapping from choice name to value, equal and hashed by content in any order.

    Lists are turned into tuples, so that what JSON gives back equals what was written. Anything but strings,
    finite numbers, booleans and tuples of them raises ValueError.
    """

    def __init__(self, choices: Mapping[str, Any]) -> None:
        self._choices: dict[str, Value] = {name: frozen(value) for name, value in choices.items()}
        for name, value in self._choices.items():
            if not isinstance(name, str):
                raise ValueError(f"an architecture's names are strings, not {name!r}")
            for item in value if isinstance(value, tuple) else (value,):
                if not isinstance(item, str | int | float) or (isinstance(item, float) and not math.isfinite(item)):
                    raise ValueError(f"choice {name!r} holds {item!r}, which is not a string, number or boolean")

    def __getitem__(self, name: str) -> Value:
        return self._choices[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._choices)

    def __len__(self) -> int:
        return len(self._choices)

    def __eq__(self, other: object) -> bool:
        return self._choices == other._choices if isinstance(other, Architecture) else NotImplemented

    def __hash__(self) -> int:
        return hash(frozenset(self._choices.items()))

    def __repr__(self) -> str:
        return f"Architecture({self._choices!r})"

    def diff(self, other: "Architecture") -> str:
        """A line for each value that differs, '-' for this one and '+' for the other; empty when equal."""
        lines = []
        for name in sorted({*self, *other}):
            if name in self and name in other and self[name] == other[name]:
                continue
            if name in self:
                lines.append(f"- {name}: {self[name]!r}")
            if name in other:
                lines.append(f"+ {name}: {other[name]!r}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Plain values, names sorted, tuples as lists."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in sorted(self._choices.items())}

    @classmethod
    def from_json(cls, data: Any) -> "Architecture":
        """The architecture that `to_json` wrote (ValueError for anything else)."""
        if not isinstance(data, dict):
            raise ValueError(f"an architecture's choices must be a JSON object, not {data!r}")
        return cls(data)
