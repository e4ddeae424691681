"""What a detector's config must agree with: classes of the data, channels and strides of its backbone."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config
from torch import nn

from search.engine.errors import UserError
from search.engine.task_data import found, say, takes, write_num_classes
from search.registry import MODELS
from search.supernet import record

# keys of a detector's heads; an RPN tells objects from background, whatever their classes
HEADS = ("bbox_head", "mask_head")
# of mmdet, replaced by ours, which check what they read and score a split
_DATASETS = ("CocoDataset", "mmdet.CocoDataset")
_METRICS = ("CocoMetric", "mmdet.CocoMetric")


def groups(value: Any, place: str = "model") -> Iterator[tuple[str, dict]]:
    """(place, group) of every dict inside a config."""
    if isinstance(value, Mapping):
        yield place, value
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, inner in items:
        yield from groups(inner, f"{place}.{key}")


def write_classes(model: Any, number: int) -> None:
    """Set ``num_classes`` in every head for boxes or masks, and wherever else the config has it or a class requires it."""
    write_num_classes(model, number)
    for place, group in groups(model):
        key = next((part for part in reversed(place.split(".")) if not part.isdigit()), "")
        if key in HEADS and "type" in group and takes(MODELS, group, "num_classes"):
            group["num_classes"] = number
        elif key == "rpn_head" and "num_classes" in group:
            group["num_classes"] = 1


def write_channels(model: Any) -> None:
    """Write the channels of the backbone's maps into the neck; a value that is changed is logged.

    Left alone are models without a neck, and backbones that don't tell their ``out_channels``. Raises UserError where the
    maps of a feature pyramid have other strides than those that a head's boxes are placed by.
    """
    if not isinstance(model, Mapping) or not isinstance(model.get("backbone"), Mapping) or not model.get("neck"):
        return
    backbone = _built(model["backbone"])
    channels = getattr(backbone, "out_channels", None)
    neck = model["neck"][0] if isinstance(model["neck"], list | tuple) else model["neck"]
    if channels is None or not takes(MODELS, neck, "in_channels"):
        return
    if list(neck.get("in_channels") or ()) != list(channels):
        if neck.get("in_channels") is not None:
            say(f"model.neck.in_channels={list(neck['in_channels'])} is changed to {list(channels)}, what the backbone gives")
        neck["in_channels"] = list(channels)
    start = inspect.signature(found(MODELS, neck)).parameters.get("start_level")
    if start is not None:
        _check_strides(model, backbone.out_strides, neck.get("start_level", start.default))


def _built(part: Mapping[str, Any]) -> nn.Module:
    modules: list[nn.Module] = []
    record(lambda: modules.append(MODELS.build(copy.deepcopy(part))))
    return modules[-1]


def _check_strides(model: Mapping[str, Any], strides: tuple[int, ...], start_level: int) -> None:
    if not 0 <= start_level < len(strides):
        raise UserError(f"model.neck.start_level={start_level}, but the backbone returns {len(strides)} maps")
    for place, group in groups({key: value for key, value in model.items() if key.endswith("head")}):
        own = group.get("featmap_strides") or group.get("strides")
        if isinstance(own, list | tuple) and own and isinstance(own[0], int) and own[0] != strides[start_level]:
            raise UserError(
                f"{place} has strides from {own[0]} on, but the maps of model.neck begin with stride {strides[start_level]}: "
                "change them, the backbone's out_indices or the neck's start_level"
            )


def checked_dataset(loader: str, dataset: dict) -> None:
    """Let a loader's data set of mmdet's CocoDataset be ours, which reads a checked file and a split of it; this is logged."""
    if dataset.get("type") in _DATASETS:
        say(f"{loader}.dataset.type={dataset['type']!r} is changed to 'search.CocoImages', which checks the annotation file")
        dataset["type"] = "search.CocoImages"


def score_by(cfg: Config, evaluator: str, ann_file: str) -> None:
    """Let an evaluator's COCO metrics read the annotation file that their data set reads; mmdet's become ours, which is logged.

    Raises UserError for mmdet's CocoMetric with settings that ours doesn't have.
    """
    metrics = cfg.get(evaluator) or []
    for metric in [metrics] if isinstance(metrics, Mapping) else metrics:
        if metric.get("type") in _METRICS:
            asked = metric.get("metric", "bbox")
            if asked not in ("bbox", ["bbox"]):
                raise UserError(f"{evaluator}.metric={asked!r}: boxes are scored, by metric='bbox'")
            say(
                f"{evaluator}.type={metric['type']!r} is changed to 'search.BoxAP': scores are in percent, a hundred times "
                "mmdet's, and of the images of the split alone"
            )
            metric.pop("metric", None)
            metric["type"] = "search.BoxAP"
            own = [key for key in metric if key not in ("type", "ann_file", "classwise", "collect_device", "prefix")]
            if own:
                raise UserError(f"{evaluator}.{own[0]} is no setting of search.BoxAP, which scores as COCO does: leave it out")
        if metric.get("type") == "search.BoxAP":
            metric["ann_file"] = ann_file
