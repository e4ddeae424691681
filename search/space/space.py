"""A search space: named choices in order, as a plain immutable value."""

import hashlib
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from functools import cached_property
from typing import Any

from search.space.architecture import Architecture
from search.space.choice import Choice, OneOf, Option, Ordinal, Value, frozen, position
from search.space.ranking import Ranking, groups
from search.space.structured import SomeOf, Walk


class Space:
    """What may be chosen. `when` of a choice names earlier choices only.

    Its architectures are the *canonical* ones: a value for every active choice and for no other. `size`, `at`
    and `sample` count and draw exactly these. Raises ValueError for a name used twice, and for a `when` that
    names a later or unknown choice, or an option which that choice does not have.
    """

    def __init__(self, name: str, choices: Sequence[Choice]) -> None:
        self.name = name
        self._choices: dict[str, Choice] = {}
        for choice in choices:
            if choice.name in self._choices:
                raise ValueError(f"space {name!r} has two choices named {choice.name!r}")
            for parent, token in choice.when:
                if parent not in self._choices:
                    raise ValueError(f"choice {choice.name!r} depends on {parent!r}, which is no earlier choice")
                if self._choices[parent].step_of(token) is None:
                    raise ValueError(f"choice {choice.name!r} depends on {token!r} of {parent!r}, which has no such option")
            self._choices[choice.name] = choice

    def __iter__(self) -> Iterator[Choice]:
        return iter(self._choices.values())

    def __len__(self) -> int:
        return len(self._choices)

    def __getitem__(self, name: str) -> Choice:
        return self._choices[name]

    def __contains__(self, name: object) -> bool:
        return name in self._choices

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Space):
            return NotImplemented
        return self.name == other.name and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash((self.name, self.fingerprint))

    def __repr__(self) -> str:
        return f"Space({self.name!r}, {len(self)} choices, {self.size:,} architectures)"

    @cached_property
    def _rankings(self) -> list[Ranking]:
        return [Ranking(group) for group in groups(list(self))]

    @cached_property
    def size(self) -> int:
        """The number of architectures, exactly."""
        size = 1
        for ranking in self._rankings:
            size *= ranking.size
        return size

    def at(self, index: int) -> Architecture:
        """The architecture numbered `index`, 0 <= index < size; every architecture has exactly one number."""
        if not 0 <= index < self.size:
            raise ValueError(f"no architecture has number {index}: the space has {self.size:,}")
        found: dict[str, Value] = {}
        for ranking in self._rankings:
            index, part = divmod(index, ranking.size)
            found.update(ranking.at(part))
        return Architecture({name: found[name] for name in self._choices if name in found})

    def sample(self, rng: random.Random) -> Architecture:
        """An architecture drawn uniformly from all of them."""
        return self.at(rng.randrange(self.size))

    def enumerate(self) -> Iterator[Architecture]:
        """Every architecture once, by number."""
        return (self.at(index) for index in range(self.size))

    def is_active(self, choice: Choice, earlier: Mapping[str, Any]) -> bool:
        """Whether the values of earlier choices (active ones only) activate this choice."""
        return not choice.when or any(
            parent in earlier and position(self[parent].tokens(earlier[parent]), token) is not None
            for parent, token in choice.when
        )

    def active(self, choices: Mapping[str, Any]) -> tuple[str, ...]:
        """The names of the choices these values make active, in order.

        Raises ValueError where an active choice has no value, or one that is not allowed.
        """
        return tuple(self._active_values(choices))

    def _active_values(self, choices: Mapping[str, Any]) -> dict[str, Value]:
        found: dict[str, Value] = {}
        for choice in self:
            if self.is_active(choice, found):
                self._check_given(choice, choices)
                value = choice.normal(choices[choice.name])
                self._check_value(choice, value)
                found[choice.name] = value
        return found

    def _check_given(self, choice: Choice, choices: Mapping[str, Any]) -> None:
        if choice.name not in choices:
            raise ValueError(f"choice {choice.name!r} is active, but has no value; give {choice.describe()}")

    def _check_value(self, choice: Choice, value: object) -> None:
        if not choice.contains(value):
            raise ValueError(f"choice {choice.name!r} is {value!r}, but must be {choice.describe()}")

    def check(self, architecture: Mapping[str, Any]) -> None:
        """Raise ValueError naming the first choice that keeps this from being one of the architectures."""
        found: dict[str, Value] = {}
        for choice in self:
            if self.is_active(choice, found):
                self._check_given(choice, architecture)
                self._check_value(choice, architecture[choice.name])
                found[choice.name] = architecture[choice.name]
            elif choice.name in architecture:
                raise ValueError(f"choice {choice.name!r} has a value, but what it depends on was not chosen")
        self._check_names(architecture)

    def _check_names(self, names: Mapping[str, Any]) -> None:
        for name in names:
            if name not in self._choices:
                raise ValueError(f"space {self.name!r} has no choice named {name!r}")

    def contains(self, architecture: Mapping[str, Any]) -> bool:
        """Whether this is an architecture of the space."""
        try:
            self.check(architecture)
        except ValueError:
            return False
        return True

    def canonical(self, choices: Mapping[str, Any]) -> Architecture:
        """The architecture these values stand for: inactive choices dropped, subsets put in option order.

        Raises ValueError for an unknown name, a value that is not allowed, and an active choice without
        value.
        """
        self._check_names(choices)
        return Architecture(self._active_values(choices))

    def neighbours(self, architecture: Mapping[str, Any], rng: random.Random) -> list[Architecture]:
        """The architectures one small step away: one choice differs among those active in both.

        Choices that the step makes active get a value from `rng`, each uniformly among its own values.
        """
        self.check(architecture)
        return [
            self._filled({**architecture, name: value}, rng)
            for name in architecture
            for value in self[name].neighbours(architecture[name])
        ]

    def _filled(self, choices: Mapping[str, Any], rng: random.Random) -> Architecture:
        found: dict[str, Any] = {}
        for choice in self:
            if self.is_active(choice, found):
                kept = choice.name in choices
                found[choice.name] = choices[choice.name] if kept else choice.at(rng.randrange(choice.count))
        return Architecture(found)

    def restrict(self, kept: Mapping[str, Sequence[Option] | Mapping[str, Any]]) -> "Space":
        """The sub-space that keeps only these options, for a stage of a search.

        kept: for each restricted choice its remaining options, or a mapping of new arguments, such as
        {"k": 1}. Options stay in their order. A choice that nothing can activate any more is dropped. Every
        architecture of the result is one of this space; ValueError where that would not hold.
        """
        self._check_names(dict(kept))
        found: dict[str, Choice] = {}
        for choice in self:
            new = _restricted(choice, kept[choice.name]) if choice.name in kept else choice
            when = tuple((p, t) for p, t in new.when if p in found and found[p].step_of(t) is not None)
            if when or not new.when:
                found[choice.name] = replace(new, when=when)
        return Space(self.name, list(found.values()))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hexadecimal) of the choices' canonical JSON, sorted by name; not of the space's name."""
        choices = sorted((choice.to_json() for choice in self), key=lambda choice: str(choice["name"]))
        return hashlib.sha256(json.dumps(choices, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Plain values: the name, and the choices in order."""
        return {"name": self.name, "choices": [choice.to_json() for choice in self]}

    @classmethod
    def from_json(cls, data: Any) -> "Space":
        """The space that `to_json` wrote (ValueError for anything else)."""
        if not isinstance(data, dict) or not isinstance(data.get("choices"), list):
            raise ValueError("a space must be a JSON object with its name and a list of choices")
        return cls(str(data.get("name", "")), [Choice.from_json(choice) for choice in data["choices"]])

    def difference(self, other: "Space", *, here: str = "this space", there: str = "the other") -> str | None:
        """A sentence on the first choice, by name, that differs; None when they have one fingerprint.

        here, there: what the sentence calls this space and the other one.
        """
        for name in sorted({*self._choices, *other._choices}):
            if name not in other or name not in self:
                return f"choice {name!r} is in {here if name in self else there} only"
            mine, theirs = self[name].to_json(), other[name].to_json()
            for key in sorted({*mine, *theirs}):
                a, b = mine.get(key), theirs.get(key)
                if json.dumps(a) != json.dumps(b):
                    return f"choice {name!r} has {key} {a!r} in {here}, but {b!r} in {there}"
        return None


