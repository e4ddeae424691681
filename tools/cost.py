"""Count parameters, multiply-adds and activations: of a published network or all, an architecture file, a config's model.

python tools/cost.py NAME_OR_JSON [--shape 3 224 224] [--json]   a published network, or an architecture file
python tools/cost.py --spec ROW.json                             rows in the published schemas
python tools/cost.py --config CONFIG [ARCH.json]                 the model of a config
python tools/cost.py --all                                       every published network, computed beside printed
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from search.space import ArchitectureFile

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    # the folder of this script comes first on the path, where search.py would hide the package of that name
    sys.path[0] = str(ROOT)

ARCHS = ROOT / "backbones" / "archs"
CONVENTIONS = ("macs", "macs+atrous", "macs+pool", "thop", "thop-legacy")
# the papers' networks of DARTS cells: the input, and what --channels, --layers and --classes are unless given
SETTINGS = {
    "cifar": {"shape": [3, 32, 32], "channels": 36, "layers": 20, "classes": 10},
    "imagenet": {"shape": [3, 224, 224], "channels": 48, "layers": 14, "classes": 1000},
}
# packages of models that a base installation lacks, and the extras that bring them
EXTRAS = {"mmdet": "detection", "mmseg": "segmentation"}
EPILOG = """The whole model is counted: backbone, neck and head, or backbone, pooling, linear layer; no auxiliary head.
A file of DARTS cells says nothing of the network around them: without --stem and --shape it is the published
ImageNet network (48 channels, 14 cells, 1000 classes unless the file says otherwise); with a --shape below 64
pixels, or --stem cifar, the CIFAR one (36, 20, 10).
A published row is counted as its source counts unless --convention is given. A config's number of classes is what it
says: no data are read.

exit codes: 0 success, 2 a mistake in the options or the file, said in one sentence"""


def build_parser() -> argparse.ArgumentParser:
    """The command line; nothing slow is imported before it has been read."""
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("architecture", nargs="?", help="a published network's name, or an architecture file (or its stem)")
    parser.add_argument("--all", action="store_true", help="a table of every published network")
    parser.add_argument("--spec", metavar="FILE", help="a row, a list of rows or a specification in the published schemas")
    parser.add_argument("--config", help="a config whose model is counted, with the architecture file if it needs one")
    parser.add_argument("--shape", type=int, nargs=3, metavar=("C", "H", "W"), help="one input image")
    parser.add_argument("--convention", choices=CONVENTIONS, help="how operations are counted (default: macs)")
    parser.add_argument("--json", action="store_true", help="plain counts as JSON")
    cells = parser.add_argument_group("for an architecture file of DARTS cells")
    cells.add_argument("--stem", choices=list(SETTINGS), help="the layers before the first cell")
    cells.add_argument("--channels", type=int, help="channels of the first cell's nodes")
    cells.add_argument("--layers", type=int, help="number of cells")
    cells.add_argument("--classes", type=int, help="outputs of the linear layer")
    return parser


def cell_settings(args: argparse.Namespace, rows: Sequence[dict]) -> dict:
    """What cells leave open: from the options, else the file's published network, else the papers'."""
    stem = args.stem or ("imagenet" if args.shape is None or min(args.shape[1:]) >= 64 else "cifar")
    own = {}
    for row in rows:
        backbone = row["model"]["backbone"]
        if backbone["stem"] == stem:
            own = {key: backbone[key] for key in ("channels", "layers")}
            own |= {"classes": row["model"]["num_classes"], "shape": [3, *row["input_size"]]}
    given = {key: getattr(args, key) for key in SETTINGS[stem] if getattr(args, key) is not None}
    return {"stem": stem, **SETTINGS[stem], **own, **given}


def cells_row(file: ArchitectureFile, args: argparse.Namespace) -> dict | None:
    """The network around an architecture file's cells; None for a file of something else."""
    from backbones.published import read_rows

    if "backbone" not in file.parts:
        raise ValueError(f"{file.path} has no part 'backbone', only {', '.join(file.parts)}")
    inputs = [c for c in file.parts["backbone"].space if re.fullmatch(r"normal/n\d+/inputs", c.name)]
    if not inputs:
        return None
    chosen = cell_settings(args, read_rows(file.path))
    backbone = {"type": "search.CellNet", **{key: chosen[key] for key in ("channels", "layers", "stem")}}
    backbone |= {"nodes": len(inputs), "keep": inputs[0].k}
    return {
        "name": Path(file.path).stem,
        "architecture": file.path,
        "model": {"type": "search.ImageClassifier", "num_classes": chosen["classes"], "backbone": backbone},
        "input_size": chosen["shape"][1:],
        "settings": chosen,
    }


