"""A search step of ours beside the one of a public project: time, bytes kept for backward, launches, peak memory.

python tools/bench_step.py --pc-darts DIR [--darts DIR] [--executions reference batched/fast ...] [--pairs 5] [--json F]
python tools/bench_step.py --auto-deeplab DIR --channels 8 --layers 12 --batch-size 2 --image 128 [--partial 4] ...

DIR is a checkout of yuhuixu1993/PC-DARTS (K=4), quark0/darts (K=1) or NoamRosenberg/autodeeplab (K=1; its C is F). Before
anything is measured, the first two's search network and ours must make the same gradients of the same weights; the third's has
other inputs of cells, so ours is the paper's. A step is first order: a step of the logits, then one of the weights.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from search.engine.peer_step import Variant

if __name__ == "__main__":
    # the folder of this script comes first on the path, where search.py would hide the package of that name
    sys.path[0] = str(Path(__file__).resolve().parents[1])

EPILOG = """Times are seconds a step, on the wall and (CPU) of this process's work, in rounds that run every network once,
in an order drawn anew: medians and ranges, and those of the ratios to the project's in the same round. "kept": unique storages
that saved-tensor hooks see in one phase. "launches": of the forwards and backwards of both phases, a call of an ATen operator
that computes being one (search/cost/launches.py). "peak": growth of memory in one step; on CUDA of torch's allocator, on the
CPU of a fresh process's resident memory, with MALLOC_ARENA_MAX=1 and MALLOC_MMAP_THRESHOLD_ = MALLOC_TRIM_THRESHOLD_ = 65536,
so that freed tensors go back to the system.
On the meta device nothing is computed: launches and bytes as a GPU has them. With TRITON_INTERPRET=1 and --counts the launches
of the Triton plan are counted on the CPU, where its kernels then don't run.

exit codes: 0 success, 2 a mistake in the options, said in one sentence"""
MALLOC = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
# which Linux alone has
RESET_PEAK = Path("/proc/self/clear_refs")
SIZES = ("channels", "layers", "batch_size", "image")


def build_parser() -> argparse.ArgumentParser:
    """The command line; nothing slow is imported before it has been read."""
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pc-darts", metavar="DIR", help="checkout of yuhuixu1993/PC-DARTS")
    parser.add_argument("--darts", metavar="DIR", help="checkout of quark0/darts")
    parser.add_argument("--auto-deeplab", metavar="DIR", help="checkout of NoamRosenberg/autodeeplab")
    parser.add_argument("--partial", type=int, metavar="K", help="partial channels of ours, by default the project's")
    parser.add_argument("--executions", nargs="+", metavar="NAME", help="reference, batched/fast, ...; by default all that run")
    parser.add_argument("--pairs", type=int, default=5, help="rounds (default 5)")
    parser.add_argument("--channels", type=int, default=16, help="C (default 16)")
    parser.add_argument("--layers", type=int, default=8, help="cells (default 8)")
    parser.add_argument("--batch-size", type=int, default=64, help="images at once (default 64)")
    parser.add_argument("--image", type=int, default=32, help="side of an image (default 32)")
    parser.add_argument("--device", choices=["cpu", "cuda", "meta"], help="by default cuda where there is one")
    parser.add_argument("--threads", type=int, default=1, help="threads of an operation on the CPU (default 1)")
    parser.add_argument("--counts", action="store_true", help="parameters, bytes kept and launches alone")
    parser.add_argument("--json", metavar="FILE", help="write the numbers to this file")
    # what a process is asked that measures its own memory
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool and return its exit code."""
    args = build_parser().parse_args(argv)
    from search.engine import command

    return command.guarded(lambda: run(args))


