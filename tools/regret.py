"""Regret of random search against evaluations: python tools/regret.py nas-bench-macro_cifar10.json."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    # the folder of this script comes first on the path, where search.py would hide the package of that name
    sys.path[0] = str(Path(__file__).resolve().parents[1])

EPILOG = """The table is NAS-Bench-Macro's JSON file (nas-bench-macro_cifar10.json). Nothing is trained:
regret is the table's best accuracy minus the best one found so far, in percentage points. Exit codes: 0, or 2
for a mistake in the options or the file."""


def build_parser() -> argparse.ArgumentParser:
    """The command line; nothing slow is imported before it has been read."""
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG)
    parser.add_argument("table", help="NAS-Bench-Macro's JSON file")
    parser.add_argument("--evaluations", type=int, default=200, help="architectures to look up (default 200)")
    parser.add_argument("--seeds", type=int, default=10, help="number of seeds, from 0 (default 10)")
    parser.add_argument("--key", default="mean_acc", help="the column to maximise (default mean_acc)")
    parser.add_argument("--json", action="store_true", help="print every seed's whole curve as JSON")
    return parser


def shown(evaluations: int) -> list[int]:
    """1, 2, 5, 10, 20, 50, ... up to the last."""
    ticks = [m * 10**e for e in range(len(str(evaluations))) for m in (1, 2, 5)]
    return [*(tick for tick in ticks if tick < evaluations), evaluations]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool and return its exit code."""
    args = build_parser().parse_args(argv)
    from search.engine import command

    return command.guarded(lambda: look_up(args))


def look_up(args: argparse.Namespace) -> int:
    """Run random search on the table and print its regret."""
    from statistics import fmean, stdev

    from search.strategies import RandomSearch, nas_bench_macro, regret_curve

    if args.seeds < 1:
        raise ValueError(f"--seeds {args.seeds}: at least one is needed.")
    table = nas_bench_macro(args.table)
    evaluations = min(args.evaluations, len(table.rows))
    curves = [regret_curve(RandomSearch(table.space, s), table, args.key, evaluations) for s in range(args.seeds)]
    points = [[curve[n - 1] for curve in curves] for n in range(1, evaluations + 1)]
    mean = [fmean(point) for point in points]
    std = [stdev(point) if len(point) > 1 else None for point in points]
    if args.json:
        result = {"strategy": "random search", "key": args.key, "optimum": table.best(args.key)}
        result |= {"seeds": list(range(args.seeds)), "mean": mean, "std": std, "regret": curves}
        print(json.dumps(result))
        return 0
    from rich.console import Console
    from rich.table import Table

    lines = Table(
        "evaluations",
        "regret, mean",
        "std",
        title=f"Random search on {table.space.name}: {args.key}, {args.seeds} seeds",
        caption=f"the table's best: {table.best(args.key):.2f}",
    )
    for n in shown(evaluations):
        spread = std[n - 1]
        lines.add_row(str(n), f"{mean[n - 1]:.3f}", "-" if spread is None else f"{spread:.3f}")
    Console().print(lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
