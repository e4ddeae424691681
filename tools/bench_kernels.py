"""Time, launches, bytes moved and bytes kept of every kernel and of a whole cell, by all ways of computing it that run here.

python tools/bench_kernels.py [--sizes cifar imagenet cityscapes] [--cases norm_sum cell ...] [--rounds 10] [--json F]

The tests of the kernels and of the plans that run them come first; if one fails, nothing is measured. On a GPU: plain PyTorch,
the batched plan, the Triton kernels and torch.compile of the reference plan. On the CPU what exists there; Triton's interpreter
is never timed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from operator import sub
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from rich.console import Console
    from torch import Tensor

    from search.engine.kernel_cases import Case

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    # the folder of this script comes first on the path, where search.py would hide the package of that name
    sys.path[0] = str(ROOT)

EPILOG = """Times are milliseconds, medians and ranges over rounds that run all ways of a case once, in an order drawn anew.
"backward" is forward and backward less the forward of the same round. Launches: a call of an ATen operator that computes is
one, a Triton operator has as many as it launches (search/cost/launches.py). "moved": what those calls and kernels read and
write, each tensor once a call, over the floor: forward reads inputs and parameters and writes outputs, backward reads inputs,
parameters and the outputs' gradients and writes the others. "kept": unique storages that saved-tensor hooks see, parameters
left out. What torch.compile makes has no launches counted here; on a GPU "kernels" are the profiler's count for every way.
"differs": the largest relative RMS difference of an output or a gradient to the reference's, for which cuDNN's convolutions are
in float32, not in TF32.

exit codes: 0 success, 1 tests fail, or a way differs by more than 1e-3 (the file is written), 2 a mistake in the options, said
in one sentence"""
# kernels, and plans on the device: the batched one has tests for the CPU alone
TESTS = ("tests/search/kernels", "tests/search/supernet/test_fused.py", "tests/search/supernet/test_layouts.py")
# what sums in float32 differ by is a hundredth of it
DIFFERENCE = 1e-3
# milliseconds that a timed sample lasts at least
SAMPLE = 2.0


def build_parser() -> argparse.ArgumentParser:
    """The command line; nothing slow is imported before it has been read."""
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", metavar="SIZE", help="cifar imagenet cityscapes, by default all")
    parser.add_argument("--cases", nargs="+", metavar="CASE", help="kernels by name, and cell; by default all")
    parser.add_argument("--rounds", type=int, default=10, help="rounds (default 10)")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="by default cuda where there is one")
    parser.add_argument("--threads", type=int, help="threads of an operation on the CPU, by default as torch has them")
    parser.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, help="torch.compile of the reference plan too; by default on a GPU"
    )
    parser.add_argument(
        "--clock", choices=["wall", "cpu"], default="wall", help="what is printed; cpu: work of this process, not waiting"
    )
    parser.add_argument("--skip-tests", action="store_true", help="measure without running the tests")
    parser.add_argument("--quick", action="store_true", help="a tiny size instead, to see that everything runs")
    parser.add_argument("--json", metavar="FILE", help="write the numbers to this file")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool and return its exit code."""
    args = build_parser().parse_args(argv)
    from search.engine import command

    return command.guarded(lambda: run(args))


def run(args: argparse.Namespace) -> int:
    """Test, measure, print, write."""
    import torch

    from search.engine import bench, kernel_cases
    from search.engine.errors import UserError, whole_number

    whole_number("--rounds", args.rounds, 2)
    if args.threads is not None:
        whole_number("--threads", args.threads)
    if args.quick and args.sizes:
        raise UserError("--quick has a size of its own: leave --sizes out")
    known = {"quick": kernel_cases.QUICK} if args.quick else kernel_cases.SIZES
    sizes = bench.chosen(known, args.sizes, "--sizes")
    asked = None if args.cases is None else list(bench.chosen(dict.fromkeys(kernel_cases.NAMES), args.cases, "--cases"))
    device = bench.device_of(args.device)
    if args.clock == "cpu" and device.type == "cuda":
        raise UserError("--clock cpu measures this process's work, and on CUDA another device works: give wall")
    bench.check_writable(args.json)
    if not args.skip_tests and not tested():
        print(f"{' '.join(TESTS)}: tests fail, so nothing is measured", file=sys.stderr)
        return 1
    before = torch.get_num_threads()
    torch.set_num_threads(args.threads or before)
    try:
        report = measure(sizes, asked, args, device)
    finally:
        torch.set_num_threads(before)
    bench.write(args.json, report)
    if wrong := unequal(report):
        print(wrong, file=sys.stderr)
        return 1
    return 0


def unequal(report: Mapping[str, Any]) -> str | None:
    """The sentence that names the ways that don't compute what the reference does, or None."""
    found = [
        f"{case['case']} ({case['size']}, K={case['shape']['K']}) by {way} {row['difference']:.1e}"
        for case in report["cases"]
        for way, row in case["ways"].items()
        # NaN is no smaller than anything
        if not row["difference"] <= DIFFERENCE
    ]
    return f"not what the reference computes, by more than {DIFFERENCE:.0e}: {', '.join(found)}" if found else None


def tested() -> bool:
    """Whether the tests of kernels and plans pass here. Raises UserError without pytest."""
    from search.engine.errors import UserError

    if find_spec("pytest") is None:
        raise UserError("the tests need pytest: pip install pytest, or give --skip-tests")
    return subprocess.run([sys.executable, "-m", "pytest", "-q", *TESTS], cwd=ROOT, check=False).returncode == 0


