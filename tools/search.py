"""Search an architecture: python tools/search.py CONFIG [--work-dir D] [--cfg-options data_root=X ...]."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    # the folder of this script comes first on the path, where search.py would hide the package of that name
    sys.path[0] = str(Path(__file__).resolve().parents[1])

EXIT_CODES = """exit codes:
  0    the search finished; architecture.json and report.html are in the work directory
  2    a mistake in the options, the config or the data, said in one sentence; nothing was lost
  3    nothing fits in --max-memory, or no network is within the config's budget; the sentence names the smallest
  130  stopped by Ctrl-C; --resume goes on
"""


def build_parser() -> argparse.ArgumentParser:
    """The command line; nothing slow is imported before it has been read."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXIT_CODES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="config of a search, such as configs/demo/digits_search.py")
    parser.add_argument("--work-dir", help="where everything is written, work_dirs/<config's name> by default")
    parser.add_argument("--seed", type=int, help="the one seed that everything random follows from")
    parser.add_argument("--resume", action="store_true", help="go on from the work directory's checkpoint")
    parser.add_argument("--amp", action="store_true", help="forward passes in 16 bits (autocast)")
    parser.add_argument(
        "--launcher",
        choices=["none", "pytorch", "slurm"],
        help="how several processes are started: 'pytorch' under torchrun, 'slurm' under srun",
    )
    parser.add_argument(
        "--max-memory",
        metavar="SIZE",
        help="memory of the device that may be used, such as 11GB: where the config needs more, plan of execution and "
        "recomputation, precision, parts of a batch, image size and K (in this order) are changed until the predicted peak "
        "fits (docs/memory.md)",
    )
    parser.add_argument(
        "--allow-different-threads",
        action="store_true",
        help="resume with another number of threads, which changes the last bits of results",
    )
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="change the config, for example data_root=X train_cfg.max_epochs=2",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool and return its exit code."""
    args = build_parser().parse_args(argv)
    from search.engine import command

    def action() -> int:
        from search.cost.planner import parse_bytes
        from search.engine.search import search
        from search.engine.spent import in_words

        limit = None if args.max_memory is None else parse_bytes(args.max_memory)
        cfg = command.load(args)
        result = search(cfg, limit)
        command.say(cfg, f"{in_words(result.summary)} of search")
        command.say(cfg, f"architecture: {result.path}\nreport: {result.path.with_name('report.html')}")
        return 0

    return command.guarded(action, stopped=command.RESUME)


if __name__ == "__main__":
    sys.exit(main())