def architecture_path(text: str) -> Path:
    """The file that a path, or the stem of a shipped file, means."""
    shipped = ARCHS / f"{text.lower().replace('-', '_')}.json"
    return shipped if shipped.is_file() else Path(text)


def config_row(args: argparse.Namespace) -> dict:
    """The row of a config's model, with the architecture in its searchable modules."""
    from search import space
    from search.engine import config
    from search.engine.networks import derived_config
    from search.engine.run import adapter_of
    from search.engine.searchable import searchable, set_architecture

    if args.shape is None:
        raise ValueError("--config needs the input: give --shape C H W")
    cfg = config.load(args.config)
    config.model_of(cfg, args.config)
    if args.architecture is not None:
        set_architecture(cfg, str(architecture_path(args.architecture)))
    for module in searchable(cfg.model):
        if module.get("arch") is None:
            raise ValueError(f"the model's {module['type']} has no architecture: give --config {args.config} ARCH.json")
    model = config.model_of(cfg, args.config)
    if args.architecture is not None and cfg.get("task"):
        parts = space.load(architecture_path(args.architecture)).parts.values()
        chosen = space.Architecture({name: value for part in parts for name, value in part.architecture.items()})
        model = derived_config(model, adapter_of(cfg), chosen)
    return {"name": Path(args.config).stem, "config": model, "scope": cfg.get("default_scope")}


def require_options(args: argparse.Namespace, rows: Sequence[dict]) -> None:
    """Raise ValueError for the options of cells with anything else."""
    from search.engine.errors import whole_number

    for name in ("stem", "channels", "layers", "classes"):
        value = getattr(args, name)
        if value is None:
            continue
        if name != "stem":
            whole_number(f"--{name}", value)
        if not all("settings" in row for row in rows):
            raise ValueError(f"--{name} goes with an architecture file of cells; {rows[0]['name']} says this itself")


def rows_of(args: argparse.Namespace) -> list[dict]:
    """The rows that the options ask for."""
    from backbones import published
    from search import space

    if args.all:
        return list(published.rows())
    if args.spec is not None:
        return published.read_rows(args.spec)
    if args.config is not None:
        return [config_row(args)]
    path = architecture_path(args.architecture)
    if path.suffix != ".json":
        return [published.find(args.architecture)]
    rows = published.read_rows(path)
    if not rows or "architecture" in rows[0]:
        cells = cells_row(space.load(path), args)
        rows = [cells] if cells else rows
    if not rows:
        raise ValueError(f"{path} doesn't say what it is a part of: give --config CONFIG {path} --shape C H W")
    return rows


def build(name: str, config: dict, scope: str | None) -> nn.Module:
    """The model of a row. ValueError for values that its classes can't use, NotBuildable where their package isn't there."""
    from backbones.spec import NotBuildable
    from search.engine.networks import network_of

    package = scope or str(config.get("type")).partition(".")[0]
    if package in EXTRAS and find_spec(package) is None:
        raise NotBuildable(f"it needs {package}, which isn't installed: make setup EXTRAS={EXTRAS[package]}")
    return network_of(name, config, scope)


