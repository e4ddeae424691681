"""Latency on the present device: measured, predicted from a table of a space's operations, and the one set beside the other.

latency.py measure MODEL [--arch A.json] [--shape C H W]          median and spread of one network
latency.py table CONFIG --shape C H W -o TABLE.json               measure every operation of a space
latency.py predict TABLE.json CONFIG --arch A.json [B.json ...]   whole networks, from the table
latency.py check TABLE.json CONFIG [--networks 30]                predicted against measured, on random architectures
latency.py guidelines [--channels 32 64]                          ShuffleNetV2's four guidelines on this device
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn

    from search.cost.latency import Timing
    from search.cost.latency_table import LatencyTable
    from search.space import Space

if __name__ == "__main__":
    # the folder of this script comes first on the path, where search.py would hide the package of that name
    sys.path[0] = str(Path(__file__).resolve().parents[1])

EPILOG = """Latencies are in milliseconds a batch, medians of rounds that measure everything in turn. MODEL is a config, a
published network's name, or a JSON file with its row or specification. No data are read: a config needs --shape,
and its number of classes is what it says.

exit codes: 0 success, 2 a mistake in the options or the files, said in one sentence"""
PUBLISHED_SHAPE = (3, 224, 224)


def build_parser() -> argparse.ArgumentParser:
    """The command line; nothing slow is imported before it has been read."""
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--device", choices=["cpu", "cuda"], help="by default cuda where there is one")
    common.add_argument("--threads", type=int, help="threads of an operation on the CPU, by default as torch has them")
    common.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    timed = argparse.ArgumentParser(add_help=False)
    timed.add_argument("--rounds", type=int, default=20, help="at least so many rounds, at most three times (default 20)")
    timed.add_argument("--warmup", type=int, default=3, help="calls of each candidate that aren't timed (default 3)")
    timed.add_argument(
        "--clock", choices=["wall", "cpu"], default="wall", help="cpu: only work counts, not waiting (1 thread, shared machine)"
    )
    sized = argparse.ArgumentParser(add_help=False)
    sized.add_argument("--shape", type=int, nargs=3, metavar=("C", "H", "W"), help="one input image")
    sized.add_argument("--batch-size", type=int, default=1, help="images at once (default 1)")
    changed = argparse.ArgumentParser(add_help=False)
    changed.add_argument("--cfg-options", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="change the config")

    measure = commands.add_parser("measure", parents=[common, timed, sized, changed], help="measure one network")
    measure.add_argument("model", metavar="MODEL", help="a config, a published network's name, or a specification's file")
    measure.add_argument("--arch", help="architecture file for the searchable modules of a config")
    table = commands.add_parser("table", parents=[common, timed, sized, changed], help="measure a space's operations")
    table.add_argument("config")
    table.add_argument("-o", "--out", required=True, metavar="TABLE.json", help="where the table is written")
    table.add_argument("--seed", type=int, default=0, help="of the architectures that are traced (default 0)")
    predict = commands.add_parser("predict", parents=[common, changed], help="predict networks from a table")
    check = commands.add_parser("check", parents=[common, timed, changed], help="predicted against measured")
    for command in (predict, check):
        command.add_argument("table", metavar="TABLE.json")
        command.add_argument("config")
    predict.add_argument("--arch", nargs="+", required=True, metavar="A.json", help="architecture files")
    check.add_argument("--networks", type=int, default=30, help="random architectures to measure (default 30)")
    check.add_argument("--seed", type=int, default=0, help="of the random architectures (default 0)")
    guidelines = commands.add_parser("guidelines", parents=[common, timed], help="ShuffleNetV2's guidelines, measured")
    guidelines.add_argument("--channels", type=int, nargs="+", default=[32, 64], help="c of the first setting (default 32 64)")
    guidelines.add_argument("--batch-size", type=int, default=1, help="images at once (default 1)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool and return its exit code."""
    args = build_parser().parse_args(argv)
    from search.engine import command

    return command.guarded(lambda: run(args))


