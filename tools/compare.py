"""Compare searches with chance: python tools/compare.py SEARCH_CONFIG [...] --retrain CONFIG --work-dir W."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    # the folder of this script comes first on the path, where search.py would hide the package of that name
    sys.path[0] = str(Path(__file__).resolve().parents[1])

EPILOG = """Every config is searched once per seed. Each architecture found, and as many random ones, is trained from
scratch by one recipe and tested once; random search gets what a search and its retraining cost. The same command goes on
where it was stopped: finished runs are kept, an interrupted one resumes from its checkpoint.

exit codes:
  0    done; compare.json and report.html are in the work directory
  1    a run failed twice for no fault of yours; its log is named, and the same command tries it again
  2    a mistake in the options, the configs or the data, said in one sentence; nothing was lost
  3    no network, or none that was drawn, is within the searches' budget
  130  stopped by Ctrl-C; the same command goes on
"""


def build_parser() -> argparse.ArgumentParser:
    """The command line; nothing slow is imported before it has been read."""
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    add, many = parser.add_argument, "KEY=VALUE"
    add(
        "searches",
        nargs="+",
        metavar="SEARCH_CONFIG",
        help="configs of searches over the same space; processor times are set beside the first",
    )
    add("--retrain", required=True, metavar="CONFIG", help="the recipe that trains every architecture")
    add("--work-dir", required=True, help="where all runs, compare.json and report.html are written")
    add("--seeds", nargs="+", type=int, default=[0, 1, 2], help="seeds of searches (default 0 1 2)")
    add("--random", type=int, default=6, metavar="N", help="random architectures to train (default 6)")
    add(
        "--random-search-seeds",
        nargs="*",
        type=int,
        default=[0, 1, 2],
        metavar="SEED",
        help="seeds of random search at equal cost (default 0 1 2; none given: left out)",
    )
    add(
        "--retrain-seeds",
        nargs="+",
        type=int,
        default=[0],
        metavar="SEED",
        help="every architecture is trained with each of them, its value is their mean (default 0)",
    )
    add(
        "--cost",
        choices=["images", "seconds"],
        default="images",
        help="what random search spends equally much of: training images passed forward and backward (default; "
        "deterministic, but an image costs a supernet more than a small network), or seconds of training",
    )
    add(
        "--short",
        nargs="+",
        action="extend",
        default=[],
        metavar=many,
        help="changes of the recipe for random search's trials, such as train_cfg.max_epochs=2; the best of them "
        "is then trained by the full recipe, which is part of its cost",
    )
    for name, of in (("cfg", "all"), ("search", "search"), ("retrain", "retraining")):
        text = f"changes of {of} configs, such as data_root=X"
        add(f"--{name}-options", nargs="+", action="extend", default=[], metavar=many, help=text)
    add("--jobs", type=int, default=1, help="runs at a time, each in its own process (default 1)")
    add("--threads", type=int, default=1, help="threads of each run (default 1)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool and return its exit code."""
    args = build_parser().parse_args(argv)
    from search.engine import command

    def action() -> int:
        from rich.console import Console

        from search.engine.comparison import Protocol, compare
        from search.engine.comparison_table import show
        from search.engine.errors import UserError
        from search.engine.trials import Execution

        for name in ("jobs", "threads"):
            if getattr(args, name) < 1:
                raise UserError(f"--{name} {getattr(args, name)}: give a whole number of at least 1")
        protocol = Protocol(
            searches=tuple(args.searches),
            retrain=args.retrain,
            work_dir=Path(args.work_dir),
            seeds=tuple(args.seeds),
            random=args.random,
            random_search_seeds=tuple(args.random_search_seeds),
            retrain_seeds=tuple(args.retrain_seeds),
            search_options=(*args.cfg_options, *args.search_options),
            retrain_options=(*args.cfg_options, *args.retrain_options),
            short=tuple(args.short),
            cost=args.cost,
        )
        result = compare(protocol, Execution(jobs=args.jobs, threads=args.threads, retries=1))
        show(result, Console(width=None if sys.stdout.isatty() else 150))
        print(f"values: {protocol.work_dir / 'compare.json'}\nreport: {protocol.work_dir / 'report.html'}")
        return 0

    return command.guarded(action, stopped="the same command goes on")


if __name__ == "__main__":
    sys.exit(main())