def result_of(row: dict, args: argparse.Namespace) -> dict:
    """The counts of one row; what can't be built has a `missing` sentence in their place."""
    from backbones import published
    from backbones.spec import NotBuildable
    from search.cost.published import counted, input_size_of

    size = [3, *(input_size_of(row) or (224, 224))] if args.shape is None else args.shape
    try:
        config = published.config_of(row) if "config" not in row else row["config"]
        result = counted(row, partial(build, row["name"], config, row.get("scope")), size, args.convention)
    except NotBuildable as error:
        printed = row.get("published_as") or {}
        printed = {key: printed.get(name) for key, name in (("params", "params"), ("macs", "madds"))}
        return {
            "name": row["name"],
            "family": row.get("family", ""),
            "params": None,
            "macs": None,
            "activations": None,
            "input_size": [3, *row["input_size"]] if row.get("input_size") else None,
            "convention": None,
            "published": {key: value for key, value in printed.items() if value},
            "missing": str(error),
        }
    if not row.get("input_size") and args.shape is None:
        result["remarks"].append("the source doesn't say the input size: 224x224 assumed")
    return {**result, **row.get("settings", {})} | {"input_size": result["input_size"]}


def show(results: list[dict]) -> None:
    """One table, and what its words mean."""
    from rich.console import Console
    from rich.table import Table

    from search.cost import ACTIVATIONS, CONVENTIONS, PARAMS

    table, numbers = Table(), ("params (M)", "MACs (M)", "acts (M)", "printed")
    for column in ("network", "input", *numbers[::3], "", "MACs (M)", "printed", "", "acts (M)", "counted as", "remarks"):
        table.add_column(column, justify="right" if column in numbers else "left")
    for result in results:
        cells = [result["name"], "x".join(map(str, (result["input_size"] or [])[-2:]))]
        for figure, digits in (("params", 4), ("macs", 2)):
            value = result[figure]
            cells += ["-" if value is None else f"{value / 1e6:.{digits}f}", result["published"].get(figure, "-")]
            cells.append(verdict(result, figure))
        cells.append("-" if result["activations"] is None else f"{result['activations'] / 1e6:.2f}")
        if "missing" in result:
            cells += ["-", result["missing"]]
        else:
            params_by = "" if result["params_convention"] == "all" else f", params {result['params_convention']}"
            cells += [result["convention"] + params_by, "; ".join(result["remarks"])]
        table.add_row(*cells)
    console = Console(width=None if sys.stdout.isatty() else 200)
    console.print(table)
    used = {result["convention"] for result in results} - {None}
    for name in sorted(used):
        console.print(f"{name}: {CONVENTIONS[name]}")
    console.print(f"acts: {ACTIVATIONS}")
    for name in sorted({result.get("params_convention", "all") for result in results} - {"all"}):
        console.print(f"params {name}: {PARAMS[name]}")
    if len(results) > 1:
        console.print(summary(results))


def verdict(result: dict, figure: str) -> str:
    """A status in words, with the difference where there is one."""
    status = result.get("status", {}).get(figure)
    if status is None or status == "exact":
        return status or ""
    return f"{status} {100 * result['difference'][figure]:+.2f} %"


def summary(results: list[dict]) -> str:
    """How many figures agree, and how many rows couldn't be built."""
    words: dict[str, int] = {}
    for result in results:
        for status in result.get("status", {}).values():
            words[status] = words.get(status, 0) + 1
    missing = sum("missing" in result for result in results)
    counts = ", ".join(f"{count} {status}" for status, count in sorted(words.items()))
    return f"{len(results)} rows; printed figures: {counts}; {missing} rows not built, each with its reason"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool and return its exit code."""
    parser = build_parser()
    args = parser.parse_args(argv)
    asked = [args.all, args.spec is not None, args.config is not None or args.architecture is not None]
    if sum(asked) != 1:
        parser.error("give one of: a network or an architecture, --spec FILE, --config CONFIG, --all")
    from search.engine import command

    def action() -> int:
        rows = rows_of(args)
        require_options(args, rows)
        results = [result_of(row, args) for row in rows]
        if len(results) == 1 and "missing" in results[0]:
            raise ValueError(f"{results[0]['name']}: {results[0]['missing']}")
        if args.json:
            print(json.dumps(results if args.all or len(results) > 1 else results[0], indent=1))
        else:
            show(results)
        return 0

    return command.guarded(action)


if __name__ == "__main__":
    sys.exit(main())