def run(args: argparse.Namespace) -> int:
    """Measure beside every project given, print, write."""
    import torch

    from search.engine import bench
    from search.engine.errors import UserError, whole_number
    from search.engine.peer_step import PEERS

    for name in (*SIZES, "pairs", "threads", *(["partial"] if args.partial is not None else [])):
        whole_number(f"--{name.replace('_', '-')}", getattr(args, name), {"pairs": 2, "layers": 3}.get(name, 1))
    given = [peer for peer in PEERS if getattr(args, peer)]
    if any(PEERS[peer].segments for peer in given):
        # it brings mmseg, which takes seconds
        import tasks.segmentation  # noqa: F401
    if not given:
        raise UserError("no project to stand beside: give --pc-darts, --darts or --auto-deeplab, the folder of a checkout")
    bench.check_writable(args.json)
    device = bench.device_of(args.device)
    before = torch.get_num_threads()
    torch.set_num_threads(args.threads)
    try:
        if args.peak_of is not None:
            print(resident_growth(variants(args, given[0], device, [args.peak_of])[args.peak_of], args))
            return 0
        report: dict[str, Any] = {"conditions": bench.conditions(device), **{name: getattr(args, name) for name in SIZES}}
        report["peers"] = {}
        for peer in given:
            with bench.no_autocast() if device.type == "meta" else nullcontext():
                report["peers"][PEERS[peer].name] = found = measure(args, peer, device)
            show(report, PEERS[peer].name, found)
            bench.write(args.json, report)
    finally:
        torch.set_num_threads(before)
    return 0


def variants(args: argparse.Namespace, peer: str, device: torch.device, names: Sequence[str] | None) -> dict[str, Variant]:
    """The project's network and ours with each plan, by name; those of `names` or all that run. UserError for other names."""
    import torch

    from search.engine import bench
    from search.engine.peer_step import PEERS, our_variant, their_variant

    project = PEERS[peer]
    known = bench.executions(device, timed=not args.counts)
    torch.manual_seed(0)
    made = {}
    for name, execution in bench.chosen({project.name: None, **known}, names, "--executions").items():
        if execution is None:
            made[name] = their_variant(project, getattr(args, peer), args.channels, args.layers, device)
        else:
            made[name] = our_variant(project, args.channels, args.layers, args.partial or project.partial, *execution, device)
    return made


def measure(args: argparse.Namespace, peer: str, device: torch.device) -> dict[str, dict[str, Any]]:
    """All figures of a project's network and of ours, by name, the project's first."""
    from search.cost import bytes_kept
    from search.cost.launches import count_launches
    from search.engine import bench
    from search.engine.peer_step import PEERS, made_equal
    from search.supernet import triton_launches

    project = PEERS[peer].name
    alike = not PEERS[peer].segments and args.partial in (None, PEERS[peer].partial)
    asked = None if args.executions is None else [project, *args.executions]
    made = variants(args, peer, device, asked)
    batch = batch_of(args, args.batch_size, device)
    found: dict[str, dict[str, Any]] = {}
    for name, variant in made.items():
        found[name] = {"parameters": variant.parameters}
        # in the interpreter its kernels' tests stand for them
        dry = name.startswith("triton") and device.type == "cpu"
        if alike and name != project and device.type != "meta" and not dry:
            few = batch_of(args, min(8, args.batch_size), device)
            found[name]["gradient_difference"] = made_equal(variant, made[project], *few)
        with triton_launches(lambda *_: None, dry=True) if dry else nullcontext():
            found[name]["kept"] = bytes_kept(lambda variant=variant: variant.loss(*batch), variant.own)
        phase = count_launches(lambda variant=variant: variant.phase(*batch), dry)
        found[name] |= {"launches": 2 * phase.total, "moved": 2 * phase.bytes_moved}
        found[name]["launches_by_name"] = {kind: 2 * count for kind, count in phase.by_name.items()}
        variant.forget_gradients()
        bench.release()
    if args.counts or device.type == "meta":
        return found
    for name, variant in made.items():
        if device.type == "cuda":
            found[name]["peak"] = allocated_growth(variant, batch)
        elif RESET_PEAK.exists():
            found[name]["peak"] = peak_of_process(args, peer, name)
    calls = {name: lambda variant=variant: variant.step(*batch) for name, variant in made.items()}
    for name, seconds in bench.interleaved(calls, args.pairs, device).items():
        found[name] |= seconds
    for figures in found.values():
        for clock in ("wall", "cpu"):
            figures[f"{clock}_ratio"] = bench.ratios(figures[clock], found[project][clock])
    return found


