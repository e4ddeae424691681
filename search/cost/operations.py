"""What a searchable network computes, part by part: which parts any architecture is made of, found by tracing.

A network of one architecture is built narrow on the meta device and run there once, see `search.cost.trace`. Over several
architectures, modules fall in three kinds:

- *fixed*: runs in every architecture and always does the same work (a stem, a classifier);
- *operation*: what the architecture decides: the innermost mixed operations, modules that only some architectures run (a block
  beyond a depth), and the smallest modules whose work differs (a convolution whose width is chosen);
- *split*: contains operations, so it is looked into.

Nothing is asked of the network but to be built by the building context, so every space is treated alike.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from search.cost.count import Cost, build_on_meta, count
from search.cost.offers import Candidates, Offer, Offering
from search.cost.trace import Call, dtype_of, trace
from search.space import Architecture, Choice, Space, Token, Value
from search.supernet import Fix, Pick, building, record

Build = Callable[[], nn.Module]
# draws after which a value with a wanted token is given up: only a walk can hide one so well
_DRAWS = 1000


@dataclass(frozen=True)
class Networks:
    """What builds a task's networks, where a plain `Build` doesn't say it all.

    `build`: the network, as the building context reads it. `derived`: the `Build` of one architecture's network, where it isn't
    the supernet's, such as one with fewer heads.
    """

    build: Build
    derived: Callable[[Architecture], Build] | None = None

    def __call__(self) -> nn.Module:
        """The network as the building context reads it."""
        return self.build()


def narrow(build: Build, architecture: Mapping[str, Any], pick: Pick | None = None) -> nn.Module:
    """The network of one architecture, read by `Fix` or another `pick`. ValueError where it is of another space."""
    if isinstance(build, Networks):
        build = build.build if build.derived is None else build.derived(Architecture(architecture))
    with building(pick or Fix(architecture)):
        return build()


def cost_of(build: Build, architecture: Mapping[str, Any], input_size: Sequence[int]) -> Cost:
    """What the whole network of one architecture costs, counted. ValueError where it is of another space."""
    return count(lambda: narrow(build, architecture), tuple(input_size))


def trace_architecture(build: Build, architecture: Mapping[str, Any], input_size: Sequence[int], batch_size: int = 1) -> Call:
    """The call of one architecture's network on images [batch_size, *input_size]. ValueError for one of another space."""
    return traced(build, architecture, input_size, batch_size)[2]


def traced(
    build: Build, architecture: Mapping[str, Any], input_size: Sequence[int], batch_size: int = 1
) -> tuple[nn.Module, Offering, Call]:
    """The network of an architecture on the meta device, the pick that built it, and its call (see `trace_architecture`)."""
    pick = Offering(Architecture(architecture))
    model = build_on_meta(lambda: narrow(build, architecture, pick))
    return model, pick, trace(model, torch.empty(batch_size, *input_size, device="meta", dtype=dtype_of(model)))


@dataclass(frozen=True)
class Division:
    """How a space's networks divide: `fixed` modules with their work, and `split` ones that are looked into."""

    fixed: Mapping[str, str]
    split: frozenset[str]

    @classmethod
    def of(cls, networks: Sequence[Call]) -> Division:
        """The division that tells these networks apart."""
        works: dict[str, set[str]] = {}
        times: dict[str, int] = {}
        for call in _all(networks):
            works.setdefault(call.path, set()).add(call.work)
            times[call.path] = times.get(call.path, 0) + 1
        fixed: dict[str, str] = {}
        split: set[str] = set()

        def divide(call: Call) -> None:
            if len(works[call.path]) == 1 and times[call.path] == len(networks):
                fixed[call.path] = call.work
            # what holds a choice is looked into even where few networks show it at work
            elif (len(works[call.path]) > 1 or call.holds_mixed()) and not call.is_innermost():
                split.add(call.path)
                for inner in call.calls:
                    divide(inner)

        for network in networks:
            divide(network)
        return cls(fixed, frozenset(split))

    def operations(self, network: Call) -> list[Call]:
        """The operations of a network, in the order of their calls.

        Raises ValueError where a fixed module does other work than it did, or isn't there.
        """
        met: set[str] = set()

        def found(call: Call) -> Iterator[Call]:
            if call.path in self.fixed:
                if call.work != self.fixed[call.path]:
                    raise ValueError(f"its {_named(call.path)} does other work (other sizes or settings)")
                met.add(call.path)
            elif call.path in self.split and not call.is_innermost():
                for inner in call.calls:
                    yield from found(inner)
            else:
                yield call

        operations = list(found(network))
        if missing := sorted(set(self.fixed) - met):
            raise ValueError(f"it has no {_named(missing[0])}")
        return operations