def run(args: argparse.Namespace) -> int:
    """Run the command with the threads asked for."""
    import torch

    from search.engine import latency_report
    from search.engine.errors import whole_number

    for name in ("threads", "batch_size", "seed", "networks"):
        if getattr(args, name, None) is not None:
            # a rank correlation needs three networks
            whole_number(f"--{name.replace('_', '-')}", getattr(args, name), {"seed": 0, "networks": 3}.get(name, 1))
    before = torch.get_num_threads()
    torch.set_num_threads(args.threads or before)
    try:
        report = COMMANDS[args.command](args)
    finally:
        torch.set_num_threads(before)
    print(json.dumps(report, indent=1)) if args.json else latency_report.show(args.command, report)
    return 0


def measure(args: argparse.Namespace) -> dict:
    """Latency of one network."""
    import torch

    from search.cost import copy_to_meta, latency
    from search.cost.trace import dtype_of, trace

    build, shape = model_of(args)
    device, timing = device_of(args), timing_of(args)
    network = build().to(device)
    images = torch.randn(args.batch_size, *shape, dtype=dtype_of(network), device=device)
    # says in a sentence when the network can't run on them
    trace(copy_to_meta(network), images.to("meta"))
    report = {"model": args.model, "unit": latency.UNIT, **vars(latency.measure(network, images, timing))}
    report |= {"input_size": list(shape), "batch_size": args.batch_size}
    return {**report, **vars(latency.Conditions.here(device, dtype_of(network), timing.clock))}


def table(args: argparse.Namespace) -> dict:
    """Measure a space's operations and write the table."""
    from search.cost.latency_table import measure_table, save
    from search.cost.operations import survey

    out = Path(args.out)
    if not out.parent.is_dir() or out.is_dir() or not os.access(out.parent, os.W_OK):
        raise ValueError(f"--out {out} can't be written: give a file in a folder that exists and is yours to write to")
    build, shape = config_model(args), shape_of(args)
    options: dict[str, Any] = {"batch_size": args.batch_size, "seed": args.seed}
    found = survey(build, shape, **options)
    made = measure_table(build, found, shape, device=device_of(args), timing=timing_of(args), **options)
    save(out, made)
    return {"table": str(out), "traced": len(found.networks), **made.to_json()}


def predict(args: argparse.Namespace) -> dict:
    """Predict the networks of architecture files."""
    from search.cost.latency import UNIT

    made, build = table_for(args)
    rows = [{"arch": path, "predicted": made.predict(build, chosen(path, made.spaces))} for path in args.arch]
    return {"table": args.table, "unit": UNIT, "predictions": rows}


def check(args: argparse.Namespace) -> dict:
    """Predict and measure random architectures; how well the ones rank and give the others."""
    import torch

    from search.cost.latency import UNIT, Latency, time_modules
    from search.cost.operations import narrow
    from search.cost.trace import dtype_of
    from search.engine.latency_report import agreement
    from search.strategies.random_search import random_architectures
    from search.supernet import record

    made, build = table_for(args)
    device, timing = device_of(args), timing_of(args)
    drawn = random_architectures(record(build).space, args.networks, args.seed)
    predicted = [made.predict(build, architecture) for architecture in drawn]
    networks = [narrow(build, architecture).to(device) for architecture in drawn]
    images = torch.randn(made.batch_size, *made.input_size, dtype=dtype_of(networks[0]), device=device)
    samples = time_modules([(network, (images,), {}) for network in networks], device, timing)
    measured = [Latency.of(s, timing.warmup) for s in samples]
    # how well one half of the rounds ranks the other half: what noise alone takes from a correlation
    halves = [[statistics.median(s[half::2]) for s in samples] for half in (0, 1)]
    rows = [
        {"architecture": a.to_json(), "predicted": p, "measured": m.median, "iqr": m.iqr, "runs": m.runs}
        for a, p, m in zip(drawn, predicted, measured, strict=True)
    ]
    report = {"table": args.table, "unit": UNIT, "seed": args.seed, **vars(made.conditions), "networks": rows}
    return {**report, **agreement(predicted, [m.median for m in measured], halves, args.seed)}


def guidelines(args: argparse.Namespace) -> dict:
    """Measure the settings of the four guidelines, all in the same rounds."""
    import torch

    from search.cost.guidelines import measure_guidelines
    from search.cost.latency import UNIT, Conditions
    from search.engine.errors import whole_number

    for channels in args.channels:
        whole_number("--channels", channels, least=8)
    device, timing = device_of(args), timing_of(args)
    rows = measure_guidelines(args.channels, batch_size=args.batch_size, device=device, timing=timing)
    conditions = Conditions.here(device, torch.get_default_dtype(), timing.clock)
    return {"unit": UNIT, "batch_size": args.batch_size, **vars(conditions), "rows": rows}


