"""The kinds of choice a space is made of. Each is a small immutable value that checks itself when made.

Words used in this folder:
    option   a JSON scalar (str, int, float or bool)
    value    what an architecture holds for a choice: an option, or a tuple of options (see each class)
    token    what another choice's `when` may name: an option, (layer, state) for a walk, (place, item) for an order
"""
# ruff: noqa: D102 -- the methods of each kind are documented once, in Choice

import math
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, ClassVar

Option = str | int | float | bool
Token = Option | tuple[int, Option]
Value = Option | tuple[Option, ...]
When = tuple[tuple[str, Token], ...]


def frozen(value: Any) -> Any:
    """The value with every list in it, however deep, as a tuple (JSON knows only lists)."""
    return tuple(frozen(v) for v in value) if isinstance(value, list | tuple) else value


def same(a: object, b: object) -> bool:
    """Equal and of one type, so that True is not 1; tuples are compared item by item."""
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and a == b


def position(options: Sequence[Any], value: object) -> int | None:
    """The index of the option that is `same` as value, or None."""
    return next((i for i, option in enumerate(options) if same(option, value)), None)


@dataclass(frozen=True)
class Choice(ABC):
    """What every kind of choice answers.

    `when` lists (earlier choice, token) pairs, any of which activates this choice; without pairs it always
    is active. `Space` counts without listing values, so a choice is also read in `length` steps:
    `follow(step, local)` gives the (token or None, next local state) that may follow, and `build` makes the
    value of one token a step.
    """

    name: str
    when: When = field(default=(), kw_only=True)
    kinds: ClassVar[dict[str, type["Choice"]]] = {}

    def __init_subclass__(cls) -> None:
        if not cls.__name__.startswith("_"):
            Choice.kinds[cls.__name__] = cls

    def __post_init__(self) -> None:
        """Turn lists into tuples, then check the arguments (ValueError)."""
        for one in fields(self):
            object.__setattr__(self, one.name, frozen(getattr(self, one.name)))
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"a choice's name must be a non-empty string, not {self.name!r}")
        if not isinstance(self.when, tuple):
            raise ValueError(f"choice {self.name!r}: `when` must be a list of (choice, option), not {self.when!r}")
        for pair in self.when:
            if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str)):
                raise ValueError(f"choice {self.name!r}: `when` holds {pair!r}, which is not (choice name, option)")
        self._check()

    def _refuse(self, reason: str) -> ValueError:
        return ValueError(f"choice {self.name!r}: {reason}")

    def _check_options(self, what: str, options: object) -> None:
        if not isinstance(options, tuple) or not options:
            raise self._refuse(f"{what} must list at least one option, not {options!r}")
        for i, option in enumerate(options):
            if not isinstance(option, str | int | float) or (isinstance(option, float) and not math.isfinite(option)):
                raise self._refuse(f"{what} holds {option!r}; options are strings, finite numbers or booleans")
            if option in options[:i]:
                raise self._refuse(f"{what} holds {option!r} twice")

    @abstractmethod
    def _check(self) -> None: ...

    @property
    @abstractmethod
    def count(self) -> int:
        """How many values can be decoded."""

    @abstractmethod
    def at(self, index: int) -> Value:
        """The value numbered `index`, 0 <= index < count. Every value has exactly one number."""

    @abstractmethod
    def contains(self, value: object) -> bool:
        """Whether this is a value that can be decoded (tuples in this choice's own order)."""

    @abstractmethod
    def neighbours(self, value: Any) -> list[Value]:
        """The values one small step away: see each class for what a step is."""

    @abstractmethod
    def tokens(self, value: Any) -> tuple[Token, ...]:
        """What this value activates, for the `when` of later choices."""

    @abstractmethod
    def step_of(self, token: object) -> int | None:
        """The step at which this token is decided, or None when the choice has no such token."""

    @property
    @abstractmethod
    def length(self) -> int:
        """The number of steps."""

    @abstractmethod
    def follow(self, step: int, local: Hashable) -> Iterable[tuple[Token | None, Hashable]]:
        """What may follow at this step; `local` is None at step 0."""

    @abstractmethod
    def build(self, tokens: Sequence[Token | None]) -> Value:
        """The value made of one token (or None) for each step."""

    @abstractmethod
    def describe(self) -> str:
        """The allowed values in words, for messages."""

    def normal(self, value: Any) -> Any:
        """The value as this choice writes it (lists as tuples); unchanged where it is no value."""
        return frozen(value)

    def values(self) -> Iterator[Value]:
        """Every value that can be decoded, by number."""
        return (self.at(i) for i in range(self.count))

    def to_json(self) -> dict[str, Any]:
        """Plain values; an empty `when` is left out."""
        parts = {one.name: getattr(self, one.name) for one in fields(self)}
        if not self.when:
            del parts["when"]
        return {"kind": type(self).__name__, **{k: _plain(v) for k, v in parts.items()}}

    @staticmethod
    def from_json(data: Any) -> "Choice":
        """The choice that `to_json` wrote (ValueError for anything else)."""
        if not isinstance(data, dict) or data.get("kind") not in Choice.kinds:
            raise ValueError(f"{data!r} is not a choice; its kind must be one of {', '.join(Choice.kinds)}")
        kind = Choice.kinds[data["kind"]]
        try:
            return kind(**{key: value for key, value in data.items() if key != "kind"})
        except TypeError as error:
            raise ValueError(f"choice {data.get('name')!r} is not a {data['kind']}: {error}") from None


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, tuple) else value


