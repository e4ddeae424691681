"""Latencies of a space's operations on one device, the file that holds them, and what they predict for whole networks.

A network's predicted latency is *rest* + the sum of its operations' medians (ProxylessNAS, arXiv 1812.00332, section 3.3;
FBNet, 1812.03443, section 3.2). Operations are measured alone, each distinct piece of work once (see `operations`). The rest is
everything else: the fixed modules, what lies between modules, and what an operation costs less or more inside a network than
alone. It is estimated on a few random networks, as the median of measured minus summed latency. Work of a split module's own
that depends on the architecture is in it on average only.

    {"format": "visnas-latency", "version": 1, "unit": "ms", "batch_size": 1, "input_size": [C, H, W], "seed": 0,
     "conditions": {"device", "threads", "dtype", "clock", "torch_version"}, "spaces": {"backbone": {...}},
     "fixed": {path: work}, "split": [path],
     "rest": {"median", "iqr", "runs", "warmup", "networks"},
     "operations": {work: {"name", "shapes", "places", "median", "iqr", "runs", "warmup"}}}

The spaces travel with the table, so that a table of another space can be refused by naming what differs. A space doesn't say
how wide a network is or what surrounds the choices; the works of the fixed modules and of the operations do.
"""

from __future__ import annotations

import json
import math
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from search.cost.latency import UNIT, Clock, Conditions, Latency, Timed, Timing, time_modules
from search.cost.operations import Build, Division, Survey, narrow, trace_architecture
from search.cost.trace import Call, dtype_of
from search.space import Space
from search.space.files import write_atomically

FORMAT = "visnas-latency"
VERSION = 1


@dataclass(frozen=True)
class Operation:
    """A distinct piece of work: its option's or class's name, the shapes it is given, every place it has, its latency."""

    name: str
    shapes: tuple[tuple[int, ...], ...]
    places: tuple[str, ...]
    latency: Latency


@dataclass(frozen=True)
class LatencyTable:
    """Latencies of one space's operations on one device, in milliseconds. See the file's description.

    `operations` by work; `rest` over `networks` random networks, its `iqr` their spread.
    """

    conditions: Conditions
    batch_size: int
    input_size: tuple[int, ...]
    seed: int
    spaces: Mapping[str, Space]
    division: Division
    operations: Mapping[str, Operation]
    rest: Latency
    networks: int
    source: str = "the table"

    def predict(self, build: Build, architecture: Mapping[str, Any]) -> float:
        """Milliseconds of one architecture's network, which is traced on the meta device and not run.

        Raises ValueError for an architecture of another space, and for a network whose fixed modules or operations are not
        those of the table.
        """
        return self.predict_call(trace_architecture(build, architecture, self.input_size, self.batch_size))

    def predict_call(self, network: Call) -> float:
        """`predict` of a traced network."""
        return self.rest.median + sum(operation.latency.median for operation in self.operations_of(network))

    def operations_of(self, network: Call) -> list[Operation]:
        """The operations that a traced network runs. Raises ValueError as `predict` does."""
        return [self.operation(call.work, call.place, call.shapes) for call in self.calls_of(network)]

    def calls_of(self, network: Call) -> list[Call]:
        """The calls of these operations. Raises ValueError where a fixed module isn't the table's."""
        try:
            return self.division.operations(network)
        except ValueError as error:
            raise ValueError(f"{self.source} was not made for this network: {error}; make a table of this config") from None

    def operation(self, work: str, place: str, shapes: Sequence[Sequence[int]]) -> Operation:
        """The entry of a piece of work. Raises ValueError, naming its place and the shapes it is given, where there is none."""
        if work not in self.operations:
            raise ValueError(
                f"{self.source} has no entry for {place} on {list(shapes)}: it was made for other sizes or settings, "
                "or saw too few architectures; make a table of this config"
            )
        return self.operations[work]

    def require_spaces(self, spaces: Mapping[str, Space]) -> None:
        """Raise ValueError, naming the first difference, where a network has other spaces than the table."""
        for part in sorted({*spaces, *self.spaces}):
            if part not in spaces or part not in self.spaces:
                owner = "the table" if part in self.spaces else "the network"
                raise ValueError(f"{self.source} is of another space: part {part!r} is in {owner} only")
            mine, theirs = self.spaces[part], spaces[part]
            if mine.fingerprint != theirs.fingerprint:
                difference = mine.difference(theirs, here="the table", there="the network")
                raise ValueError(f"{self.source} is of another space: in part {part!r} {difference}")

    def to_json(self) -> dict[str, Any]:
        """Plain values, in the file's format."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "unit": UNIT,
            "conditions": asdict(self.conditions),
            "batch_size": self.batch_size,
            "input_size": list(self.input_size),
            "seed": self.seed,
            "spaces": {part: space.to_json() for part, space in self.spaces.items()},
            "fixed": dict(self.division.fixed),
            "split": sorted(self.division.split),
            "rest": {**asdict(self.rest), "networks": self.networks},
            "operations": {
                work: {"name": o.name, "shapes": o.shapes, "places": o.places, **asdict(o.latency)}
                for work, o in self.operations.items()
            },
        }


def save(path: str | os.PathLike[str], table: LatencyTable) -> None:
    """Write the file whole or not at all. OSError from the disk is passed on."""
    write_atomically(path, (json.dumps(table.to_json(), indent=1, sort_keys=True, allow_nan=False) + "\n").encode())


def load(path: str | os.PathLike[str]) -> LatencyTable:
    """Read a table.

    Raises ValueError, in a sentence that names the file, when it is missing, not JSON, of another format, version or unit, or
    damaged.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"there is no latency table {path}") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} can't be read as JSON: {error}") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ValueError(f"{path} is not a latency table: its format must be {FORMAT!r}")
    if data.get("version") != VERSION:
        raise ValueError(f"{path} has version {data.get('version')!r}, but this visnas reads version {VERSION}: make it again")
    if data.get("unit") != UNIT:
        raise ValueError(f"{path} has latencies in {data.get('unit')!r}, not in {UNIT!r}: make it again")
    try:
        return _read(data, str(path))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {type(error).__name__}: {error}") from None


