"""Count parameters and multiply-adds: python tools/cost.py NAME_OR_JSON [--shape 3 224 224] [--json]."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from search.space import ArchitectureFile

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    # the folder of this script comes first on the path, where search.py would hide the package of that name
    sys.path[0] = str(ROOT)

ARCHS = ROOT / "backbones" / "archs"
# the papers' networks: the input, and what --channels, --layers and --classes are unless given
SETTINGS = {
    "cifar": {"shape": [3, 32, 32], "channels": 36, "layers": 20, "classes": 10},
    "imagenet": {"shape": [3, 224, 224], "channels": 48, "layers": 14, "classes": 1000},
}
EPILOG = """The whole classifier is counted: backbone, pooling, linear layer; no auxiliary head.
Without --stem and --shape it is the published ImageNet network (48 channels, 14 cells, 1000 classes unless
the file says otherwise); with a --shape below 64 pixels, or --stem cifar, the CIFAR one (36, 20, 10).

exit codes: 0 success, 2 a mistake in the options or the file, said in one sentence"""


def build_parser() -> argparse.ArgumentParser:
    """The command line; nothing slow is imported before it has been read."""
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    shipped = ", ".join(sorted(file.stem for file in ARCHS.glob("*.json")))
    parser.add_argument("architecture", nargs="?", help=f"an architecture file, or one of {shipped}")
    parser.add_argument("--all", action="store_true", help="a table of all shipped architectures in both settings")
    parser.add_argument("--shape", type=int, nargs=3, metavar=("C", "H", "W"), help="one input image")
    parser.add_argument("--stem", choices=list(SETTINGS), help="the layers before the first cell")
    parser.add_argument("--channels", type=int, help="channels of the first cell's nodes")
    parser.add_argument("--layers", type=int, help="number of cells")
    parser.add_argument("--classes", type=int, help="outputs of the linear layer")
    parser.add_argument("--convention", default="macs", choices=["macs", "thop-legacy"], help="how operations are counted")
    parser.add_argument("--json", action="store_true", help="plain counts as JSON")
    return parser


def settings(args: argparse.Namespace, provenance: dict) -> dict:
    """What the architecture leaves open: from the options, else the file's published network, else the papers'."""
    stem = args.stem or ("imagenet" if args.shape is None or min(args.shape[1:]) >= 64 else "cifar")
    own = {}
    for network in provenance.get("networks", {}).values():
        if network["backbone"]["stem"] == stem:
            own = {key: network["backbone"][key] for key in ("channels", "layers")}
            own |= {"classes": network["num_classes"], "shape": [3, *network["input_size"]]}
    given = {key: getattr(args, key) for key in SETTINGS[stem] if getattr(args, key) is not None}
    return {"stem": stem, **SETTINGS[stem], **own, **given}


def cell_shape(file: ArchitectureFile) -> dict:
    """Nodes of a cell, and inputs that each keeps, as the file's space has them."""
    if "backbone" not in file.parts:
        raise ValueError(f"{file.path} has no part 'backbone', only {', '.join(file.parts)}")
    inputs = [c for c in file.parts["backbone"].space if re.fullmatch(r"normal/n\d+/inputs", c.name)]
    if not inputs:
        raise ValueError(f"{file.path} is no architecture of cells, which is what this tool builds and counts")
    return {"nodes": len(inputs), "keep": inputs[0].k}


def cost_of(name: str, args: argparse.Namespace) -> dict:
    """Counts of one architecture, with the settings they hold for."""
    from search import space
    from search.cost import count
    from search.registry import MODELS

    path = ARCHS / f"{name.lower().replace('-', '_')}.json"
    if not path.is_file() and not Path(name).exists():
        shipped = ", ".join(sorted(file.stem for file in ARCHS.glob("*.json")))
        raise ValueError(f"{name!r} is no architecture file and none of the shipped ones: {shipped}")
    file = space.load(path if path.is_file() else name)
    chosen = settings(args, file.provenance)
    model = {
        "type": "search.ImageClassifier",
        "num_classes": chosen["classes"],
        "backbone": {
            "type": "search.CellNet",
            "arch": file.path,
            **{key: chosen[key] for key in ("channels", "layers", "stem")},
            **cell_shape(file),
        },
    }
    cost = count(lambda: MODELS.build(model), tuple(chosen.pop("shape")), convention=args.convention)
    return {
        "name": path.stem if path.is_file() else name,
        "params": cost.params,
        "macs": cost.macs,
        "input_size": list(cost.input_size),
        "convention": cost.convention,
        **chosen,
    }


def show(rows: list[dict]) -> None:
    """One table; the convention under it."""
    from rich.console import Console
    from rich.table import Table

    from search.cost import CONVENTIONS

    table = Table()
    for column in ("architecture", "input", "network", "params (M)", "MACs (M)"):
        table.add_column(column, justify="right" if column.endswith("(M)") else "left")
    for row in rows:
        table.add_row(
            row["name"],
            "x".join(map(str, row["input_size"])),
            f"{row['stem']} stem, {row['channels']} channels, {row['layers']} cells, {row['classes']} classes",
            f"{row['params'] / 1e6:.4f}",
            f"{row['macs'] / 1e6:.2f}",
        )
    console = Console(width=None if sys.stdout.isatty() else 110)
    console.print(table)
    console.print(f"{rows[0]['convention']}: {CONVENTIONS[rows[0]['convention']]}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool and return its exit code."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.all == (args.architecture is not None):
        parser.error("give one architecture, or --all")
    from search.engine import command

    def action() -> int:
        if args.all:
            names = sorted(file.stem for file in ARCHS.glob("*.json"))
            stems = [args.stem] if args.stem else list(SETTINGS)
            each = [argparse.Namespace(**{**vars(args), "stem": stem}) for stem in stems]
            rows = [cost_of(name, setting) for name in names for setting in each]
            print(json.dumps(rows, indent=1)) if args.json else show(rows)
        else:
            row = cost_of(args.architecture, args)
            print(json.dumps(row, indent=1)) if args.json else show([row])
        return 0

    return command.guarded(action)


if __name__ == "__main__":
    sys.exit(main())
