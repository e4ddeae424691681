"""The size of a loader's images, from its transforms alone. H, W: height and width in pixels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmcv.image import rescale_size

from search.engine.errors import UserError
from search.engine.task_data import datasets_by_key

# of the embedded scenes, where their settings don't say
_SCENES = (128, 192)


def image_size(cfg: Mapping[str, Any], loader: str = "train_dataloader") -> tuple[int, int, int]:
    """(C, H, W), the largest that a loader's images can have in a batch, with the padding of the model's data preprocessor.

    Where an aspect ratio is kept and images may be of any, a batch is as wide and as high as the longest side. Raises
    UserError where no transform limits the size.
    """
    _, dataset = next(datasets_by_key(loader, cfg[loader]))
    size: tuple[int, int] | None = None
    if _name(dataset) == "CocoScenes":
        given = dataset.get("scenes") or {}
        size = given.get("height", _SCENES[0]), given.get("width", _SCENES[1])
    for transform in dataset.get("pipeline", ()):
        size = _after(transform, size)
    if size is None:
        raise UserError(
            f"{loader}: nothing in its pipeline limits the size of images, so their memory can't be predicted: add a transform "
            "such as dict(type='mmdet.Resize', scale=(1333, 800), keep_ratio=True)"
        )
    return 3, *padded(cfg["model"], *size)


def padded(model: Mapping[str, Any], height: int, width: int) -> tuple[int, int]:
    """(H, W) of an image after the model's data preprocessor has padded it."""
    divisor = (model.get("data_preprocessor") or {}).get("pad_size_divisor", 1)
    return -(-height // divisor) * divisor, -(-width // divisor) * divisor


def crop_options(cfg: Mapping[str, Any], side: int) -> dict[str, Any]:
    """``key: value`` options that make the training images of both loaders squares of ``side`` pixels.

    Validation images keep their size. Empty where the images can't be made smaller: the last transform that fixes their size
    isn't a crop of a square.
    """
    options: dict[str, Any] = {}
    for loader in ("train_dataloader", "arch_dataloader"):
        place, dataset = next(datasets_by_key(loader, cfg[loader]))
        fixing = [(i, t) for i, t in enumerate(dataset.get("pipeline", ())) if _after(t, None) is not None]
        if not fixing or _name(fixing[-1][1]) != "RandomCrop" or len(set(fixing[-1][1]["crop_size"])) != 1:
            return {}
        options[f"{place}.pipeline.{fixing[-1][0]}.crop_size"] = (side, side)
    return options


def _after(transform: Mapping[str, Any], size: tuple[int, int] | None) -> tuple[int, int] | None:
    """(H, W) of the largest image after a transform, of images of at most ``size``; None where nothing limits it."""
    name = _name(transform)
    if name in ("Resize", "RandomResize", "RandomChoiceResize"):
        found = transform.get("scale", transform.get("scales"))
        if found is None:
            return size
        scales = [found] if not isinstance(found[0], list | tuple) else list(found)
        largest = max(transform.get("ratio_range") or (1.0,))
        keeps = transform.get("keep_ratio", False)
        sizes = [_resized([int(side * largest) for side in scale], size, keeps) for scale in scales]
        return max(high for high, _ in sizes), max(wide for _, wide in sizes)
    if name == "RandomCrop" and transform.get("crop_type", "absolute").startswith("absolute"):
        wide, high = transform["crop_size"]
        return int(high), int(wide)
    if name == "Pad" and transform.get("size") is not None:
        wide, high = transform["size"]
        return int(high), int(wide)
    return size


def _resized(scale: list[int], size: tuple[int, int] | None, keep_ratio: bool) -> tuple[int, int]:
    if not keep_ratio:
        return scale[1], scale[0]
    if size is None:
        return max(scale), max(scale)
    wide, high = rescale_size(size[::-1], tuple(scale))
    return high, wide


def _name(group: Mapping[str, Any]) -> str:
    return str(group.get("type", "")).rpartition(".")[2]
