"""Write a network for use without this project.

python tools/export.py CONFIG --checkpoint D/checkpoint.pth --format onnx -o net.onnx     what tools/train.py trained
python tools/export.py "MobileNetV2 1.0 @224" --format module -o net.py                   a published network, by its name
python tools/export.py ROW.json --format torch -o net.pt2                                 a row, or a specification
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import nn

if __name__ == "__main__":
    # the folder of this script comes first on the path, where search.py would hide the package of that name
    sys.path[0] = str(Path(__file__).resolve().parents[1])

SUFFIXES = {"onnx": ".onnx", "torch": ".pt2", "module": ".py"}
EPILOG = """formats:
  onnx    one ONNX file with its weights; needs the extra 'export'
  torch   a program of torch.export, for torch.export.load
  module  a Python file with a trainable nn.Module that needs torch (and torchvision where an operation is its own), and a
          state_dict beside it, OUT.pth

Whatever is written is run first and compared with the network on random images; a file that differs isn't written.
Without --checkpoint the weights are random and batch norms have the statistics of random images.

exit codes: 0 success, 2 a mistake in the options or the files, or a network that can't be written, said in one sentence"""


class Chosen(NamedTuple):
    """A network to be built: its config, an image's size where it is known, notes on images, and types' default scope."""

    name: str
    model: dict
    input_size: tuple[int, ...] | None
    notes: dict[str, str]
    scope: str | None = None


def build_parser() -> argparse.ArgumentParser:
    """The command line; nothing slow is imported before it has been read."""
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a config (.py), a row or specification (.json), or a published network's name")
    parser.add_argument("--format", required=True, choices=list(SUFFIXES), help="see below")
    parser.add_argument("-o", "--out", required=True, metavar="OUT", help="the file to write, .onnx, .pt2 or .py")
    parser.add_argument("--checkpoint", help="the weights: a checkpoint of tools/train.py, or a state_dict")
    parser.add_argument("--arch", help="architecture file, where neither config nor checkpoint has it")
    parser.add_argument(
        "--shape", type=int, nargs=3, metavar=("C", "H", "W"), help="one image; needed where the model doesn't say it"
    )
    parser.add_argument("--dynamic-batch", action="store_true", help="onnx, torch: any number of images, not one at a time")
    parser.add_argument("--classes", type=int, help="number of classes, where a config's checkpoint doesn't say it")
    parser.add_argument("--cfg-options", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="change the config")
    return parser


def check_options(args: argparse.Namespace) -> None:
    """Raises ValueError for what can be refused before anything is built."""
    out, suffix = Path(args.out), SUFFIXES[args.format]
    if out.suffix != suffix:
        raise ValueError(f"--out {args.out!r} must end in {suffix}, the format's suffix")
    if not out.absolute().parent.is_dir():
        raise ValueError(f"--out {args.out!r}: there is no folder {out.parent}")
    if out.is_dir() or not os.access(out.absolute().parent, os.W_OK):
        raise ValueError(f"--out {args.out!r} can't be written: give a file in a folder that is yours to write to")
    weights = out.with_suffix(".pth")
    if args.format == "module" and args.checkpoint and weights.resolve() == Path(args.checkpoint).resolve():
        raise ValueError(f"--out {args.out!r} would put its weights over the checkpoint {weights}: choose another name")
    if args.format == "module" and args.dynamic_batch:
        raise ValueError("--dynamic-batch: a module takes any number of images; the option is for onnx and torch")
    if args.classes is not None and args.classes < 2:
        raise ValueError(f"--classes {args.classes}: give at least 2")
    if args.shape is not None and min(args.shape) < 1:
        raise ValueError(f"--shape {args.shape}: give three positive numbers")
    is_config = Path(args.model).suffix == ".py"
    if not is_config and (args.arch or args.cfg_options):
        raise ValueError("--arch and --cfg-options go with a config, not with a published network")