def device_of(args: argparse.Namespace) -> torch.device:
    """The device asked for. ValueError where there is none such."""
    import torch

    if args.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch finds no CUDA device here; give --device cpu")
    return torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))


def timing_of(args: argparse.Namespace) -> Timing:
    """How often to measure, as the options say."""
    from search.cost.latency import Timing

    return Timing(warmup=args.warmup, rounds=args.rounds, most_rounds=3 * args.rounds, clock=args.clock)


def shape_of(args: argparse.Namespace, known: Sequence[int] | None = None) -> tuple[int, ...]:
    """(C, H, W) of one input, as the option says, else as is known. ValueError where it isn't."""
    shape = args.shape or known
    if shape is None or min(shape) < 1:
        raise ValueError("--shape: give the size of an input, three positive numbers C H W, such as 3 224 224")
    return tuple(shape)


def config_model(args: argparse.Namespace) -> Callable[[], nn.Module]:
    """What builds the model of a config, as the building context says."""
    from search.engine import config
    from search.engine.errors import values_are_the_users
    from search.engine.networks import networks_of
    from search.engine.run import adapter_of
    from search.supernet import record

    cfg = config.load(args.config, args.cfg_options)
    adapter = adapter_of(cfg) if cfg.get("task") else None
    build = networks_of(config.model_of(cfg, args.config), adapter, cfg.get("default_scope"))
    with values_are_the_users("model"):
        record(build)
    return build


def chosen(path: str, spaces: Mapping[str, Space]) -> dict[str, Any]:
    """What an architecture file chooses for these spaces. ValueError for a file of others."""
    from search import space

    file = space.load(path)
    return {name: value for part, known in spaces.items() for name, value in file.require(part, known).items()}


def model_of(args: argparse.Namespace) -> tuple[Callable[[], nn.Module], tuple[int, ...]]:
    """What builds the one network to measure, and its input."""
    from backbones import published
    from search.cost.operations import narrow
    from search.engine.networks import network_of
    from search.supernet import record

    path = Path(args.model)
    if path.suffix == ".py":
        build = config_model(argparse.Namespace(config=args.model, cfg_options=args.cfg_options))
        spaces = record(build).parts
        if bool(spaces) != bool(args.arch):
            raise ValueError(
                f"{path} leaves its {' and '.join(spaces)} open: give --arch A.json"
                if spaces
                else f"--arch: {path} leaves nothing open"
            )
        shape = shape_of(args)
        return (lambda: narrow(build, chosen(args.arch, spaces))) if spaces else build, shape
    if args.arch or args.cfg_options:
        raise ValueError(f"--arch and --cfg-options go with a config, which {args.model} is not")
    row = published.one_row(args.model)
    model, size = published.config_of(row), row.get("input_size")
    return partial(network_of, row["name"], model), shape_of(args, [3, *size] if size else PUBLISHED_SHAPE)


def table_for(args: argparse.Namespace) -> tuple[LatencyTable, Callable[[], nn.Module]]:
    """The table of the command line and what builds the config's model. ValueError where the one isn't for the other."""
    import torch

    from search.cost import build_on_meta
    from search.cost.latency import Conditions
    from search.cost.latency_table import load
    from search.cost.operations import narrow
    from search.cost.trace import dtype_of
    from search.supernet import record

    made, build = load(args.table), config_model(args)
    recorded = record(build)
    made.require_spaces(recorded.parts)
    dtype = dtype_of(build_on_meta(lambda: narrow(build, recorded.space.at(0))))
    # a prediction reads no clock
    clock = getattr(args, "clock", made.conditions.clock)
    made.conditions.require(Conditions.here(device_of(args), dtype, clock), args.table)
    if made.conditions.torch_version != torch.__version__:
        print(f"note: {args.table} was measured with torch {made.conditions.torch_version}", file=sys.stderr)
    return made, build


COMMANDS = {"measure": measure, "table": table, "predict": predict, "check": check, "guidelines": guidelines}

if __name__ == "__main__":
    sys.exit(main())
