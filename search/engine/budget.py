"""What a found network may cost: ``budget = dict(macs=300e6, params=5e6, activations=11e6, latency=20.0, table='T.json')``.

Counted is the whole network of an architecture (backbone, neck and heads) as it is fed in validation, by the one function that
summaries and ``tools/cost.py`` use, of one image; latency is predicted from a table of ``tools/latency.py``, so that it is the
same on every machine. Activations (`search.cost.count`) are a number of numbers, or their memory in float32: ``'44MB'``.
"""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from search.cost.latency_table import LatencyTable
from search.cost.latency_table import load as load_table
from search.cost.operations import Networks, cost_of
from search.cost.planner import parse_bytes, say_bytes
from search.space import Architecture, Space
from search.strategies.within import NothingWithin

from .config import load as load_config
from .errors import BudgetError, UserError, whole_number
from .networks import networks_of
from .run import adapter_of

METRICS = {"macs": "multiply-adds", "params": "parameters", "activations": "activations", "latency": "ms"}
# of an activation, float32
_BYTES = 4
# draws in a row that may be over the budget
TRIES = 500


@dataclass(frozen=True)
class Settings:
    """A config's ``budget``, checked. ``limits`` by metric; ``weight`` and ``rate``: of the penalty, see `budgeted_search`."""

    limits: Mapping[str, float]
    table: str | None = None
    input_size: tuple[int, ...] | None = None
    weight: float = 0.1
    rate: float = 0.1


def refuse_penalty(cfg: Mapping[str, Any]) -> None:
    """Raises UserError for settings of the penalty in the budget of a strategy that has no gradients."""
    for key in {"weight", "rate"} & set(cfg.get("budget") or {}):
        raise UserError(
            f"budget.{key} is of the penalty in a search by gradients, which {cfg['strategy']['type']} doesn't have: "
            "leave it out."
        )


def settings_of(given: Mapping[str, Any]) -> Settings:
    """The settings of a config's ``budget``. UserError for values that can't be, or that would be of no effect."""
    if not isinstance(given, Mapping):
        raise UserError(f"budget={given!r} must be a group such as dict(macs=300e6, params=5e6).")
    given = dict(given)
    if isinstance(given.get("activations"), str):
        given["activations"] = _activations(given["activations"])
    limits = {metric: _number(metric, given[metric]) for metric in METRICS if given.get(metric) is not None}
    if not limits:
        raise UserError(f"budget limits nothing: give one or more of {', '.join(METRICS)}, or leave it out.")
    table = given.get("table")
    if "latency" in limits and table is None:
        raise UserError(
            "budget.latency needs the latencies of this device: make a table with tools/latency.py, give budget.table."
        )
    if table is not None and "latency" not in limits:
        raise UserError(
            f"budget.table={str(table)!r} is of no use without budget.latency: give that too, or leave out the table."
        )
    size = given.get("input_size")
    if size is not None:
        if not isinstance(size, list | tuple) or len(size) != 3:
            raise UserError(f"budget.input_size={size!r} must be three numbers: channels, height, width.")
        size = tuple(whole_number("budget.input_size", n) for n in size)
    weight = _number("weight", given.get("weight", Settings.weight))
    return Settings(
        limits, None if table is None else str(table), size, weight, _number("rate", given.get("rate", Settings.rate), 0)
    )


def _activations(memory: str) -> float:
    try:
        return parse_bytes(memory) / _BYTES
    except ValueError as error:
        raise UserError(f"budget.activations={error}; or a number of activations, such as 11e6.") from error


def _number(name: str, value: Any, least: float = math.ulp(0.0)) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < math.inf:
        raise UserError(f"budget.{name}={value!r} must be a number {'above 0' if least else 'of at least 0'}.")
    return float(value)