def choose(args: argparse.Namespace, saved: Mapping[str, Any]) -> Chosen:
    """What MODEL names, with the options and what a checkpoint (empty without one) says."""
    if Path(args.model).suffix == ".py":
        return from_config(args, saved)
    from backbones import published

    row = published.one_row(args.model)
    model = published.config_of(row)
    if args.classes is not None:
        set_classes(model, args.classes)
    size = row.get("input_size")
    notes = {"published in": row["source"]} if row.get("source") else {}
    notes |= pixels({"model": model})
    return Chosen(row["name"], model, None if size is None else (3, *size), notes)


def from_config(args: argparse.Namespace, saved: Mapping[str, Any]) -> Chosen:
    """The model of a config, as training builds it: classes and architecture are the checkpoint's unless options say them."""
    from search.engine import config
    from search.engine.searchable import require_architecture, set_architecture

    cfg = config.load(args.model, args.cfg_options)
    config.model_of(cfg, args.model)
    if args.arch:
        set_architecture(cfg, args.arch)
    extra = saved.get("visnas", {}).get("extra", {})
    for place, choices in extra.get("architectures", {}).items():
        node = cfg.model
        for key in place.split(".") if place else ():
            node = node.get(key, {})
        if "type" in node and node.get("arch") is None:
            node["arch"] = choices
    require_architecture(cfg)
    notes = {}
    names = (saved.get("meta", {}).get("dataset_meta") or {}).get("classes")
    if names is not None:
        notes["classes"] = json.dumps(list(names), ensure_ascii=False)
    if args.classes is None and names is None:
        raise ValueError("the number of a config's classes is read from data: give --classes N, or a checkpoint that tells it")
    model = config.model_of(cfg, args.model)
    set_classes(model, args.classes or len(names))
    for part in parts(model):
        # they need several processes to be trained
        if part.get("type") in ("SyncBN", "MMSyncBN"):
            part["type"] = "BN"
    notes |= pixels(cfg.to_dict())
    summary = Path(args.checkpoint).parent / "summary.json" if args.checkpoint else None
    size = None
    if summary is not None and summary.is_file():
        size = json.loads(summary.read_text(encoding="utf-8")).get("derived", {}).get("input_size")
    return Chosen(Path(args.model).stem, model, None if size is None else tuple(size), notes, cfg.get("default_scope"))


def parts(config: Any) -> Iterator[dict]:
    """Every mapping in a nested config, outer ones first."""
    if isinstance(config, Mapping):
        yield config
    for value in config.values() if isinstance(config, Mapping) else config if isinstance(config, list | tuple) else ():
        yield from parts(value)


def pixels(config: Mapping[str, Any]) -> dict[str, str]:
    """A note on how images are made ready: by the validation data's normalisation, or by the model's preprocessor."""
    loader = config.get("val_dataloader") or config.get("test_dataloader")
    for part in parts(loader):
        if part.get("type") in ("search.Normalize", "Normalize"):
            return {"pixels": f"(value in 0..1 - mean) / std by channel, mean {part['mean']}, std {part['std']}"}
    preprocessor = config["model"].get("data_preprocessor")
    return {"pixels": f"as this preprocessor leaves them: {json.dumps(preprocessor, default=str)}"} if preprocessor else {}


def set_classes(model: dict, number: int) -> None:
    """Write the number of classes wherever a model's config has one or its class asks for one."""
    import inspect

    from search.registry import MODELS

    for part in list(parts(model)):
        built = MODELS.get(part["type"]) if isinstance(part.get("type"), str) else part.get("type")
        asked = inspect.signature(built).parameters.get("num_classes") if built is not None else None
        if "num_classes" in part or (asked is not None and asked.default is inspect.Parameter.empty):
            part["num_classes"] = number