def batch_of(args: argparse.Namespace, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Images of noise, and labels."""
    import torch

    from search.engine.peer_step import CLASSES

    generator = torch.Generator().manual_seed(1)
    images = torch.randn(size, 3, args.image, args.image, generator=generator)
    return images.to(device), torch.randint(CLASSES, (size,), generator=generator).to(device)


def allocated_growth(variant: Variant, batch: tuple[Tensor, Tensor]) -> int:
    """Bytes by which torch's allocator on CUDA grows in a step, after one that made the optimisers' states."""
    import torch

    variant.step(*batch)
    variant.forget_gradients()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    variant.step(*batch)
    variant.forget_gradients()
    return torch.cuda.max_memory_allocated() - before


def peak_of_process(args: argparse.Namespace, peer: str, name: str) -> int:
    """`resident_growth` of a process of its own."""
    asked = (peer, *SIZES, "threads", *(["partial"] if args.partial else []))
    options = [f"--{option.replace('_', '-')}={getattr(args, option)}" for option in asked]
    command = [sys.executable, __file__, "--device=cpu", f"--peak-of={name}", *options]
    done = subprocess.run(command, env={**os.environ, **MALLOC}, stdout=subprocess.PIPE, text=True, check=True)
    return int(json.loads(done.stdout.splitlines()[-1]))


def resident_growth(variant: Variant, args: argparse.Namespace) -> int:
    """Bytes by which a step raises the most that this process had resident, after a step of two images (Linux)."""
    import torch

    cpu = torch.device("cpu")
    variant.step(*batch_of(args, 2, cpu))
    variant.forget_gradients()
    batch = batch_of(args, args.batch_size, cpu)
    now = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    # the most so far, of which a part was the parent's, is forgotten
    RESET_PEAK.write_text("5")
    variant.step(*batch)
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024 - now


def show(report: Mapping[str, Any], project: str, found: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the figures beside one project, and each round's."""
    from rich.console import Console
    from rich.table import Table

    from search.engine import bench

    console = Console(width=None if sys.stdout.isatty() else 170, highlight=False)
    sizes = "C={channels}, {layers} layers, batch {batch_size} of {image}x{image}".format(**report)
    table = Table(title=f"One search step beside {project}: {sizes}", title_justify="left")
    table.add_column("network", no_wrap=True)
    for name in ("parameters", "launches", "kept MiB", "of theirs", "peak MiB", "wall s", "of theirs", "CPU s", "of theirs"):
        table.add_column(name, justify="right")
    base = found[project]
    for name, row in found.items():
        cells = [
            f"{row['parameters']:,}",
            f"{row['launches']:,}",
            f"{row['kept'] / 2**20:,.0f}",
            f"{row['kept'] / base['kept']:.3f}",
        ]
        cells.append(f"{row['peak'] / 2**20:,.0f}" if "peak" in row else "-")
        cells += [bench.range_text(row.get(key)) for key in ("wall", "wall_ratio", "cpu", "cpu_ratio")]
        table.add_row(name, *cells)
    console.print(table)
    console.print(bench.header(report["conditions"]), markup=False)
    if differences := [row["gradient_difference"] for row in found.values() if "gradient_difference" in row]:
        console.print(f"gradients of equal weights differ by {max(differences):.0e} (relative RMS)", markup=False)
    if "wall" not in base:
        return
    for i, seconds in enumerate(base["wall"]["values"]):
        texts = [
            f"{n} {r['wall']['values'][i]:.2f} s ({r['wall_ratio']['values'][i]:.3f})" for n, r in found.items() if n != project
        ]
        console.print(f"round {i + 1}: {project} {seconds:.2f} s, {', '.join(texts)}", markup=False)


if __name__ == "__main__":
    sys.exit(main())
