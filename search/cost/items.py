"""What a network's cost is made of, item by item, and what each item would cost with any other option of its choice.

One architecture's network is built narrow on the meta device and run there once. Where a mixed operation runs its one option,
the others are built too and run on the same shapes (`search.cost.offers`), so nothing of a family needs to be known.

Metrics: "macs" (multiply-adds) and "activations", as `search.cost.count` counts them, "params", and with a table "latency"
(milliseconds).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from search.cost.count import is_auxiliary
from search.cost.latency_table import LatencyTable
from search.cost.offers import Candidate, Candidates, Offering
from search.cost.operations import Build, traced
from search.cost.trace import Call, dtype_of, trace
from search.space import Option
from search.supernet import MixedOp


@dataclass(frozen=True)
class Item:
    """A part of what a network costs in one metric.

    `place` says where, `variant` how it is there (shapes, settings). With a `choice` what it costs depends on that choice's
    option, else it is the one amount of option None.
    """

    metric: str
    place: str
    variant: str
    choice: str | None
    amounts: tuple[tuple[Option | None, float], ...]

    def cost(self, architecture: Mapping[str, object]) -> float:
        """What it costs in an architecture that has it."""
        chosen = None if self.choice is None else architecture[self.choice]
        return next(amount for option, amount in self.amounts if option == chosen)


class Itemiser:
    """`itemise(architecture)`: the items of its network at `input_size` (C, H, W), with latencies where there is a table.

    Raises ValueError as the table does, for a network that isn't of its space, its sizes or its settings.
    """

    def __init__(self, build: Build, input_size: Sequence[int], table: LatencyTable | None = None) -> None:
        self.build, self.input_size, self.table = build, tuple(input_size), table
        self.candidates = Candidates()

    def __call__(self, architecture: Mapping[str, object]) -> list[Item]:
        """All that cost anything, each once."""
        found = _Network(self, *traced(self.build, architecture, self.input_size))
        run = (item for metric in ("macs", "activations") for item in found.run(metric, found.network))
        items = [*run, *found.params(found.model, ""), *found.latency()]
        return [item for item in dict.fromkeys(items) if any(amount for _, amount in item.amounts)]


class _Network:
    """One narrow network, taken apart."""

    def __init__(self, owner: Itemiser, model: nn.Module, pick: Offering, network: Call) -> None:
        self.owner, self.model, self.pick, self.network = owner, model, pick, network
        self.calls = {call.path: call for call in _all(network)}

    def _options(self, module: nn.Module, call: Call | None) -> dict[Option, Candidate] | None:
        """What the options of an operation would cost here; None for other modules."""
        if not self.pick.innermost(module):
            return None
        assert isinstance(module, MixedOp)
        return self.owner.candidates(self.pick, module, call)

    def run(self, metric: str, call: Call) -> Iterator[Item]:
        """By calls, multiply-adds or activations: innermost ones, and what the others do between those inside."""
        module = self.model.get_submodule(call.path.partition("#")[0])
        if is_auxiliary(module):
            return
        options = self._options(module, call)
        if options is not None:
            amounts = tuple((option, float(getattr(known, metric))) for option, known in options.items())
            yield Item(metric, call.path, str(call.shapes), call.choice, amounts)
        elif call.is_innermost():
            yield _fixed(metric, call.path, call.work, getattr(call, metric))
        else:
            own = getattr(call, metric) - sum(getattr(inner, metric) for inner in call.calls)
            yield _fixed(metric, call.path, f"{own} of its own", own)
            for inner in call.calls:
                yield from self.run(metric, inner)

    def params(self, module: nn.Module, path: str, seen: set[int] | None = None) -> Iterator[Item]:
        """By modules; a parameter that several share is its first owner's."""
        seen = set() if seen is None else seen
        if is_auxiliary(module):
            return
        options = self._options(module, self.calls.get(path))
        if options is not None and not seen.intersection(map(id, module.parameters())):
            seen.update(map(id, module.parameters()))
            amounts = tuple((option, float(known.params)) for option, known in options.items())
            yield Item("params", path, "", getattr(module, "choice", None), amounts)
            return
        own = [p for p in module.parameters(recurse=False) if id(p) not in seen]
        seen.update(map(id, own))
        yield _fixed("params", path, str([tuple(p.shape) for p in own]), sum(p.numel() for p in own))
        for name, child in module.named_children():
            yield from self.params(child, f"{path}.{name}" if path else name, seen)

    def latency(self) -> Iterator[Item]:
        """By the table's operations, with its rest."""
        table = self.owner.table
        if table is None:
            return
        network, size = self.network, table.batch_size
        if size != 1:
            network = trace(self.model, torch.empty(size, *self.owner.input_size, device="meta", dtype=dtype_of(self.model)))
        yield _fixed("latency", "rest", "", table.rest.median)
        for call in table.calls_of(network):
            options = self._options(self.model.get_submodule(call.path.partition("#")[0]), call)
            if options is None:
                yield _fixed(
                    "latency", call.path, call.work, table.operation(call.work, call.place, call.shapes).latency.median
                )
                continue
            amounts = tuple(
                (option, table.operation(known.work, f"{call.choice}={option}", call.shapes).latency.median)
                for option, known in options.items()
            )
            yield Item("latency", call.path, str(call.shapes), call.choice, amounts)


def _fixed(metric: str, place: str, variant: str, amount: float) -> Item:
    return Item(metric, place, variant, None, ((None, float(amount)),))


def _all(call: Call) -> Iterator[Call]:
    yield call
    for inner in call.calls:
        yield from _all(inner)