def build(chosen: Chosen, saved: Mapping[str, Any], args: argparse.Namespace, size: tuple[int, ...]) -> nn.Module:
    """The network in evaluation mode, with the checkpoint's weights or, deterministically, with random ones."""
    import torch

    from search import export
    from search.engine.networks import network_of
    from search.supernet import recalibrate

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = network_of(chosen.name, chosen.model, chosen.scope)
        if args.checkpoint:
            export.load_weights(model, saved, args.checkpoint)
        try:
            if not args.checkpoint:
                # fresh statistics let the signal fade away in a deep network, and comparing would mean little
                recalibrate(model, [export.random_images(size, batch=4, seed=1)], model)
            with torch.no_grad():
                model.eval()(export.random_images(size, batch=1))
        except RuntimeError as error:
            raise ValueError(f"{chosen.name} can't run on images of {shape_text(size)}: {error}") from error
    return model


def shape_text(size: Sequence[int]) -> str:
    """3x224x224."""
    return "x".join(map(str, size))


def write_program(model: nn.Module, size: tuple[int, ...], args: argparse.Namespace, notes: dict[str, str]) -> float:
    """Write an ONNX file or a program; returns its difference from the network."""
    from search import export
    from search.space.files import write_atomically

    program = export.exported_program(model, size, args.dynamic_batch)
    images = export.random_images(size)
    batches = [images] if args.dynamic_batch else list(images.split(1))
    if args.format == "onnx":
        data = export.onnx_bytes(program, notes)
        network = export.onnx_network(data)
    else:
        data = export.program_bytes(program, notes)
        network = export.program_of(data)
    found = export.difference(model, network, batches)
    export.require_equal(found)
    write_atomically(args.out, data)
    return found


def write_module(model: nn.Module, size: tuple[int, ...], args: argparse.Namespace, notes: dict[str, str]) -> float:
    """Write a Python file and its weights; returns their difference from the network."""
    import io

    import torch

    from search import export
    from search.space.files import write_atomically

    file = export.module_file(model, size)
    network = file.network().eval()
    state = export.fill(network, model)
    found = export.difference(model, network, [export.random_images(size)])
    export.require_equal(found)
    # sizes that the network's code asked for, and so are fixed, show at another size
    other = (size[0], size[1] + 32, size[2] + 64)
    sizes = {
        None: f"the original runs on {shape_text(size)}, not on {shape_text(other)}",
        True: f"any that the original takes (tried: {shape_text(size)} and {shape_text(other)})",
        False: f"{shape_text(size)} only, which its operations were written for",
    }[export.also_at(model, network, other)]
    title = f"{notes.pop('network')}, as operations of torch."
    buffer = io.BytesIO()
    torch.save(state, buffer)
    out = Path(args.out)
    write_atomically(out.with_suffix(".pth"), buffer.getvalue())
    write_atomically(out, file.source(title, {**notes, "sizes of images": sizes}).encode())
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool and return its exit code."""
    args = build_parser().parse_args(argv)
    from search.engine import checkpoint, command

    def action() -> int:
        from search import export
        from search.cost import count

        check_options(args)
        if args.format == "onnx":
            export.require_packages()
        saved = checkpoint.read(args.checkpoint) if args.checkpoint else {}
        chosen = choose(args, saved)
        size = tuple(args.shape) if args.shape else chosen.input_size
        if size is None:
            raise ValueError(f"{args.model} doesn't say how large its images are: give --shape C H W")
        model = build(chosen, saved, args, size)
        notes = {
            "network": chosen.name,
            "made by": f"python tools/export.py {shlex.join(map(str, sys.argv[1:] if argv is None else argv))}",
            "weights": f"of {args.checkpoint}" if args.checkpoint else "random",
            "parameters": f"{count(model, size).params:,}",
            "images": shape_text(size),
            **chosen.notes,
        }
        found = (write_module if args.format == "module" else write_program)(model, size, args, dict(notes))
        print(
            f"{args.out}: {chosen.name}, {notes['parameters']} parameters, weights {notes['weights']}, images {notes['images']}"
        )
        print(f"outputs differ from the network's by {found:.1g} of their variation (limit {export.TOLERANCE:g})")
        return 0

    return command.guarded(action)


if __name__ == "__main__":
    sys.exit(main())
