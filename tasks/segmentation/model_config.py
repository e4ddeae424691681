"""What a segmentor's config must agree with: ignored label, channels of its backbone, classes of its losses, crops."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.config import Config
from torch import nn

from search.engine.errors import UserError
from search.engine.task_data import found, say
from search.registry import MODELS
from search.space import Architecture
from search.supernet import record
from tasks.segmentation.auto_deeplab_head import AutoDeepLabSearchHead

IGNORED = 255
HEADS = ("decode_head", "auxiliary_head")


def groups(value: Any, place: str = "model") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(place, group) of every dict inside a config."""
    if isinstance(value, Mapping):
        yield place, value
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, inner in items:
        yield from groups(inner, f"{place}.{key}")


def heads_of(model: Any) -> Iterator[tuple[str, dict]]:
    """(place, config) of a segmentor's decode and auxiliary heads."""
    for key in HEADS:
        given = (model or {}).get(key)
        for i, head in enumerate(given if isinstance(given, list | tuple) else [given]):
            if isinstance(head, Mapping):
                yield (f"model.{key}.{i}" if isinstance(given, list | tuple) else f"model.{key}"), head


def ignored_label(cfg: Config, datasets: Sequence[Mapping[str, Any]]) -> int:
    """The label that means no class; UserError where datasets, heads, padding and metrics differ in it."""
    said: dict[int, str] = {}

    def add(place: str, value: Any) -> None:
        if value is not None:
            said.setdefault(value, place)

    for dataset in datasets:
        add("the data sets", dataset.get("ignore_index", IGNORED))
    for place, head in heads_of(cfg.get("model")):
        add(place, head.get("ignore_index", IGNORED))
    if isinstance((cfg.get("model") or {}).get("data_preprocessor"), Mapping):
        add("model.data_preprocessor.seg_pad_val", cfg.model.data_preprocessor.get("seg_pad_val", IGNORED))
    for key in ("val_evaluator", "test_evaluator"):
        for _, group in groups(cfg.get(key)):
            if "type" in group:
                add(key, group.get("ignore_index", IGNORED))
    if len(said) > 1:
        (one, here), (other, there) = list(said.items())[:2]
        raise UserError(f"the ignored label is {one} in {here} but {other} in {there}: write the same ignore_index everywhere")
    return next(iter(said))


def write_channels(model: Any) -> None:
    """Write the channels of the backbone's maps into the neck and the heads that read them; a value that is changed is logged.

    Left alone are backbones and necks that don't tell their maps' ``out_channels``, and what follows them. Raises UserError for
    a head that reads a map which there isn't.
    """
    if not isinstance(model, Mapping) or not isinstance(model.get("backbone"), Mapping):
        return
    channels, giver = _out_channels(model["backbone"]), "backbone"
    neck = model.get("neck")
    if neck is not None and channels is not None:
        if not isinstance(neck, Mapping) or not isinstance(getattr(MODELS.get(neck["type"]), "out_channels", None), property):
            return
        _write(neck, "model.neck", "in_channels", list(channels), giver)
        channels, giver = _out_channels(neck), "neck"
    if channels is None:
        return
    for place, head in heads_of(model):
        index = head.get("in_index")
        if index is None:
            # mmseg's default, and that of heads which read several maps
            listed = head.get("in_channels")
            index = list(range(len(listed))) if isinstance(listed, list | tuple) else -1
        try:
            needed: Any = channels[index] if isinstance(index, int) else [channels[i] for i in index]
        except IndexError:
            raise UserError(f"{place}.in_index={index}, but the {giver} returns {len(channels)} maps") from None
        _write(head, place, "in_channels", needed, giver)
        if head.get("c1_in_channels"):
            _write(head, place, "c1_in_channels", channels[0], giver)


def _write(group: Any, place: str, key: str, value: Any, giver: str) -> None:
    if group.get(key) == value:
        return
    if group.get(key) is not None:
        say(f"{place}.{key}={group[key]} is changed to {value}, what the {giver} gives")
    group[key] = value


def _out_channels(part: Mapping[str, Any]) -> tuple[int, ...] | None:
    built: list[nn.Module] = []
    record(lambda: built.append(MODELS.build(copy.deepcopy(part))))
    return getattr(built[-1], "out_channels", None)


def derived_model(model: Mapping[str, Any], architecture: Architecture) -> Mapping[str, Any]:
    """The config of the network that an architecture of a searched path stands for: without the other strides' heads.

    Auto-DeepLab's head reads a supernet's maps of the last layer; the derived network has one of these, its output, last.
    Raises UserError for a head that doesn't read the stride at which the path ends.
    """
    model = copy.deepcopy(model)
    if "path" not in architecture:
        return model
    for place, head in heads_of(model):
        kind = found(MODELS, head)
        if not (isinstance(kind, type) and issubclass(kind, AutoDeepLabSearchHead)):
            continue
        strides = list(head.get("strides", inspect.signature(kind).parameters["strides"].default))
        end = architecture["path"][-1]
        if end not in strides:
            raise UserError(f"{place}.strides={strides} lacks {end}, at which a path of the backbone may end: add it")
        i = strides.index(end)
        head.update(strides=[end], in_channels=[head["in_channels"][i]], in_index=[-1])
    return model


def check_losses(model: Any, classes: int) -> None:
    """Raises UserError for a loss whose weights of classes are more or fewer than there are classes."""
    for place, group in groups(model):
        weights = group.get("class_weight")
        if isinstance(weights, Sequence) and not isinstance(weights, str) and len(weights) != classes:
            raise UserError(f"{place}.class_weight has {len(weights)} values, but the data have {classes} classes")


def check_crop(cfg: Config) -> None:
    """Raises UserError where the model pads training images to a size below their crop."""
    size = ((cfg.get("model") or {}).get("data_preprocessor") or {}).get("size")
    for loader in ("train_dataloader", "arch_dataloader"):
        for _, group in groups(cfg.get(loader), loader):
            crop = group.get("crop_size")
            if size is not None and crop is not None and any(a > b for a, b in zip(sides(crop), sides(size), strict=True)):
                raise UserError(
                    f"{loader} crops {tuple(sides(crop))}, more than model.data_preprocessor.size={tuple(sides(size))}"
                )


def sides(size: Any) -> tuple[int, int]:
    """(height, width) of a size that may be one number, for a square."""
    both = (size, size) if isinstance(size, int) else tuple(size)
    return int(both[0]), int(both[1])
