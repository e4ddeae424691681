"""What a choice of operations offers in a place of a narrow network: every option built, and run on the shapes that it is given
there.

So one network tells of all options in all the places that it has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from search.cost.count import build_on_meta, count_params
from search.cost.trace import Call, trace
from search.space import OneOf, Option
from search.supernet import Fix, MixedOp
from search.supernet.pick import Factory


class Offering(Fix):
    """`Fix`, which keeps what the choices of operations offer: by mixed operation its choice and what makes each option."""

    def __init__(self, architecture: Mapping[str, Any]) -> None:
        super().__init__(architecture)
        self.offered: dict[nn.Module, tuple[OneOf, Mapping[str, Factory]]] = {}

    def _op(self, choice: OneOf, candidates: Mapping[str, Factory]) -> MixedOp | None:
        made: MixedOp | None = super()._op(choice, candidates)
        if made is not None:
            self.offered[made] = choice, candidates
        return made

    def innermost(self, module: nn.Module) -> bool:
        """Whether a module is one of these operations, without another one inside."""
        return module in self.offered and not any(isinstance(m, MixedOp) for m in module.modules() if m is not module)


@dataclass(frozen=True)
class Candidate:
    """One option in one place: its parameters and, if it runs there, its multiply-adds, activations and work (see `Call`)."""

    params: int
    macs: int
    activations: int
    work: str


@dataclass(frozen=True)
class Offer:
    """One option in one place: what makes it, the meta tensors that it is given, its work."""

    choice: str
    option: str
    make: Factory
    args: tuple[Any, ...]
    work: str


class Candidates:
    """What options cost, by choice and shapes; each is built once where an option does equal work in several places."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], list[dict[Option, Candidate]]] = {}

    def __call__(self, pick: Offering, op: MixedOp, call: Call | None) -> dict[Option, Candidate]:
        """Each option that can be decoded in the place of an innermost operation, which `call` runs (None: it isn't run)."""
        choice, factories = pick.offered[op]
        (chosen,) = op.ops
        tables = self._known.setdefault((choice.name, "" if call is None else str(call.shapes)), [])
        own = _candidate(op.only, call)
        for table in tables:
            if table[chosen] == own:
                return table
        made: dict[Option, Candidate] = {}
        for option in choice.decodable:
            if option == chosen:
                made[option] = own
                continue
            module = build_on_meta(factories[str(option)])
            made[option] = _candidate(module, None if call is None else trace(module, *call.args))
        tables.append(made)
        return made

    def offers(self, pick: Offering, model: nn.Module, call: Call) -> Iterator[Offer]:
        """What a call's choice offers in its place; nothing where the call isn't of an innermost operation."""
        op = model.get_submodule(call.path.partition("#")[0])
        if pick.innermost(op):
            assert isinstance(op, MixedOp)
            choice, factories = pick.offered[op]
            for option, candidate in self(pick, op, call).items() if choice.count > 1 else ():
                yield Offer(choice.name, str(option), factories[str(option)], call.args, candidate.work)


def _candidate(module: nn.Module, run: Call | None) -> Candidate:
    params = count_params(module)
    return Candidate(params, 0, 0, "") if run is None else Candidate(params, run.macs, run.activations, run.work)
