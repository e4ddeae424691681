"""A comparison printed: every run's value, then groups, then tests."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table


def show(result: Mapping[str, Any], console: Console) -> None:
    """Print the content of ``compare.json``: all runs, mean and standard deviation of groups, and the verdicts."""
    runs = Table(title="Every network, trained from scratch")
    for name in ("group", "seed", "params (M)", "MACs (M)", "validation", "test", "search s", "training s"):
        runs.add_column(name, justify="left" if name == "group" else "right")
    for row in result["runs"]:
        numbers = (row["params"] / 1e6, row["macs"] / 1e6)
        seconds = (row["search_seconds"], row["train_seconds"])
        runs.add_row(
            row["group"],
            str(row["seed"]),
            *(f"{number:.3f}" for number in numbers),
            *(_score(row[key]) for key in ("validation", "test")),
            *(f"{value:.0f}" for value in seconds),
        )
    console.print(runs)
    reference = next(iter(result["groups"]))
    # a GPU's time counts where one was used, not that of the processor beside it
    device = "gpu" if any(group["search_gpu_hours"] for group in result["groups"].values()) else "cpu"
    spent = {name: group[f"search_{device}_hours"] for name, group in result["groups"].items()}
    groups = Table(title=f"Groups: test scores; {device.upper()}-hours of a search, and their ratio to those of {reference}")
    for name in ("group", "n", "mean", "std", "of the best on validation", "search + training s", f"search {device.upper()}-h"):
        groups.add_column(name, justify="left" if name == "group" else "right")
    for name, group in result["groups"].items():
        selected = group.get("selected", {}).get("test")
        groups.add_row(
            name,
            str(group["n"]),
            *(_score(value) for value in (group["mean"], group["std"], selected)),
            f"{group['seconds']:.0f}",
            f"{spent[name]:.3g} ({spent[name] / spent[reference]:.2f})" if spent[name] and spent[reference] else "-",
        )
    console.print(groups)
    if result["tests"]:
        tests = Table(title="Exact Mann-Whitney tests, two-sided")
        for name in ("first", "second", "U", "p", "the first is"):
            tests.add_column(name, justify="right" if name in ("U", "p") else "left")
        for test in result["tests"]:
            tests.add_row(test["a"], test["b"], *_numbers(test), test["verdict"])
        console.print(tests)


def _numbers(test: Mapping[str, Any]) -> tuple[str, str]:
    return ("-", "-") if test["p"] is None else (f"{test['u']:g}", f"{test['p']:.3g}")


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