def _named(path: str) -> str:
    return f"module {path!r}" if path else "network as a whole"


def _all(calls: Iterable[Call]) -> Iterator[Call]:
    for call in calls:
        yield call
        yield from _all(call.calls)


@dataclass(frozen=True)
class Survey:
    """The spaces of a network's searchable modules, by part, traced architectures that hold every option, and by work what else
    choices of operations offer in places that these architectures have."""

    spaces: Mapping[str, Space]
    networks: Mapping[Architecture, Call]
    offers: Mapping[str, Offer] = field(default_factory=dict)

    @property
    def division(self) -> Division:
        """How these networks divide."""
        return Division.of(list(self.networks.values()))


def survey(
    build: Build, input_size: Sequence[int], *, batch_size: int = 1, seed: int = 0, quiet: int = 10, most: int = 400
) -> Survey:
    """Trace random architectures until `quiet` in a row show no new work, then ones that hold the options not yet seen.

    There are at most `most` random ones. Raises ValueError for a model without a searchable module.
    """
    recorded = record(build)
    space, rng = recorded.space, random.Random(f"survey {seed}")
    networks: dict[Architecture, Call] = {}
    works: set[str] = set()
    seen: set[tuple[str, Token]] = set()
    offers: dict[str, Offer] = {}
    candidates = Candidates()

    def add(architecture: Architecture) -> bool:
        """Trace it; whether anything in it is new."""
        before = len(works)
        if architecture not in networks:
            model, pick, network = traced(build, architecture, input_size, batch_size)
            networks[architecture] = network
            for call in network.innermost():
                works.add(call.work)
                for offer in candidates.offers(pick, model, call):
                    works.add(offer.work)
                    offers.setdefault(offer.work, offer)
            seen.update((name, token) for name, value in architecture.items() for token in space[name].tokens(value))
        return len(works) > before

    silent = 0
    while silent < quiet and len(networks) < most:
        silent = 0 if add(space.sample(rng)) else silent + 1
    for choice in space:
        for token in all_tokens(choice):
            if (choice.name, token) not in seen:
                add(containing(space, choice.name, token, rng))
    return Survey(recorded.parts, networks, offers)


def all_tokens(choice: Choice) -> list[Token]:
    """Every token that a value of the choice can have."""
    found: dict[Token, None] = {}
    reached: dict[Any, None] = {None: None}
    for step in range(choice.length):
        following = [pair for local in reached for pair in choice.follow(step, local)]
        found.update((token, None) for token, _ in following if token is not None and choice.step_of(token) is not None)
        reached = {local: None for _, local in following}
    return list(found)


def containing(space: Space, name: str, token: Token, rng: random.Random) -> Architecture:
    """An architecture with this token; what the choice depends on is chosen so, all else at random."""
    wanted = {name: token}
    for choice in reversed(list(space)):
        if choice.name in wanted and choice.when:
            parent, needed = rng.choice(choice.when)
            wanted.setdefault(parent, needed)
    found: dict[str, Value] = {}
    for choice in space:
        if space.is_active(choice, found):
            found[choice.name] = _value(choice, wanted.get(choice.name), rng)
    return Architecture(found)


def _value(choice: Choice, token: Token | None, rng: random.Random) -> Value:
    value = choice.at(rng.randrange(choice.count))
    for _ in range(_DRAWS if token is not None else 0):
        if token in choice.tokens(value):
            break
        value = choice.at(rng.randrange(choice.count))
    return value
