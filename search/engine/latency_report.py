"""What tools/latency.py says of its measurements: how predictions agree with them, and its reports as tables."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from search.cost.guidelines import GUIDELINES
from search.engine.correlation import rank_correlations, spearman, words


def agreement(predicted: Sequence[float], measured: Sequence[float], halves: Sequence[Sequence[float]], seed: int) -> dict:
    """Rank correlations with bootstrap intervals over networks, and mean errors."""
    p, m = np.asarray(predicted), np.asarray(measured)
    found: dict[str, Any] = dict(rank_correlations(predicted, measured, seed))
    found["spearman_of_halves"] = spearman(*halves)
    found["mean_absolute_percentage_error"] = float(100 * np.mean(np.abs(p - m) / m))
    found["mean_percentage_error"] = float(100 * np.mean((p - m) / m))
    return found


def show(command: str, report: dict) -> None:
    """Print what a command of the tool reports."""
    _SHOWN[command](report)


def _where(report: Mapping[str, Any]) -> str:
    """How a report's figures were taken, in a line."""
    threads = f"{report['threads']} thread{'s' * (report['threads'] > 1)}"
    return f"{report['device']}, {threads}, {report['dtype']}, torch {report['torch_version']}, {report['clock']} clock"


def _rows(columns: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> None:
    """A table whose first column is text and the others numbers."""
    lines = Table()
    for i, column in enumerate(columns):
        lines.add_column(column, justify="right" if i else "left", overflow="fold")
    for row in rows:
        lines.add_row(*row)
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(lines)
    console.print(caption, highlight=False, markup=False)


def _measure(report: dict) -> None:
    """One line."""
    print(f"{report['model']}: {report['median']:.3f} ms (IQR {report['iqr']:.3f}, {report['runs']} samples)")
    print(f"batch of {report['batch_size']}, input {report['input_size']}; {_where(report)}")


def _table(report: dict) -> None:
    """The ten slowest operations, and the rest."""
    slowest = sorted(report["operations"].values(), key=lambda row: -row["median"])[:10]
    rows = [
        [row["name"], _shapes(row), str(len(row["places"])), f"{row['median']:.3f}", f"{row['iqr']:.3f}"] for row in slowest
    ]
    rest = report["rest"]
    _rows(
        ("slowest operations", "input", "places", "ms", "IQR"),
        rows,
        f"{report['table']}: {len(report['operations'])} operations from {report['traced']} traced architectures; rest "
        f"{rest['median']:.3f} ms (IQR {rest['iqr']:.3f} over {rest['networks']} networks); {_where(report['conditions'])}",
    )


def _shapes(row: Mapping[str, Any]) -> str:
    return ", ".join("x".join(map(str, shape)) for shape in row["shapes"])


def _predict(report: dict) -> None:
    """A line for each file."""
    for row in report["predictions"]:
        print(f"{row['arch']}: {row['predicted']:.3f} ms")


def _check(report: dict) -> None:
    """Every pair, then how they agree."""
    rows = [
        [str(i), f"{row['predicted']:.3f}", f"{row['measured']:.3f}", f"{row['iqr']:.3f}"]
        for i, row in enumerate(report["networks"])
    ]
    said = [words(name, report[name]) for name in ("spearman", "kendall")]
    halves = report["spearman_of_halves"]
    said.append("" if halves is None else f"(of the measurement with itself, half against half: {halves:.3f})")
    errors = f"mean error {report['mean_absolute_percentage_error']:.1f} %, signed {report['mean_percentage_error']:+.1f} %"
    caption = f"{' '.join(said)}; 95 % bootstrap intervals over networks; {errors}; {_where(report)}"
    _rows(("network", "predicted ms", "measured ms", "IQR"), rows, caption)


def _guidelines(report: dict) -> None:
    """A row for each setting; a line for each claim."""
    rows = [
        [
            f"{row['guideline']} {row['setting']}",
            f"{row['macs'] / 1e6:.1f}",
            f"{row['median']:.3f}",
            f"{row['iqr']:.3f}",
            f"{row['images_per_second']:.1f}",
            f"{row['relative_speed']:.2f}",
        ]
        for row in report["rows"]
    ]
    claims = "\n".join(f"{guideline.name}: {guideline.claim}" for guideline in GUIDELINES)
    caption = f"relative: multiply-adds a second, the guideline's first setting being 1; {_where(report)}\n{claims}"
    _rows(("setting (channels)", "M MACs", "ms", "IQR", "images/s", "relative"), rows, caption)


_SHOWN = {"measure": _measure, "table": _table, "predict": _predict, "check": _check, "guidelines": _guidelines}
