"""Train and test networks by one task's configs, in one table: python tools/benchmark.py BENCHMARK.py --work-dir W."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    # the folder of this script comes first on the path, where search.py would hide the package of that name
    sys.path[0] = str(Path(__file__).resolve().parents[1])

EPILOG = """A benchmark file lists entries, such as configs/benchmarks/detection_scenes_cpu.py:

  entries = [
      dict(name='FCOS, ResNet-18', config='../detection/fcos_resnet18_scenes_cpu_retrain.py'),
      dict(name='cells', config='../detection/cells_scenes_cpu_retrain.py', arch='architecture.json'),
  ]

Keys are name, config, arch (an architecture file, or a list where parts come from several), random (the seed of an
architecture drawn from the config's space, instead of arch) and options (a list of key=value changes of the config, before
those of --cfg-options). Files are named from the folder of the benchmark file. All entries must have the same task, test data,
treatment of labels, and metric. An architecture may have been searched on another task: what counts is that its part is of the
network's space.

Every entry is trained once per seed and tested once. From 4 seeds on, pairs are tested for differences by exact Mann-Whitney
tests, which fewer seeds can't pass. The same command goes on where it was stopped: finished runs are kept, an interrupted one
resumes from its checkpoint.

exit codes:
  0    done; benchmark.json, benchmark.md and pareto.svg are in the work directory
  1    a run failed twice for no fault of yours; its log is named, and the same command tries it again
  2    a mistake in the options, the configs or the data, said in one sentence; nothing was lost
  130  stopped by Ctrl-C; the same command goes on
"""


def build_parser() -> argparse.ArgumentParser:
    """The command line; nothing slow is imported before it has been read."""
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("benchmarks", nargs="+", metavar="BENCHMARK", help="files with entries, all for one table")
    add("--work-dir", required=True, help="where all runs and the table are written")
    add("--only", nargs="+", action="extend", default=[], metavar="NAME", help="of all entries these alone")
    add(
        "--arch",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=FILE",
        help="an entry's architecture file, such as a search's architecture.json, in place of the entry's own; several of "
        "one name where its parts come from several files",
    )
    add(
        "--seeds",
        nargs="*",
        type=int,
        default=[0, 1, 2],
        help="every entry is trained with each of them (default 0 1 2; tests of pairs need 4)",
    )
    add(
        "--cfg-options",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="changes of all configs, such as data_root=X; they win over an entry's own options",
    )
    add("--jobs", type=int, default=1, help="runs at a time, each in its own process (default 1; more disturb their times)")
    add("--threads", type=int, default=1, help="threads of each run and of the latencies (default 1)")
    add("--rounds", type=int, default=20, help="at least so many rounds of latencies, at most three times (default 20)")
    add("--clock", choices=["wall", "cpu"], default="wall", help="of latencies, see tools/latency.py (default wall)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool and return its exit code."""
    args = build_parser().parse_args(argv)
    from search.engine import command

    def action() -> int:
        from rich.console import Console

        from search.cost.latency import Timing
        from search.engine.benchmark import Protocol, benchmark
        from search.engine.benchmark_file import chosen, read
        from search.engine.benchmark_table import show
        from search.engine.errors import whole_number
        from search.engine.trials import Execution

        for name, least in (("jobs", 1), ("threads", 1), ("rounds", 2)):
            whole_number(f"--{name}", getattr(args, name), least)
        protocol = Protocol(
            entries=tuple(chosen(read(args.benchmarks), args.only, args.arch)),
            work_dir=Path(args.work_dir),
            seeds=tuple(args.seeds),
            options=tuple(args.cfg_options),
            timing=Timing(rounds=args.rounds, most_rounds=3 * args.rounds, clock=args.clock),
        )
        result = benchmark(protocol, Execution(jobs=args.jobs, threads=args.threads, retries=1))
        show(result, Console(width=None if sys.stdout.isatty() else 200))
        for what, name in (("values", "benchmark.json"), ("table", "benchmark.md"), ("plot", "pareto.svg")):
            if (protocol.work_dir / name).exists():
                print(f"{what}: {protocol.work_dir / name}")
        return 0

    return command.guarded(action, stopped="the same command goes on")


if __name__ == "__main__":
    sys.exit(main())
