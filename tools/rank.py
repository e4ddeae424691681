"""Does a one-shot supernet rank networks as training them does? python tools/rank.py SEARCH_DIR [...] --trained COMPARE.json"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    # the folder of this script comes first on the path, where search.py would hide the package of that name
    sys.path[0] = str(Path(__file__).resolve().parents[1])

EPILOG = """Architectures that tools/compare.py trained from scratch are scored with the weights of finished one-shot
searches over the same space, on the searches' validation images. Printed are both scores of each and, for every search,
Kendall's tau and Spearman's rho with 95 % bootstrap intervals over the architectures. Exit codes: 0; 2 for a mistake, said in
one sentence."""


def build_parser() -> argparse.ArgumentParser:
    """The command line; nothing slow is imported before it has been read."""
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG)
    parser.add_argument("searches", nargs="+", type=Path, metavar="SEARCH_DIR", help="work directories of one-shot searches")
    parser.add_argument("--trained", required=True, type=Path, metavar="COMPARE.json", help="what tools/compare.py wrote")
    parser.add_argument(
        "--group",
        default="random architectures",
        help="of the comparison (default: its random architectures, which are unselected)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default 0)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where everything is written, too")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool and return its exit code."""
    args = build_parser().parse_args(argv)
    from search.engine import command

    return command.guarded(lambda: rank(args))


def rank(args: argparse.Namespace) -> int:
    """Score, print the table and the correlations, write the file."""
    from rich.console import Console
    from rich.table import Table

    from search.engine import checkpoint
    from search.engine.correlation import words
    from search.engine.data import require_seed
    from search.engine.one_shot_ranks import ranks

    found = ranks(args.searches, args.trained, args.group, require_seed("--seed", args.seed))
    table = Table(title=f"{args.group}: test score after training, and scores with the supernets' weights")
    for name in ("architecture", "trained", *(f"supernet {i}" for i in range(len(args.searches)))):
        table.add_column(name, justify="left" if name == "architecture" else "right")
    for i, row in enumerate(found["architectures"]):
        table.add_row(str(i), *(f"{value:.2f}" for value in (row["trained"], *row["supernet"])))
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    for i, search in enumerate(found["searches"]):
        said = ", ".join(words(name, search[name]) for name in ("kendall", "spearman"))
        print(f"supernet {i} ({search['work_dir']}): {said} (95 % bootstrap intervals over architectures)")
    if args.json is not None:
        checkpoint.write_json(args.json, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
