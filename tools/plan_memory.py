"""What of a search fits in which memory, predicted on fake tensors: no GPU, no images.

python tools/plan_memory.py CONFIG [--limits 11GB 16GB 24GB 80GB] [--markdown | --json]

A row for every precision and every plan of execution with what it recomputes: what the config's batch needs, and the largest
batch that each memory holds. docs/memory.md says how it is counted.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from search.cost.planner import Needs, Setting

if __name__ == "__main__":
    # the folder of this script comes first on the path, where search.py would hide the package of that name
    sys.path[0] = str(Path(__file__).resolve().parents[1])

# the table looks for batches from the config's over this up to this many times the config's
SMALLEST = LARGEST = 8
# batch norms of a step see at least so many images
FEWEST = 2
EPILOG = """Batches are those of one process. "needs" counts parameters, buffers, states of both optimisers, what the larger
phase keeps for backward and what else is live at the peak of a step, plus what is assumed beside it: for a GPU 600 MB
and 5 % (context, workspaces, gaps), not measured. A row of PC-DARTS's network takes a core a minute or two, one of
Auto-DeepLab's eight.

exit codes: 0 success, 2 a mistake in the options or the config, said in one sentence"""


def build_parser() -> argparse.ArgumentParser:
    """The command line; nothing slow is imported before it has been read."""
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="config of a search")
    parser.add_argument(
        "--limits", nargs="+", metavar="SIZE", default=["11GB", "16GB", "24GB", "80GB"], help="11GB 16GB 24GB 80GB by default"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true", help="the table in Markdown")
    form.add_argument("--json", action="store_true", help="rows as JSON, sizes in bytes")
    only = parser.add_argument_group("rows, by default all that the config's network has, at the config's K and image side")
    only.add_argument("--partial", nargs="+", type=int, metavar="K", help="partial channels, 1 is all")
    only.add_argument("--crop", nargs="+", type=int, metavar="SIDE", help="sides of training images in pixels")
    only.add_argument("--precision", nargs="+", metavar="NAME", help="float32, bfloat16")
    only.add_argument("--execution", nargs="+", metavar="NAME", help="reference, batched/fast, triton/small, ...")
    parser.add_argument("--cfg-options", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="change the config")
    return parser


def rows_of(args: argparse.Namespace, limits: Sequence[int]) -> Iterator[dict[str, Any]]:
    """One row after the other, each measured when it is asked for."""
    from search.cost.planner import Setting
    from search.engine import config
    from search.engine.memory_plan import CUDA_RESERVE, SHARES, Planner, with_options
    from search.engine.run import adapter_of
    from search.engine.searchable import modules_with
    from search.supernet.plans import MEMORY

    # what is said of the config isn't part of the table
    with redirect_stdout(sys.stderr):
        cfg = config.load(args.config, args.cfg_options)
        adapter = adapter_of(cfg)
        if hasattr(adapter, "without_images"):
            cfg = adapter.without_images(cfg)
    # every plan of execution, whichever is the config's, and every K that is asked for
    most = {"plan": "reference", "memory": MEMORY[0], **({"partial": SHARES[0]} if args.partial else {})}
    options = {key: value for name, value in most.items() for key, _ in modules_with(cfg.get("model"), name)}
    planner = Planner(with_options(cfg, options), adapter, CUDA_RESERVE, plans=("batched", "triton"))
    ladders = planner.ladders
    batch = ladders.batch
    needs = planner.needs((max(min(batch, FEWEST), batch // SMALLEST), batch, LARGEST * batch))
    partials = chosen("partial", args.partial, ladders.partial) if args.partial else ladders.partial[:1]
    crops = chosen("crop", args.crop, ladders.crop) if args.crop else ladders.crop[:1]
    precisions = chosen("precision", args.precision, ladders.precision)
    executions = chosen("execution", args.execution, ladders.execution)
    for partial, crop, precision, execution in product(partials, crops, precisions, executions):
        yield row_of(Setting(execution, precision, ladders.parts[0], crop, partial, batch), needs, limits)


def chosen(name: str, asked: Sequence[Any] | None, known: Sequence[Any]) -> list[Any]:
    """What was asked for, or all that is known. Raises ValueError for something unknown."""
    for value in asked or ():
        if value not in known:
            raise ValueError(f"--{name} {value} isn't offered for this config: known are {', '.join(map(str, known))}")
    return list(known if asked is None else asked)


def row_of(setting: Setting, needs: Needs, limits: Sequence[int]) -> dict[str, Any]:
    """Plain values of one row, sizes in bytes; ``fits``: the largest batch for each limit."""
    need = needs.exact(setting)
    return {
        **asdict(setting),
        "kept": dict(need.kept),
        "peak": need.peak,
        "total": needs.exact_bytes(setting),
        "fits": {str(limit): needs.largest_batch(setting, limit) for limit in limits},
        "largest": needs.batches[-1],
    }


def measured(args: argparse.Namespace, limits: Sequence[int]) -> list[dict[str, Any]]:
    """All rows, with what is being measured while they are made."""
    from rich.console import Console

    rows = []
    with Console(stderr=True).status("measuring") as status:
        for row in rows_of(args, limits):
            rows.append(row)
            status.update(f"measuring: {len(rows)} rows")
    return rows


def cells_of(args: argparse.Namespace, rows: Sequence[dict[str, Any]], limits: Sequence[int]) -> list[list[str]]:
    """The table's head and rows as text."""
    batch = rows[0]["batch"]
    table = [["K", "image", "precision", "execution", f"kept at {batch}", f"needs at {batch}", *args.limits]]
    for row in rows:
        named = ["-" if row[name] is None else str(row[name]) for name in ("partial", "crop", "precision", "execution")]
        sizes = [f"{size / 1e9:.2f}" for size in (max(row["kept"].values()), row["total"])]
        table.append([*named, *sizes, *(fit_text(row["fits"][str(limit)], row) for limit in limits)])
    return table


def show(args: argparse.Namespace, limits: Sequence[int]) -> None:
    """Print the table."""
    from rich.console import Console
    from rich.table import Table

    head, *rows = cells_of(args, measured(args, limits), limits)
    title = f"{Path(args.config).stem}: largest batch of one process that fits"
    legend = "kept and needs in GB (10^9 bytes); -: not even an eighth of the batch, or 2 images; +: none larger was looked at"
    if args.markdown:
        lines = [head, ["---"] * 4 + ["---:"] * (len(head) - 4), *rows]
        print("\n".join([title, "", *(f"| {' | '.join(line)} |" for line in lines), "", legend]))
        return
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    table = Table(title=title, title_justify="left")
    for i, name in enumerate(head):
        table.add_column(name, justify="left" if i < 4 else "right")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    console.print(legend)


def fit_text(batch: int | None, row: dict[str, Any]) -> str:
    """A batch size for people."""
    if batch is None:
        return "-"
    return f"{batch}+" if batch == row["largest"] else str(batch)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool and return its exit code."""
    args = build_parser().parse_args(argv)
    from search.cost.planner import parse_bytes
    from search.engine import command

    def action() -> int:
        limits = [parse_bytes(text) for text in args.limits]
        if args.json:
            print(json.dumps(list(rows_of(args, limits)), indent=1))
        else:
            show(args, limits)
        return 0

    return command.guarded(action)


if __name__ == "__main__":
    sys.exit(main())