def _restricted(choice: Choice, kept: Sequence[Option] | Mapping[str, Any]) -> Choice:
    """The choice with fewer options (ValueError where it would gain some or lose all)."""
    names = {field.name for field in fields(choice)} - {"name", "when"}
    changes = dict(kept) if isinstance(kept, Mapping) else {"options": kept}
    for key in changes:
        if key not in names:
            raise ValueError(f"choice {choice.name!r} cannot be restricted by {key!r}; it has {', '.join(sorted(names))}")
    if isinstance(choice, OneOf | SomeOf | Ordinal):
        options = frozen(changes.get("options", choice.options))
        for option in options:
            if position(choice.options, option) is None:
                raise ValueError(f"choice {choice.name!r} has no option {option!r} to keep")
        changes["options"] = tuple(option for option in choice.options if position(options, option) is not None)
    if isinstance(choice, OneOf) and "relax_only" not in changes:
        changes["relax_only"] = tuple(o for o in choice.relax_only if position(changes["options"], o) is not None)
    new: Choice = replace(choice, **changes)
    if isinstance(choice, OneOf) and isinstance(new, OneOf):
        inside = all(choice.contains(option) for option in new.decodable)
    elif isinstance(choice, SomeOf) and isinstance(new, SomeOf):
        inside = choice.bounds[0] <= new.bounds[0] and new.bounds[1] <= choice.bounds[1]
    elif isinstance(choice, Walk) and isinstance(new, Walk):
        inside = (
            new.layers == choice.layers
            and all(position(choice.start, state) is not None for state in new.start)
            and all(position(choice.after(a), b) is not None for a, following in new.moves for b in following)
        )
    else:
        inside = isinstance(choice, Ordinal) or new == choice
    if not inside:
        raise ValueError(f"choice {choice.name!r} cannot become {new!r}: it has values that {choice!r} lacks")
    return new
