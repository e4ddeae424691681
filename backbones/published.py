"""The published networks that this repository knows: rows of tables, each with its specification and printed figures.

Rows stand in two kinds of files below `FOLDERS`:
- an architecture file (search/space/files.py), where the family has a search space: its provenance lists `networks`, each a row
  whose `model` is a config without the architecture;
- {"format": "visnas-published", "version": 1, "rows": [...]}: rows whose `spec` is in one of the schemas of backbones/spec.py.

A row has a `name`, a `family`, an `input_size` (H, W), what was printed (`published_as`: "params" and "madds" as text), an
independent count (`check`), `source`, `licence` and `notes`.
"""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from torch import nn

from backbones.spec import NotBuildable, model_config
from search import space
from search.registry import MODELS

FORMAT = "visnas-published"
VERSION = 1
ARCHS = Path(__file__).parent / "archs"
# rows whose specification came from a source without a free licence aren't shipped: only the tests have them
FOLDERS = (ARCHS, Path(__file__).resolve().parents[1] / "tests" / "data" / "published")

# what a count had to assume because the specification is silent, in the row's words -> in the schema's
ASSUMED: Mapping[str, Mapping] = {"biases of first/last convs and fc assumed": {"biases": True}}


def _is_size(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(n, int) and n > 0 for n in value)


def _is_print(value: Any) -> bool:
    return isinstance(value, Mapping) and all(text is None or isinstance(text, str) for text in value.values())


def _is_check(value: Any) -> bool:
    inferred = value.get("inferred", []) if isinstance(value, Mapping) else None
    return isinstance(inferred, list) and all(isinstance(rule, str) for rule in inferred)


# what is read of a row; each may be null, the name apart
FIELDS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "name": (lambda value: isinstance(value, str), "text"),
    "spec": (lambda value: isinstance(value, Mapping), "an object"),
    "input_size": (_is_size, "[height, width] in pixels"),
    "published_as": (_is_print, 'printed figures as text, such as {"params": "5.3", "madds": "390"}'),
    "check": (_is_check, "an object, its `inferred` a list of text"),
    "notes": (lambda value: isinstance(value, str), "text"),
}


def read_rows(path: str | os.PathLike) -> list[dict]:
    """The rows of a file: an architecture file, a file of rows, a list of rows, one row, or a bare specification.

    Raises ValueError, naming the file, for anything else.
    """
    path = Path(path)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"there is no file {path}") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} can't be read as JSON: {error}") from None
    if isinstance(data, dict) and data.get("format") == space.files.FORMAT:
        return _architecture_rows(path)
    if isinstance(data, dict) and data.get("format") == FORMAT:
        if data.get("version") != VERSION:
            raise ValueError(f"{path} has version {data.get('version')!r}, but this visnas reads version {VERSION}")
        data = data.get("rows")
    elif isinstance(data, dict):
        data = [{"name": path.stem, "spec": data}] if "schema" in data else [data]
    found = data if isinstance(data, list) else []
    if not found or not all(isinstance(row, dict) and "spec" in row and "name" in row for row in found):
        raise ValueError(f"{path} holds no rows: each needs a name and a spec")
    for row in found:
        _require_fields(row, path)
    return found


def _require_fields(row: Mapping, path: Path) -> None:
    for field, (fits, described) in FIELDS.items():
        value = row.get(field)
        if not fits(value) and (value is not None or field == "name"):
            raise ValueError(f"{path}: {field} of row {row['name']!r} must be {described}, not {value!r}")


def _architecture_rows(path: Path) -> list[dict]:
    file = space.load(path)
    networks = file.provenance.get("networks", {})
    shared = {key: value for key, value in file.provenance.items() if key != "networks"}
    return [{**shared, "name": name, "architecture": str(path), **network} for name, network in networks.items()]


@cache
def _all_rows(folders: tuple[Path, ...]) -> tuple[dict, ...]:
    return tuple(row for folder in folders for file in sorted(folder.glob("*.json")) for row in read_rows(file))


def rows(folders: Sequence[Path] = FOLDERS) -> tuple[dict, ...]:
    """Every row of every file in these folders (a folder that isn't there has none)."""
    return _all_rows(tuple(folders))


def find(name: str) -> dict:
    """The row of this name. Raises ValueError naming near ones."""
    known = {row["name"].lower(): row for row in rows()}
    if name.lower() in known:
        return known[name.lower()]
    near = [known[key]["name"] for key in get_close_matches(name.lower(), known, n=3, cutoff=0.4)]
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "tools/cost.py --all lists them"
    raise ValueError(f"no published network is called {name!r}: {hint}")


def one_row(source: str | os.PathLike) -> dict:
    """The row of this name, or of this file. Raises ValueError where there is none, and for a file that holds several."""
    if Path(source).suffix != ".json" and not Path(source).is_file():
        return find(str(source))
    found = read_rows(source)
    if not found:
        raise ValueError(f"{source} is an architecture alone: give a config, and this file as its architecture")
    if len(found) > 1:
        names = ", ".join(repr(row["name"]) for row in found)
        raise ValueError(f"{source} holds {len(found)} networks: give one by its name, of {names}")
    return found[0]


def config_of(row: Mapping) -> dict:
    """The config of a row's whole model. Raises NotBuildable without a specification, and as `model_config` does.

    A row whose printed parameters include an auxiliary head has one, trained with the weight of the papers.
    """
    if "architecture" in row:
        # a copy to the bottom: mm's builders write into configs
        model = deepcopy(row["model"])
        model["backbone"]["arch"] = row["architecture"]
        return model
    if row["spec"] is None:
        raise NotBuildable("no public specification")
    config = model_config(_completed(row))
    if "aux head" in ((row.get("check") or {}).get("convention") or ""):
        config["backbone"] |= dict(auxiliary=True, num_classes=config["num_classes"])
        config["aux_weight"] = 0.4
    return config


def _completed(row: Mapping) -> Mapping:
    """The specification with what the row says elsewhere: rules that its count assumed, parts that only our row has."""
    spec = dict(row["spec"])
    for rule in (row.get("check") or {}).get("inferred", []):
        spec |= ASSUMED.get(rule, {})
    for ours in rows(FOLDERS[:1]):
        # tables of others refer to their code for what ours spell out
        if ours["name"] == row["name"] and ours["spec"] and "note" in spec and spec.get("schema") == ours["spec"]["schema"]:
            spec |= {key: value for key, value in ours["spec"].items() if key not in spec}
    return spec


@MODELS.register_module()
def published(name: str | None = None, spec: Mapping | str | os.PathLike | None = None, **settings) -> nn.Module:
    """A published network's backbone: `dict(type='search.published', name='MobileNetV2 1.0 @224', out_indices=(1, 2, 3, 4))`.

    `name`: one of `tools/cost.py --all`; or `spec`: a specification, or a file with one row. `settings` go to the backbone;
    ValueError for one that its class doesn't have.
    """
    if (name is None) == (spec is None):
        raise ValueError("give either the name of a published network or a spec")
    if name is not None:
        config = config_of(find(name))
    elif isinstance(spec, Mapping):
        config = model_config(spec)
    else:
        config = config_of(one_row(spec))
    backbone = {key: value for key, value in config["backbone"].items() if key not in ("auxiliary", "num_classes")}
    known = inspect.signature(MODELS.get(backbone["type"])).parameters
    if unknown := sorted(set(settings) - set(known)):
        raise ValueError(f"{unknown[0]!r} is no setting of {backbone['type']}: known are {', '.join(known)}")
    return MODELS.build({**backbone, **settings})