class _Single(Choice):
    """A choice of one option: one step."""

    @property
    @abstractmethod
    def decodable(self) -> tuple[Option, ...]:
        """The options an architecture may hold."""

    @property
    def count(self) -> int:
        return len(self.decodable)

    def at(self, index: int) -> Value:
        return self.decodable[index]

    def contains(self, value: object) -> bool:
        return position(self.decodable, value) is not None

    def tokens(self, value: Any) -> tuple[Token, ...]:
        return (value,)

    @property
    def length(self) -> int:
        return 1

    def follow(self, step: int, local: Hashable) -> Iterable[tuple[Token | None, Hashable]]:
        return ((option, None) for option in self.decodable)

    def build(self, tokens: Sequence[Token | None]) -> Value:
        (token,) = tokens
        assert token is not None and not isinstance(token, tuple)
        return token

    def describe(self) -> str:
        return "one of " + ", ".join(map(repr, self.decodable))


@dataclass(frozen=True)
class OneOf(_Single):
    """One of the options, such as an operation. Value: the option.

    `relax_only` options (such as 'none') exist in a relaxation but are never sampled, decoded or accepted.
    A small step: any other option.
    """

    options: tuple[Option, ...]
    relax_only: tuple[Option, ...] = field(default=(), kw_only=True)

    def _check(self) -> None:
        self._check_options("options", self.options)
        if self.relax_only:
            self._check_options("relax_only", self.relax_only)
        for option in self.relax_only:
            if position(self.options, option) is None:
                raise self._refuse(f"relax_only names {option!r}, which is not among its options")
        if not self.decodable:
            raise self._refuse("every option is relax_only, so nothing could be chosen")

    @cached_property
    def decodable(self) -> tuple[Option, ...]:
        return tuple(option for option in self.options if position(self.relax_only, option) is None)

    def step_of(self, token: object) -> int | None:
        return None if position(self.options, token) is None else 0

    def neighbours(self, value: Any) -> list[Value]:
        return [option for option in self.decodable if not same(option, value)]


@dataclass(frozen=True)
class Ordinal(_Single):
    """One of ordered options, such as widths. Value: the option. A small step: the next one up or down."""

    options: tuple[Option, ...]

    def _check(self) -> None:
        self._check_options("options", self.options)

    @property
    def decodable(self) -> tuple[Option, ...]:
        return self.options

    def step_of(self, token: object) -> int | None:
        return None if position(self.options, token) is None else 0

    def neighbours(self, value: Any) -> list[Value]:
        i = position(self.options, value)
        return [] if i is None else [self.options[j] for j in (i - 1, i + 1) if 0 <= j < len(self.options)]
