"""The searchable modules of a model config: those whose class takes an architecture as ``arch``."""

import copy
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config

from search import space
from search.registry import MODELS

from .errors import UserError
from .keywords import keywords


def searchable(model: Any) -> Iterator[dict[str, Any]]:
    """The configs, inside a model's config, of its searchable modules."""
    if isinstance(model, Mapping):
        built = MODELS.get(model["type"]) if isinstance(model.get("type"), str) else model.get("type")
        if built is not None and "arch" in (keywords(built) or ()):
            yield model
        for value in model.values():
            yield from searchable(value)
    elif isinstance(model, list | tuple):
        for value in model:
            yield from searchable(value)


def modules_with(model: Any, argument: str, place: str = "model") -> Iterator[tuple[str, Any]]:
    """(key of the argument, its value now) of the searchable modules in a model's config that take it."""
    if isinstance(model, Mapping):
        built = MODELS.get(model["type"]) if isinstance(model.get("type"), str) else model.get("type")
        if built is not None and {"arch", argument} <= (keywords(built) or set()):
            yield f"{place}.{argument}", model.get(argument, inspect.signature(built).parameters[argument].default)
    items = model.items() if isinstance(model, Mapping) else enumerate(model) if isinstance(model, list | tuple) else ()
    for key, value in items:
        yield from modules_with(value, argument, f"{place}.{key}")


def with_argument(model: Mapping[str, Any], argument: str, value: Any) -> dict[str, Any]:
    """A copy of a model's config in which every searchable module that takes the argument is given this value."""
    changed = copy.deepcopy(dict(model))
    for module in searchable(changed):
        if any(modules_with({"type": module["type"]}, argument)):
            module[argument] = value
    return changed


def set_architecture(cfg: Config, path: str) -> None:
    """Name an architecture file in every searchable module of the config's model.

    Raises UserError for a model without one, ValueError for a file that isn't an architecture's.
    """
    space.load(path)
    modules = list(searchable(cfg.get("model")))
    if not modules:
        raise UserError(
            "an architecture is given, but the config's model has no searchable module, such as type='search.CellNet'"
        )
    for module in modules:
        module["arch"] = path


def require_architecture(cfg: Config) -> None:
    """Raises UserError when a searchable module of the config's model is left without an architecture."""
    for module in searchable(cfg.get("model")):
        if module.get("arch") is None:
            raise UserError(f"The model's {module['type']} has no architecture: give --arch architecture.json")
