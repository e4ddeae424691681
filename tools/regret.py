"""Sampling strategies judged without training: python tools/regret.py nas-bench-macro_cifar10.json | pyramid."""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":
    # the folder of this script comes first on the path, where search.py would hide the package of that name
    sys.path[0] = str(Path(__file__).resolve().parents[1])

if TYPE_CHECKING:
    from search.space import Architecture, Space
    from search.strategies import AskTell

EPILOG = """NAS-Bench-Macro's JSON file (nas-bench-macro_cifar10.json): regret is the table's best accuracy minus the best one
found so far, in percentage points. 'pyramid': NAS-FPN's space of seven merging cells, each scored by a formula for how
information flows from every input level to every output level, less the cells' cost (`information_flow` in this file). Every
strategy but random search is tested against it at the last evaluation (exact two-sided Mann-Whitney). Exit codes: 0, or 2 for
a mistake in the options or the file."""
# settings for a few hundred evaluations; the strategies' own defaults are the papers', for many thousands
SETTINGS: dict[str, dict[str, Any]] = {
    "random": {},
    "evolution": {"population": 20, "sample": 5},
    "ppo": {"lr": 0.003, "batch": 10, "entropy": 0.01},
}
PYRAMID = "pyramid"

# the formula's numbers
DOWN, UP = 0.8, 0.6  # kept of a map that is brought one level down in resolution, or up
CELL = 0.95  # kept by a cell's convolution
GATED = 0.5  # kept of what an attention's gate multiplies: the mean of a sigmoid
WANTED = 0.5  # worth of an input level to an output level, for each level between them
COST = 2.0  # points for a convolution on the finest level


def information_flow(steps: Sequence[tuple[int, str, Sequence[int], Sequence[int]]], levels: Sequence[int]) -> float:
    """How well the steps of a pyramid (`backbones.merging_cell.Step`: level, operation, inputs, added) inform its outputs.

    Every feature holds a share of each input level, 1 of itself in an input. A cell averages what it merges: each operand's
    shares times ``DOWN`` or ``UP`` for each level that it is resampled by, divided by the number of operands. In an attention
    the operand that attends is pooled over all of its map, so that its distance doesn't matter, and the other one is kept by
    ``GATED``. Then ``CELL``. An output is worth the mean over the input levels of the square roots of its shares, weighted by
    ``WANTED`` to the power of the levels between: the first share of a level counts most. The score is 100 times the outputs'
    mean, minus ``COST`` for every cell, a quarter of it with each level.
    """
    features = [(level, [float(level == other) for other in levels]) for level in levels]
    cost = 0.0
    for level, op, inputs, added in steps:
        operands = (*inputs, *added)
        shares = [0.0] * len(levels)
        for place, feature in enumerate(operands):
            of, held = features[feature]
            kept = DOWN ** max(0, level - of) * UP ** max(0, of - level)
            if op == "attention" and place < 2:
                kept = 1.0 if place == 0 else kept * GATED
            shares = [a + CELL * kept * b / len(operands) for a, b in zip(shares, held, strict=True)]
        features.append((level, shares))
        cost += COST / 4 ** (level - levels[0])
    worths = []
    for level, shares in features[-len(levels) :]:
        weights = [WANTED ** abs(level - other) for other in levels]
        worths.append(sum(w * share**0.5 for w, share in zip(weights, shares, strict=True)) / sum(weights))
    return 100 * sum(worths) / len(worths) - cost


@dataclass(frozen=True)
class Target:
    """What is searched: a space, a score for each of its architectures, and the best score where it is known."""

    name: str
    space: "Space"
    score: "Callable[[Architecture], float]"
    what: str
    best: float | None = None


def pyramid() -> Target:
    """NAS-FPN's space with its formula."""
    from backbones.nas_fpn import NASFPN
    from search.supernet import record

    space = record(lambda: NASFPN(in_channels=(1, 1, 1), channels=1, repeats=1)).space
    return Target(PYRAMID, space, lambda architecture: information_flow(steps_of(architecture), LEVELS), "information flow")


LEVELS = (3, 4, 5, 6, 7)


def steps_of(architecture: "Mapping[str, Any]") -> Any:
    """What the cells of one of NASFPN's architectures do."""
    from backbones.merging_cell import VARIANTS, wire
    from backbones.nas_fpn import cells_of

    return wire(cells_of(architecture), LEVELS, VARIANTS["paper"])


def macro(path: str, key: str) -> Target:
    """A table's column."""
    from search.strategies import nas_bench_macro

    table = nas_bench_macro(path)
    return Target(table.space.name, table.space, lambda a: table.score(a, key), key, table.best(key))


def strategy_of(name: str, space: "Space", seed: int) -> "AskTell":
    """A strategy with this tool's settings."""
    from search.strategies import PPO, Evolution, RandomSearch

    return {"random": RandomSearch, "evolution": Evolution, "ppo": PPO}[name](space, seed, **SETTINGS[name])


