"""Images per second of a config's data loaders, and where the time goes.

python tools/bench_loading.py CONFIG [--workers 0 1 2] [--seconds 5] [--json F] [--cfg-options data_root=X
...]

For the training data: microseconds per image to read and decode, and of each transform, measured one by one
in this process; then images per second of the whole loader with each number of workers, with and without the
memory cache where the dataset has one. Compare them with what training uses (images/s in the log): loading
keeps the cores busy when it is faster, and with few cores workers take time from training.
"""

import argparse
import inspect
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # the folder of this script comes first on the path, where search.py would hide the package of that name
    sys.path[0] = str(Path(__file__).resolve().parents[1])


def build_parser() -> argparse.ArgumentParser:
    """The command line; nothing slow is imported before it has been read."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config")
    parser.add_argument("--workers", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--seconds", type=float, default=5, help="measure each setting for this long")
    parser.add_argument("--json", help="write the numbers to this file")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write; returns the exit code (2 for a user's mistake)."""
    args = build_parser().parse_args(argv)
    from search.engine import command

    return command.guarded(lambda: bench(args))


def bench(args: argparse.Namespace) -> int:
    """Measure the loaders of the config that the options name."""
    import torch

    from search.engine.config import load

    torch.set_num_threads(1)
    cfg = load(args.config, args.cfg_options)
    loader = cfg.train_dataloader.to_dict()
    if cfg.get("data_root") is not None:
        loader["dataset"]["data_root"] = cfg.data_root
    result = measure(loader, args.workers, args.seconds)
    show(result)
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=2))
    return 0


def measure(loader: dict[str, Any], workers: list[int], seconds: float) -> dict[str, Any]:
    """The steps' microseconds and every loader's images per second for a training loader's config."""
    from search.registry import DATASETS

    dataset = loader["dataset"]
    cached = "cache" in inspect.signature(DATASETS.get(dataset["type"])).parameters
    rows = []
    for cache in (False, True) if cached else (None,):
        given = {**dataset, **({} if cache is None else {"cache": cache})}
        start = time.perf_counter()
        built = DATASETS.build(given)
        setup = time.perf_counter() - start
        for count in workers:
            rate = images_per_second({**loader, "num_workers": count, "dataset": built}, seconds)
            rows.append(dict(workers=count, cache=cache, images_per_second=rate, setup_seconds=setup))
    plain = DATASETS.build({**dataset, **({"cache": False} if cached else {})})
    return dict(
        dataset=dataset["type"],
        images=len(plain),
        cores=os.cpu_count(),
        steps=step_times(plain, dataset.get("pipeline", []), seconds / 5),
        loaders=rows,
    )


def step_times(dataset: Any, pipeline: list[dict], seconds: float) -> dict[str, float]:
    """Microseconds per image of reading and of each transform, one after the other in this process."""
    import torch

    from search.registry import TRANSFORMS

    times = {}
    indices = cycle(torch.randperm(len(dataset)).tolist())
    times["read and decode"] = _microseconds(lambda: dataset.image(next(indices)), seconds)
    images = [dataset.image(i) for i in islice(indices, 64)]
    for config in pipeline:
        step = TRANSFORMS.build(config)
        turn = cycle(images)
        times[config["type"]] = _microseconds(lambda step=step, turn=turn: step(next(turn)), seconds)
        images = [step(image) for image in images]
    return times


def images_per_second(loader: dict[str, Any], seconds: float) -> float:
    """Of the whole loader (sample seeding and collation included), after a first batch that starts the
    workers."""
    from search.engine.loaders import training_loader

    built = training_loader(loader, seed=0, stream="bench")
    batches = iter(built)
    next(batches)
    count, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds:
        count += len(next(batches)["label"])
    return count / spent


def show(result: dict[str, Any]) -> None:
    """Print both tables."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(title=f"{result['dataset']}, {result['images']} images: one image, one core")
    table.add_column("step")
    table.add_column("microseconds", justify="right")
    table.add_column("share", justify="right")
    total = sum(result["steps"].values())
    for step, value in result["steps"].items():
        table.add_row(step, f"{value:.0f}", f"{value / total:.0%}")
    console.print(table)
    table = Table(title=f"the whole loader on {result['cores']} cores")
    for column in ("workers", "cache", "images/s", "set-up s"):
        table.add_column(column, justify="right")
    for row in result["loaders"]:
        cache = "-" if row["cache"] is None else "yes" if row["cache"] else "no"
        rate, setup = row["images_per_second"], row["setup_seconds"]
        table.add_row(str(row["workers"]), cache, f"{rate:.0f}", f"{setup:.1f}")
    console.print(table)


def _microseconds(call: Callable[[], Any], seconds: float) -> float:
    call()
    count, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds:
        call()
        count += 1
    return 1e6 * spent / count


if __name__ == "__main__":
    sys.exit(main())
