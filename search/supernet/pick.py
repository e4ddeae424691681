"""One definition of a network, three readings.

A searchable module declares every decision it leaves open to a *pick* and is built wide (`Record`, `Relax`: every
alternative) or narrow (`Fix`: the chosen parts). mm registries build modules from configs and can't pass a Python object,
so a reading is entered as a context::

    with building(Relax(params)):
        model = MODELS.build(cfg)

Every choice is declared in every reading, also the ones an architecture leaves inactive, so each reading knows the whole
space and `Fix` can refuse an architecture of another one. A module uses its pick while it is built and never keeps it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from logging import getLogger
from typing import TYPE_CHECKING

import torch
from torch import nn

from search import space as sp
from search.supernet.mixed import Gates, MixedOp

if TYPE_CHECKING:
    from search.supernet.arch_params import ArchParams

Factory = Callable[[], nn.Module]
When = Sequence[tuple[str, sp.Option]]

_CURRENT: ContextVar[Pick | None] = ContextVar("pick", default=None)


class Pick:
    """What a searchable module asks while it is built: declares choices, hands out alternatives.

    `wide` tells the two kinds of build apart. In the wide build `option`, `value`, `subset`, `order` and `walk` return None:
    the module makes every alternative and reads its gate when it runs.
    """

    wide = True

    def __init__(self) -> None:
        self._choices: dict[str, dict[str, sp.Choice]] = {}
        self._part = "backbone"

    @contextmanager
    def part(self, name: str) -> Iterator[Pick]:
        """Choices declared inside belong to the searchable module called `name` (backbone, neck, head)."""
        outer, self._part = self._part, name
        try:
            yield self
        finally:
            self._part = outer

    @property
    def parts(self) -> dict[str, sp.Space]:
        """One space per searchable module, in the order of declaration."""
        return {part: sp.Space(part, tuple(choices.values())) for part, choices in self._choices.items()}

    @property
    def space(self) -> sp.Space:
        """The joint space of all parts. Raises ValueError if nothing searchable was built."""
        parts = self.parts
        if not parts:
            raise ValueError("the model has no searchable module: give its config one, such as type='search.CellNet'")
        if len(parts) == 1:
            return next(iter(parts.values()))
        return sp.Space("+".join(parts), tuple(choice for part in parts.values() for choice in part))

    def op(
        self,
        name: str,
        candidates: Mapping[str, Factory],
        *,
        when: When = (),
        relax_only: Iterable[str] = (),
        absent: bool = False,
    ) -> MixedOp | None:
        """One of several modules. `Fix` builds the chosen one only, and nothing (None) where `when` leaves it inactive.

        `absent`: the choice is declared only, as here there is nothing to operate on.
        """
        for option in candidates:
            if not isinstance(option, str) or not option or "." in option or hasattr(nn.ModuleDict, option):
                raise ValueError(
                    f"operation {option!r} of choice {name!r} can't name a module: take a text without dots that is no "
                    "attribute of torch modules, such as 'sep_conv_3x3'"
                )
        choice = sp.OneOf(name, tuple(candidates), when=tuple(when), relax_only=tuple(relax_only))
        self._declare(choice)
        return None if absent else self._op(choice, candidates)

    def option(self, name: str, options: Sequence[sp.Option], *, when: When = ()) -> sp.Option | None:
        """One of options that are no modules and have no order (an input, a merging operator)."""
        return self._plain(sp.OneOf(name, tuple(options), when=tuple(when)))

    def value(self, name: str, values: Sequence[sp.Option], *, when: When = ()) -> sp.Option | None:
        """One of ordered values (width, depth, kernel size)."""
        return self._plain(sp.Ordinal(name, tuple(values), when=tuple(when)))

    def subset(
        self, name: str, options: Sequence[sp.Option], k: int | tuple[int, int], *, when: When = ()
    ) -> tuple[sp.Option, ...] | None:
        """A subset of `k` options, or of `k[0]` to `k[1]`."""
        return self._plain(sp.SomeOf(name, tuple(options), k, when=tuple(when)))

    def order(self, name: str, items: Sequence[sp.Option], *, when: When = ()) -> tuple[sp.Option, ...] | None:
        """A permutation of `items`."""
        return self._plain(sp.Order(name, tuple(items), when=tuple(when)))

    def walk(
        self,
        name: str,
        layers: int,
        moves: Sequence[tuple[sp.Option, tuple[sp.Option, ...]]],
        start: Sequence[sp.Option],
        *,
        when: When = (),
    ) -> tuple[sp.Option, ...] | None:
        """A path of `layers` states, each reached from the one before by an allowed move."""
        return self._plain(sp.Walk(name, layers, tuple(moves), tuple(start), when=tuple(when)))

    def gates(self) -> Gates | None:
        """Where a wide module reads its gates when it runs; None in `Fix`."""
        return Gates()

    def _declare(self, choice: sp.Choice) -> None:
        if "." in choice.name:
            raise ValueError(f"choice {choice.name!r} has a dot in its name, which torch keeps for paths: use / instead")
        for part, choices in self._choices.items():
            known = choices.get(choice.name)
            if known is not None and part != self._part:
                raise ValueError(f"choice {choice.name!r} is declared by both {part} and {self._part}: rename one")
            if known is not None and known != choice:
                raise ValueError(f"choice {choice.name!r} is declared twice, unequally: {known} and {choice}")
        self._choices.setdefault(self._part, {})[choice.name] = choice

    def _op(self, choice: sp.OneOf, candidates: Mapping[str, Factory]) -> MixedOp | None:
        return MixedOp(choice.name, {option: make() for option, make in candidates.items()}, self.gates())

    def _plain(self, choice: sp.Choice):
        self._declare(choice)
        return None


class Record(Pick):
    """The wide build that lists the choices; made on the meta device it costs no memory. See `record`."""


class Relax(Pick):
    """The wide build with gates, of the options that `params.space` holds (a stage may have restricted them)."""

    def __init__(self, params: ArchParams) -> None:
        super().__init__()
        self._params = params

    def gates(self) -> Gates:
        """The gates of the architecture parameters."""
        return self._params.gates

    def _op(self, choice: sp.OneOf, candidates: Mapping[str, Factory]) -> MixedOp:
        space = self._params.space
        if choice.name not in space:
            raise ValueError(f"choice {choice.name!r} is not in the space that is searched ({space.name!r})")
        options = space[choice.name].options
        return MixedOp(choice.name, {option: candidates[option]() for option in options}, self.gates())

    def _plain(self, choice: sp.Choice) -> None:
        self._declare(choice)
        if choice.name not in self._params.space or self._params.space[choice.name] != choice:
            raise ValueError(
                f"choice {choice.name!r} of the module isn't the one that is searched: only the operations of a choice can "
                "be restricted while relaxed"
            )


class Fix(Pick):
    """The narrow build: what `architecture` chose, and no search code.

    `architecture` is an `Architecture`, a mapping of choices, or the path of an architecture file (whose part is then
    looked up by the name of the module's part). `close` raises ValueError when it is of another space.
    """

    wide = False

    def __init__(self, architecture: sp.Architecture | Mapping | str | os.PathLike) -> None:
        super().__init__()
        self._file = None
        if isinstance(architecture, (str, os.PathLike)):
            self._file = sp.load(architecture)
            self._chosen = {n: v for part in self._file.parts.values() for n, v in part.architecture.items()}
        else:
            self._chosen = dict(sp.Architecture(architecture))

    def gates(self) -> None:
        """None: nothing is gated."""
        return None

    def close(self) -> None:
        """Check that the architecture is one of the space that was just built, no choice missing and none left over."""
        if self._file is not None:
            for part, space in self.parts.items():
                self._file.require(part, space)
        else:
            self.space.check(sp.Architecture(self._chosen))

    def _option(self, choice: sp.Choice):
        if choice.name not in self._chosen and not choice.when:
            raise ValueError(
                f"the architecture doesn't say {choice.name!r}: it is of another space than this {self._part} "
                f"(its choices begin with {', '.join(sorted(map(repr, self._chosen))[:3])})"
            )
        value = self._chosen.get(choice.name)
        if value is not None and not choice.contains(value):
            raise ValueError(
                f"the architecture chooses {value!r} for {choice.name!r}, which this {self._part} doesn't offer: {choice}"
            )
        return value

    def _op(self, choice: sp.OneOf, candidates: Mapping[str, Factory]) -> MixedOp | None:
        option = self._option(choice)
        return None if option is None else MixedOp(choice.name, {option: candidates[option]()}, None)

    def _plain(self, choice: sp.Choice):
        self._declare(choice)
        return self._option(choice)


@contextmanager
def building(pick: Pick) -> Iterator[Pick]:
    """Searchable modules built inside are read by `pick`; a `Fix` is closed (checked) at the end."""
    token = _CURRENT.set(pick)
    try:
        yield pick
    finally:
        _CURRENT.reset(token)
    if isinstance(pick, Fix):
        pick.close()


@contextmanager
def reading(part: str, arch: sp.Architecture | Mapping | str | os.PathLike | None = None) -> Iterator[Pick]:
    """The pick a searchable module builds itself with: `Fix(arch)` when its config names one, else the context's.

    Raises RuntimeError where there is neither.
    """
    pick = Fix(arch) if arch is not None else _CURRENT.get()
    if pick is None:
        raise RuntimeError(
            f"this {part} is searchable: give it arch='architecture.json', or build it inside `with building(...)`"
        )
    with pick.part(part):
        yield pick
    if arch is not None:
        pick.close()


def record(build: Callable[[], nn.Module]) -> Record:
    """Build wide on the meta device and return what was declared (`.space`, `.parts`).

    Where a third-party module can't be built on the meta device it is built on the CPU, which is said in the log.
    """
    try:
        with torch.device("meta"), building(Record()) as pick:
            build()
    except (NotImplementedError, RuntimeError) as error:
        if "meta" not in str(error).lower():
            raise
        getLogger(__name__).warning("recording on the CPU, as a module refuses the meta device: %s", error)
        with building(Record()) as pick:
            build()
    return pick