@dataclass
class Budget:
    """Limits on the whole networks of a space, and what its architectures cost.

    ``networks`` and ``spaces`` (by part): of the config; ``input_size``: (C, H, W) of an image, which the settings may replace.
    Raises ValueError for a table that isn't one, is of another space or of other images.
    """

    settings: Settings
    networks: Networks
    spaces: Mapping[str, Space]
    input_size: tuple[int, ...]
    table: LatencyTable | None = None
    _counted: dict[Architecture, dict[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.input_size = self.settings.input_size or tuple(self.input_size)
        if self.settings.table is None:
            return
        self.table = load_table(self.settings.table)
        self.table.require_spaces(self.spaces)
        if self.table.input_size != self.input_size:
            raise UserError(
                f"{self.settings.table} is of images of {size_text(self.table.input_size)}, the networks are counted at "
                f"{size_text(self.input_size)}: measure a table with --shape {' '.join(map(str, self.input_size))}."
            )

    @property
    def limits(self) -> Mapping[str, float]:
        """By metric."""
        return self.settings.limits

    def figures(self, architecture: Architecture) -> dict[str, float]:
        """Parameters, multiply-adds, activations and, with a table, milliseconds of an architecture's whole network."""
        if architecture not in self._counted:
            cost = cost_of(self.networks, architecture, self.input_size)
            found: dict[str, float] = {"macs": cost.macs, "params": cost.params, "activations": cost.activations}
            if self.table is not None:
                found["latency"] = self.table.predict(self.networks, architecture)
            self._counted[architecture] = found
        return self._counted[architecture]

    def summary(self, architecture: Architecture) -> dict[str, Any]:
        """What a summary says of it: by metric limit and figure of the network found, the input size, the table."""
        found = self.figures(architecture)
        conditions = None
        if self.table is not None:
            conditions = {"file": self.table.source, **vars(self.table.conditions), "batch_size": self.table.batch_size}
        return {
            "limits": {metric: {"limit": limit, "derived": found[metric]} for metric, limit in self.limits.items()},
            "input_size": list(self.input_size),
            "table": conditions,
        }

    def within(self, architecture: Architecture) -> bool:
        """Whether a network is within every limit."""
        found = self.figures(architecture)
        return all(found[metric] <= limit for metric, limit in self.limits.items())

    def nothing(self, error: NothingWithin) -> BudgetError:
        """What is said where no draw is within."""
        smallest = {metric: min(self.figures(one)[metric] for one in error.refused) for metric in self.limits}
        limits = " and ".join(f"budget.{metric}={number_text(metric, limit)}" for metric, limit in self.limits.items())
        found = ", ".join(number_text(metric, value) for metric, value in smallest.items())
        return BudgetError(
            f"{limits} can't be met by drawing: none of {len(error.refused)} architectures is within; the smallest found "
            f"{'is' if len(smallest) == 1 else 'are'} {found}."
        )


def budget_of(work_dir: Path, spaces: Mapping[str, Space]) -> Budget:
    """The budget of a finished search with one, as its resolved config and its summary say it."""
    cfg = load_config(work_dir / "config.py")
    size = json.loads((work_dir / "summary.json").read_text())["budget"]["input_size"]
    return Budget(settings_of(cfg.budget), networks_of(cfg.model, adapter_of(cfg)), spaces, tuple(size))


@contextmanager
def budget_is_the_users(budget: Budget | None) -> Iterator[None]:
    """Turns draws none of which is within the budget, made inside the block, into a `BudgetError`."""
    try:
        yield
    except NothingWithin as error:
        assert budget is not None
        raise budget.nothing(error) from error


def number_text(metric: str, value: float) -> str:
    """A figure with its unit; of activations their memory too."""
    if metric == "latency":
        return f"{value:.6g} ms"
    memory = f" ({say_bytes(_BYTES * value)} in float32)" if metric == "activations" else ""
    return f"{value:,.0f} {METRICS[metric]}{memory}"


def size_text(size: tuple[int, ...]) -> str:
    """(C, H, W) as 3x128x192."""
    return "x".join(map(str, size))
