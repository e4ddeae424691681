"""Spaces whose every architecture was trained once: strategies are judged on them without training a network.

Adding one: give a ``Space`` and a mapping of each of its architectures to its measurements
(``nas_bench_macro`` is an example of 10 lines), then draw ``regret_curve`` for a strategy on it
(``tools/regret.py``).
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from search.space import Architecture, OneOf, Space
from search.strategies.random_search import Exhausted


class AskTell(Protocol):
    """A sampling strategy: propose an architecture, learn its score (higher is better)."""

    def ask(self) -> Architecture:
        """The next architecture to measure; ``Exhausted`` when there is none."""

    def tell(self, architecture: Architecture, score: float) -> None:
        """Learn a score."""


class Table:
    """Measurements of architectures of one space, by name.

    ``rows`` maps each architecture to its measurements. ValueError when one isn't of the space, or when there
    are none.
    """

    def __init__(self, space: Space, rows: Mapping[Architecture, Mapping[str, float]]):
        if not rows:
            raise ValueError(f"The table of {space.name!r} has no rows.")
        for architecture in rows:
            space.check(architecture)
        self.space = space
        self.rows = dict(rows)

    def score(self, architecture: Architecture, key: str) -> float:
        """One measurement. ValueError when the table doesn't hold it."""
        row = self.rows.get(architecture)
        if row is None:
            raise ValueError(f"The table of {self.space.name!r} has no row for {dict(architecture)}.")
        if key not in row:
            raise ValueError(f"The table of {self.space.name!r} has no {key!r}; it has {', '.join(sorted(row))}.")
        return row[key]

    def best(self, key: str) -> float:
        """The highest measurement of that name in the table."""
        return max(self.score(architecture, key) for architecture in self.rows)


def best_curve(strategy: AskTell, score: Callable[[Architecture], float], evaluations: int) -> list[float]:
    """After each evaluation, the score of the best architecture found so far.

    The strategy is told the scores. Shorter than ``evaluations`` only when the strategy has asked for everything.
    """
    if evaluations < 1:
        raise ValueError(f"evaluations={evaluations}: at least one architecture has to be looked up.")
    best, curve = float("-inf"), []
    for _ in range(evaluations):
        try:
            architecture = strategy.ask()
        except Exhausted:
            break
        value = score(architecture)
        strategy.tell(architecture, value)
        best = max(best, value)
        curve.append(best)
    return curve


def regret_curve(strategy: AskTell, table: Table, key: str, evaluations: int) -> list[float]:
    """After each evaluation, how far the best architecture found so far is below the table's best, in
    ``key``'s unit; otherwise as `best_curve`, the score being ``key``.
    """
    optimum = table.best(key)
    return [optimum - best for best in best_curve(strategy, lambda a: table.score(a, key), evaluations)]


def nas_bench_macro(path: str | Path) -> Table:
    """NAS-Bench-Macro on CIFAR-10: all 3^8 networks of 8 layers, each identity (0) or one of two inverted
    residuals (1, 2).

    Source: X. Su et al., "Prioritized Architecture Sampling with Monto-Carlo Tree Search", arXiv 2103.11922;
    the file ``nas-bench-macro_cifar10.json`` of xiusu/NAS-Bench-Macro. Columns: ``mean_acc`` (test accuracy
    in percent, mean of three trainings), ``acc0``, ``acc1``, ``acc2``, ``std``, ``params``, ``flops``.
    """
    try:
        data = json.loads(Path(path).read_text())
    except OSError as error:
        raise ValueError(f"{path} can't be read ({error.strerror}); give the NAS-Bench-Macro JSON file.") from error
    except ValueError as error:
        raise ValueError(f"{path} isn't a JSON file ({error}); give the NAS-Bench-Macro JSON file.") from error
    layers = [f"layer{i}" for i in range(8)]
    space = Space("nas_bench_macro", [OneOf(layer, (0, 1, 2)) for layer in layers])
    rows = {}
    try:
        for code, entry in data.items():
            architecture = Architecture(dict(zip(layers, map(int, code), strict=True)))
            accuracies = {f"acc{i}": accuracy for i, accuracy in enumerate(entry["test_acc"])}
            rows[architecture] = accuracies | {key: entry[key] for key in ("mean_acc", "std", "params", "flops")}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} isn't NAS-Bench-Macro's table of 8-digit codes: {type(error).__name__} {error}") from error
    return Table(space, rows)