def build_parser() -> argparse.ArgumentParser:
    """The command line; nothing slow is imported before it has been read."""
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG)
    parser.add_argument("target", help=f"NAS-Bench-Macro's JSON file, or {PYRAMID!r}")
    parser.add_argument("--strategies", nargs="+", choices=list(SETTINGS), default=["random"], help="(default random)")
    parser.add_argument("--evaluations", type=int, default=200, help="architectures to look up (default 200)")
    parser.add_argument("--seeds", type=int, default=10, help="number of seeds, from 0 (default 10)")
    parser.add_argument("--key", default="mean_acc", help="the table's column to maximise (default mean_acc)")
    parser.add_argument("--plot", metavar="FILE.svg", help="draw the means, and a standard deviation around them")
    parser.add_argument("--json", action="store_true", help="print every seed's whole curve, to four decimals, as JSON")
    return parser


def shown(evaluations: int) -> list[int]:
    """1, 2, 5, 10, 20, 50, ... up to the last."""
    ticks = [m * 10**e for e in range(len(str(evaluations))) for m in (1, 2, 5)]
    return [*(tick for tick in ticks if tick < evaluations), evaluations]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool and return its exit code."""
    args = build_parser().parse_args(argv)
    from search.engine import command

    return command.guarded(lambda: judge(args))


def judge(args: argparse.Namespace) -> int:
    """Run the strategies on the target, test them against random search, print and draw."""
    if args.seeds < 1:
        raise ValueError(f"--seeds {args.seeds}: at least one is needed.")
    if args.plot is not None and Path(args.plot).suffix != ".svg":
        raise ValueError(f"--plot {args.plot}: the drawing is SVG, give a name that ends in .svg.")
    target = pyramid() if args.target == PYRAMID else macro(args.target, args.key)
    evaluations = min(args.evaluations, target.space.size)
    found = {name: curves(target, name, evaluations, args.seeds) for name in dict.fromkeys(args.strategies)}
    result: dict[str, Any] = {
        "target": target.name,
        "key": target.what,
        "optimum": target.best,
        "seeds": list(range(args.seeds)),
    }
    result["measure"] = "best score" if target.best is None else "regret"
    result["strategies"] = {name: described(name, each, found, target) for name, each in found.items()}
    if args.plot is not None:
        draw(result, args.plot)
    if args.json:
        print(json.dumps(result))
    else:
        show(result, evaluations)
    return 0


def curves(target: Target, name: str, evaluations: int, seeds: int) -> list[list[float]]:
    """A strategy's curve for each seed: regret where the best is known, else the best score so far."""
    from search.strategies import best_curve

    bests = [best_curve(strategy_of(name, target.space, seed), target.score, evaluations) for seed in range(seeds)]
    return bests if target.best is None else [[target.best - best for best in curve] for curve in bests]


def described(name: str, each: list[list[float]], found: Mapping[str, list[list[float]]], target: Target) -> dict[str, Any]:
    """A strategy's curves, their mean and spread, and its test against random search at the last evaluation."""
    from search.engine.significance import compare, describe

    points = [describe([curve[n] for curve in each]) for n in range(len(each[0]))]
    row: dict[str, Any] = {"settings": SETTINGS[name], "curves": [[round(score, 4) for score in curve] for curve in each]}
    row |= {key: [point[key] for point in points] for key in ("mean", "std")}
    if name != "random" and "random" in found:
        # a test says "better" of higher values
        sign = 1 if target.best is None else -1
        values = [[sign * curve[-1] for curve in of] for of in (each, found["random"])]
        test = compare(name, values[0], "random", values[1])
        row |= {"p": test.p, "verdict": test.verdict}
    return row


def show(result: Mapping[str, Any], evaluations: int) -> None:
    """Print the means and the tests."""
    from rich.console import Console
    from rich.table import Table

    best = "" if result["optimum"] is None else f"; the table's best: {result['optimum']:.2f}"
    title = f"{result['measure']} on {result['target']}: {result['key']}, {len(result['seeds'])} seeds, mean ± std{best}"
    lines = Table("evaluations", *result["strategies"], title=title)
    for n in shown(evaluations):
        cells = [(row["mean"][n - 1], row["std"][n - 1]) for row in result["strategies"].values()]
        lines.add_row(str(n), *(f"{mean:.3f}" + ("" if std is None else f" ± {std:.3f}") for mean, std in cells))
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(lines)
    for name, row in result["strategies"].items():
        settings = ", ".join(f"{key}={value}" for key, value in row["settings"].items())
        verdict = f"against random at {evaluations} evaluations: {row['verdict']}" if "verdict" in row else ""
        console.print(f"{name}: {'; '.join(part for part in (settings, verdict) if part) or 'uniform, each once'}")


def draw(result: Mapping[str, Any], path: str) -> None:
    """The curves as SVG."""
    from search.report.figure import COLOURS, new_figure, style, to_svg

    with style():
        figure = new_figure(6.4, 3.0)
        axes = figure.add_axes((0.11, 0.16, 0.86, 0.7))
        for colour, (name, row) in zip(COLOURS, result["strategies"].items(), strict=False):
            numbers = range(1, len(row["mean"]) + 1)
            axes.plot(numbers, row["mean"], color=colour, label=name)
            spread = [std or 0.0 for std in row["std"]]
            low, high = ([m + sign * s for m, s in zip(row["mean"], spread, strict=True)] for sign in (-1, 1))
            axes.fill_between(numbers, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.set_xlabel("evaluations")
        axes.set_ylabel(f"{result['measure']}, {result['key']}")
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=len(result["strategies"]), borderaxespad=0.2)
        Path(path).write_text(to_svg(figure, f"{result['measure']} on {result['target']}", themed=False))


if __name__ == "__main__":
    sys.exit(main())
