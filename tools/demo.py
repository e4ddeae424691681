"""The demonstration: a search for each task on embedded data, beside random architectures: python tools/demo.py."""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    # the folder of this script comes first on the path, where search.py would hide the package of that name
    sys.path[0] = str(ROOT)

EPILOG = """digits: PC-DARTS searches a classifier's cell on the 1,797 digits that come with scikit-learn. scenes:
Auto-DeepLab's space, path and cell, is searched on digits drawn into photographs, for a segmentor. boxes: NAS-FPN's space, a
detector's pyramid, is searched on the same scenes, one-shot with evolution. Each time what was found and random architectures
are trained from scratch by one recipe and tested on held-out images. Minutes on 2 cores. The same command goes on where it was
stopped. Exit codes: 0; 2 for a mistake, said in one sentence; 130 stopped by Ctrl-C."""
# by part how many random architectures stand beside what was found
PARTS = {"digits": 3, "scenes": 1, "boxes": 1}


def build_parser() -> argparse.ArgumentParser:
    """The command line; nothing slow is imported before it has been read."""
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG)
    parser.add_argument("--work-dir", default="work_dirs/demo", help="where everything is written")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="default: all of them")
    parser.add_argument(
        "--random", type=int, metavar="N", help="random architectures (default: 3 for digits, 1 for the others)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the search (default 0)")
    parser.add_argument(
        "--jobs", type=int, default=min(2, os.cpu_count() or 1), help="searches and trainings at a time (default: 2 on 2 cores)"
    )
    for name in ("search", "retrain"):
        text = f"changes of the {name} configs, such as train_cfg.max_epochs=2"
        parser.add_argument(f"--{name}-options", nargs="+", default=[], metavar="KEY=VALUE", help=text)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool and return its exit code."""
    args = build_parser().parse_args(argv)
    start = time.monotonic()
    from search.engine import command

    def action() -> int:
        from rich.console import Console

        from search.engine.comparison import Protocol, compare, run_searches
        from search.engine.comparison_table import show
        from search.engine.errors import UserError
        from search.engine.trials import Execution

        if args.jobs < 1:
            raise UserError(f"--jobs {args.jobs}: give a whole number of at least 1")
        console = Console(width=None if sys.stdout.isatty() else 150)
        protocols = [
            Protocol(
                searches=(str(ROOT / "configs" / "demo" / f"{part}_search.py"),),
                retrain=str(ROOT / "configs" / "demo" / f"{part}_retrain.py"),
                work_dir=Path(args.work_dir) / part,
                seeds=(args.seed,),
                random=PARTS[part] if args.random is None else args.random,
                random_search_seeds=(),
                search_options=tuple(args.search_options),
                retrain_options=tuple(args.retrain_options),
            )
            for part in args.parts
        ]
        execution = Execution(jobs=args.jobs)
        # one search keeps one core busy
        run_searches(protocols, execution)
        for protocol in protocols:
            show(compare(protocol, execution), console)
            (search,) = protocol.search_runs()
            print(
                f"architecture: {search.work_dir / 'architecture.json'}\n"
                f"report of the search: {search.work_dir / 'report.html'}\n"
                f"report: {protocol.work_dir / 'report.html'}"
            )
        print(
            "one search and few random networks illustrate, they don't prove (tools/compare.py does)\n"
            f"{time.monotonic() - start:.0f} s"
        )
        return 0

    return command.guarded(action, stopped="the same command goes on")


if __name__ == "__main__":
    sys.exit(main())
