"""What an entry of a benchmark gives to the searchable modules of its config's model, part by part.

An architecture is a part's, not a task's: a file that was searched as a classifier's backbone is a detector's too where the
spaces agree, and the parts of one network may come from several files.
"""

import copy
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn

from search.engine.benchmark_file import Entry
from search.engine.errors import UserError, values_are_the_users
from search.engine.searchable import searchable
from search.registry import MODELS
from search.space import Architecture, Space, load, save, split_parts
from search.strategies import random_architectures
from search.supernet import Record, record

# the strategy that a benchmark's own files name
BENCHMARK = "benchmark"
# by part its space, what is chosen, and where that is from
Parts = dict[str, tuple[Space, Architecture, dict[str, Any]]]


def architecture_of(entry: Entry, cfg: Config) -> Parts:
    """By part the space, what is chosen, and where that is from; of the parts that the config's model has."""
    if not entry.arch and entry.random is None:
        return {}
    modules = list(searchable(cfg.get("model")))
    if not modules:
        raise UserError(f"an architecture is given, but the model of {entry.config} has no searchable module")
    names = list(dict.fromkeys(_part_of(module) for module in modules))
    if entry.random is not None:
        recorded = _recorded(cfg, without_arch=True)
        (drawn,) = random_architectures(recorded.space, 1, entry.random)
        origin = {"strategy": "random", "seed": entry.random}
        return {name: (*part, origin) for name, part in split_parts(recorded.parts, drawn).items()}
    parts: Parts = {}
    held: dict[str, str] = {}
    for path in entry.arch:
        file = load(path)
        for name, part in file.parts.items():
            if name in held:
                raise UserError(f"both {held[name]} and {path} have a part {name!r}: leave one out")
            held[name] = path
            if name in names:
                parts[name] = (part.space, part.architecture, _origin(path, name, file.provenance))
    for name in names:
        if name not in parts:
            has = ", ".join(sorted(held)) or "none"
            raise UserError(f"the model needs an architecture of its part {name!r}, but {', '.join(entry.arch)} has {has}")
    chosen = [name for _, architecture, _ in parts.values() for name in architecture]
    if len(set(chosen)) < len(chosen):
        twice = max(chosen, key=chosen.count)
        raise UserError(f"two parts of {', '.join(entry.arch)} have a choice named {twice!r}, so they can't be used together")
    return parts


def _part_of(module: Mapping[str, Any]) -> str:
    """The name of a searchable module's part."""
    built = MODELS.get(module["type"]) if isinstance(module["type"], str) else module["type"]
    return str(module.get("part", inspect.signature(built).parameters["part"].default))


def _origin(path: str, name: str, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Where a part is from: the file's provenance, and the task and the config of the search beside it.

    A file that a benchmark wrote says where each of its parts was from.
    """
    if provenance.get("strategy") == BENCHMARK and name in provenance.get("parts", ()):
        return dict(provenance["parts"][name])
    origin = {key: value for key, value in provenance.items() if key not in ("networks", "cost")}
    summary = Path(path).with_name("summary.json")
    if summary.is_file():
        values = json.loads(summary.read_text())
        origin |= {key: values[key] for key in ("task", "config") if key not in origin and values.get(key) is not None}
    return {"file": path, **origin}


def write(path: Path, parts: Parts) -> Path | None:
    """Write one file of all parts and return its path; None where there are none."""
    if not parts:
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    spaces = {name: (space, architecture) for name, (space, architecture, _) in parts.items()}
    save(path, spaces, {"strategy": BENCHMARK, "parts": {name: origin for name, (_, _, origin) in parts.items()}})
    return path


def require_buildable(cfg: Config) -> None:
    """UserError for an architecture of another space, and for a part that is left open."""
    left = _recorded(cfg).parts
    if left:
        raise UserError(
            f"the config leaves its {' and '.join(left)} open: give arch='architecture.json', random=0, or --arch NAME=FILE"
        )


def _recorded(cfg: Config, without_arch: bool = False) -> Record:
    """What the config's model declares when it is built on the meta device."""
    if not isinstance(cfg.get("model"), Mapping):
        raise UserError("the config has no model")
    # two-stage detectors read attributes, which plain dicts don't have
    model = copy.deepcopy(cfg.model)
    for module in searchable(model) if without_arch else ():
        module.pop("arch", None)

    def build() -> nn.Module:
        network: nn.Module = MODELS.build(copy.deepcopy(model))
        return network

    scope = DefaultScope.overwrite_default_scope(cfg.get("default_scope") or "mmengine")
    with scope, values_are_the_users("model"):
        return record(build)