def measure(sizes: Mapping[str, Any], asked: Sequence[str] | None, args: argparse.Namespace, device: torch.device) -> dict:
    """All figures, printed as they come."""
    from rich.console import Console

    from backbones.operations import darts_candidates
    from search.engine import bench, kernel_cases

    console = Console(width=None if sys.stdout.isatty() else 150, highlight=False)
    report: dict[str, Any] = {"conditions": bench.conditions(device), "unit": "s", "rounds": args.rounds, "cases": []}
    report["tests"] = "skipped" if args.skip_tests else "passed"
    console.print(bench.header(report["conditions"]), markup=False)
    compiled = device.type == "cuda" if args.compile is None else args.compile
    for name, size in sizes.items():
        for case in kernel_cases.cases(size, device, darts_candidates(affine=False), asked, compiled):
            row = {"size": name, "case": case.name, "shape": dict(case.shape), **figures(case, args.rounds, device)}
            report["cases"].append(row)
            show(console, row, args.clock)
            bench.release()
    return report


def figures(case: Case, rounds: int, device: torch.device) -> dict[str, Any]:
    """What a case must move at least, and of each way its counts and times."""
    import torch

    from search.engine import bench

    outputs = case.ways["reference"]()
    generator = torch.Generator().manual_seed(1)
    grads = [torch.randn(y.shape, generator=generator).to(device) for y in outputs]
    own, made, learned = (sum(map(nbytes, tensors)) for tensors in (case.inputs, outputs, case.parameters))
    floor = {"forward": own + made + learned, "backward": made + 2 * own + 2 * learned}
    del outputs

    def step(way: str) -> list[Tensor]:
        given = case.ways[way]()
        return [*given, *torch.autograd.grad(given, case.leaves, grads)]

    ways: dict[str, dict[str, Any]] = {}
    # else convolutions of float32 tensors are rounded as TF32 is
    with torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, allow_tf32=False):
        expected = [tensor.detach() for tensor in step("reference")]
        for way in case.ways:
            errors = [difference(a, b) for a, b in zip(step(way), expected, strict=True)]
            # max() passes over a NaN
            ways[way] = {"difference": max(errors) if all(error == error for error in errors) else float("inf")}
    del expected
    for way, row in ways.items():
        row |= counts(case, way, lambda way=way: step(way), device)
    calls = {(way, "forward"): call for way, call in case.ways.items()}
    calls |= {(way, "step"): lambda way=way: step(way) for way in case.ways}
    seconds = bench.interleaved(calls, rounds, device, SAMPLE)
    for way, row in ways.items():
        for clock in ("wall", "cpu"):
            forward, both = seconds[way, "forward"][clock], seconds[way, "step"][clock]
            row[clock] = {"forward": forward, "step": both}
            row[clock]["backward"] = both and bench.spread(list(map(sub, both["values"], forward["values"])))
    for row in ways.values():
        for clock in ("wall", "cpu"):
            row[f"{clock}_ratio"] = bench.ratios(row[clock]["step"], ways["reference"][clock]["step"])
    return {"floor": floor, "ways": ways}


def counts(case: Case, way: str, step: Any, device: torch.device) -> dict[str, Any]:
    """Launches, bytes moved and bytes kept of a way; None where they can't be counted."""
    from search.cost import bytes_kept
    from search.cost.launches import count_launches
    from search.engine import bench
    from search.engine.kernel_cases import COMPILED

    held: list[Sequence[Tensor]] = []

    def forward() -> Tensor:
        held.append(case.ways[way]())
        return held[0][0]

    found: dict[str, Any] = {"kept": bytes_kept(forward, case.parameters)}
    held.clear()
    if way == COMPILED:
        found |= {"launches": None, "moved": None}
    else:
        ahead, both = count_launches(case.ways[way]), count_launches(step)
        found["launches"] = {"forward": ahead.total, "backward": both.total - ahead.total}
        found["moved"] = {"forward": ahead.bytes_moved, "backward": both.bytes_moved - ahead.bytes_moved}
    return found | {"kernels": bench.device_kernels(step) if device.type == "cuda" else None}


def nbytes(tensor: Tensor) -> int:
    """Bytes of a tensor's elements."""
    return tensor.numel() * tensor.element_size()


def difference(actual: Tensor, expected: Tensor) -> float:
    """Relative RMS, in float64."""
    error, size = ((x.double().square().mean() ** 0.5).item() for x in (actual.detach() - expected, expected))
    return error / size if size else error


def show(console: Console, row: Mapping[str, Any], clock: str) -> None:
    """Print a case with the times of one clock."""
    from rich.table import Table

    from search.engine import bench

    shape = ", ".join(f"{name}={value}" for name, value in row["shape"].items())
    floor = sum(row["floor"].values())
    title = f"{row['size']}: {row['case']} ({shape}); floor {floor / 2**20:.1f} MiB"
    table = Table(title=title, title_justify="left")
    table.add_column("way", no_wrap=True)
    for name in (
        "forward ms",
        "backward ms",
        "both, of reference",
        "launches",
        "kernels",
        "moved/floor",
        "kept MiB",
        "differs",
    ):
        table.add_column(name, justify="right")
    for way, found in row["ways"].items():
        parts = [bench.range_text(found[clock][part], 1000, 3) for part in ("forward", "backward")]
        launches, moved = found["launches"], found["moved"]
        table.add_row(
            way,
            *parts,
            bench.range_text(found[f"{clock}_ratio"]),
            "-" if launches is None else f"{launches['forward']}+{launches['backward']}",
            "-" if found["kernels"] is None else str(found["kernels"]),
            "-" if moved is None else f"{sum(moved.values()) / floor:.2f}",
            f"{found['kept'] / 2**20:.1f}",
            f"{found['difference']:.0e}",
        )
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