def _read(data: Mapping[str, Any], source: str) -> LatencyTable:
    rest = dict(data["rest"])
    networks = rest.pop("networks")
    operations = {}
    for work, row in data["operations"].items():
        row = dict(row)
        name, places = str(row.pop("name")), tuple(map(str, row.pop("places")))
        shapes = tuple(tuple(map(int, shape)) for shape in row.pop("shapes"))
        operations[str(work)] = Operation(name, shapes, places, _latency(row))
    return LatencyTable(
        conditions=Conditions(**data["conditions"]),
        batch_size=int(data["batch_size"]),
        input_size=tuple(map(int, data["input_size"])),
        seed=int(data["seed"]),
        spaces={part: Space.from_json(space) for part, space in data["spaces"].items()},
        division=Division(dict(data["fixed"]), frozenset(data["split"])),
        operations=operations,
        rest=_latency(rest),
        networks=int(networks),
        source=source,
    )


def _latency(row: Mapping[str, Any]) -> Latency:
    latency = Latency(**row)
    for name, value in row.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{name} is {value!r}, which is no number")
    return latency


def measure_table(
    build: Build,
    found: Survey,
    input_size: Sequence[int],
    *,
    batch_size: int = 1,
    device: torch.device | None = None,
    timing: Timing | None = None,
    rest_networks: int = 8,
    seed: int = 0,
    clock: Clock | None = None,
) -> LatencyTable:
    """Measure every operation of a survey, and the rest on the first `rest_networks` of its architectures, which are random.

    Networks and operations are measured in the same rounds. Inputs are random numbers from `seed`; weights are as `build` makes
    them. ValueError for fewer than 1 network.
    """
    if rest_networks < 1:
        raise ValueError(f"rest_networks={rest_networks}: the rest is estimated on at least 1 network")
    device, timing = device or torch.device("cpu"), timing or Timing()
    division = found.division
    generator = torch.Generator().manual_seed(seed)
    calls = {architecture: division.operations(network) for architecture, network in found.networks.items()}
    whole = list(calls)[:rest_networks]
    modules: list[Timed] = []
    works: dict[str, Call] = {}
    places: dict[str, dict[str, None]] = {}
    dtype = torch.get_default_dtype()
    for architecture, operations in calls.items():
        for call in operations:
            places.setdefault(call.work, {})[call.place] = None
        fresh = {call.work: call for call in operations if call.work not in works}
        if fresh:
            model = narrow(build, architecture).to(device)
            dtype = dtype_of(model)
            for call in fresh.values():
                module = model.get_submodule(call.path.partition("#")[0])
                modules.append((module, _real(call.args, device, generator), _real(dict(call.kwargs), device, generator)))
            works |= fresh
    # options that none of the networks has where they were offered
    for offer in found.offers.values():
        call = Call("", offer.option, offer.choice, offer.args, {}, offer.work)
        places.setdefault(call.work, {})[call.place] = None
        if call.work not in works:
            modules.append((offer.make().to(device, dtype), _real(offer.args, device, generator), {}))
            works[call.work] = call
    for architecture in whole:
        images = torch.randn(batch_size, *input_size, generator=generator, dtype=dtype).to(device)
        modules.append((narrow(build, architecture).to(device), (images,), {}))
    latencies = [Latency.of(s, timing.warmup) for s in time_modules(modules, device, timing, clock)]
    medians = {work: latency.median for work, latency in zip(works, latencies, strict=False)}
    rests = [
        latency.median - sum(medians[call.work] for call in calls[architecture])
        for architecture, latency in zip(whole, latencies[len(works) :], strict=True)
    ]
    return LatencyTable(
        conditions=Conditions.here(device, dtype, timing.clock),
        batch_size=batch_size,
        input_size=tuple(input_size),
        seed=seed,
        spaces=found.spaces,
        division=division,
        operations={
            work: Operation(call.option, tuple(map(tuple, call.shapes)), tuple(places[work]), latency)
            for (work, call), latency in zip(works.items(), latencies, strict=False)
        },
        rest=_rest(rests, latencies[-1]),
        networks=len(whole),
    )


def _rest(rests: Sequence[float], like: Latency) -> Latency:
    spread = Latency.of(rests, like.warmup).iqr if len(rests) > 1 else 0.0
    return Latency(statistics.median(rests), spread, like.runs, like.warmup)


def _real(value: Any, device: torch.device, generator: torch.Generator) -> Any:
    """Random numbers (zeros where they aren't floating-point) in place of meta tensors, however deep."""
    if isinstance(value, Tensor):
        if not value.is_floating_point():
            return torch.zeros(value.shape, dtype=value.dtype, device=device)
        return torch.randn(value.shape, generator=generator, dtype=value.dtype).to(device)
    if isinstance(value, list | tuple):
        return type(value)(_real(item, device, generator) for item in value)
    if isinstance(value, dict):
        return {key: _real(item, device, generator) for key, item in value.items()}
    return value
