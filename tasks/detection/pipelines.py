"""The size of a loader's images, from its transforms alone. H, W: height and width in pixels."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from mmcv.image import rescale_size

from search.engine.errors import UserError
from search.engine.task_data import LOADERS, datasets_by_key
from search.registry import DATASETS
from tasks.detection import annotations, layout

# of the embedded scenes, where their settings don't say
_SCENES = (128, 192)
# whose transforms don't scale at random, the first that there is
_TESTED = ("test_dataloader", "val_dataloader")
_SCALING = ("Resize", "FixScaleResize", "FixShapeResize", "RandomResize", "RandomChoiceResize")
# transforms after which the size of images is known here
_KNOWN = (
    *("LoadImageFromFile", "LoadImage", "LoadAnnotations", "RandomFlip", "PhotoMetricDistortion", "PackDetInputs"),
    *(*_SCALING, "RandomCrop", "Pad"),
)


def image_size(cfg: Mapping[str, Any], loader: str = "train_dataloader") -> tuple[int, int, int]:
    """(C, H, W), the largest that a loader's images can have in a batch, with the padding of the model's data preprocessor.

    Where an aspect ratio is kept and images may be of any, a batch is as wide and as high as the longest side. Raises
    UserError where no transform limits the size.
    """
    _, dataset = next(datasets_by_key(loader, cfg[loader]))
    size = _own_size(dataset)
    for transform in dataset.get("pipeline", ()):
        size = _after(transform, size)
    if size is None:
        raise UserError(
            f"{loader}: nothing in its pipeline limits the size of images, so their memory can't be predicted: add a transform "
            "such as dict(type='mmdet.Resize', scale=(1333, 800), keep_ratio=True)"
        )
    return 3, *padded(cfg["model"], *size)


def tested_size(cfg: Mapping[str, Any]) -> tuple[int, int, int]:
    """(C, H, W) that a network is said to work at, with the padding of the model's data preprocessor, whatever the images are.

    The scale of the test's transforms; without a test the validation's, else the training's. Where they keep the aspect ratio
    that is an image of the scale's own, lying (as by ``scale=(1333, 800)``), unless the images are known to have one size
    (`CocoScenes`). Where no transform scales or cuts, the largest height and width in the annotation file; where one isn't of
    those known here, such as one of your own, what it makes of the first image.
    """
    loader = next(name for name in (*_TESTED, *LOADERS) if cfg.get(name) is not None)
    _, dataset = next(datasets_by_key(loader, cfg[loader]))
    transforms = dataset.get("pipeline", ())
    if any(_name(transform) not in _KNOWN or "scale_factor" in transform for transform in transforms):
        channels, height, width = DATASETS.build(copy.deepcopy(dict(dataset)))[0]["inputs"].shape
        return channels, *padded(cfg["model"], height, width)
    size = _own_size(dataset)
    if size is None:
        scales = [found for transform in transforms if (found := _scales(transform))]
        size = (min(scales[0][0]), max(scales[0][0])) if scales else None
    if size is None and all(_after(transform, None) is None for transform in transforms):
        images = annotations.read(layout.empty_dataset(dataset, loader).ann_file, masks=False).content["images"]
        size = max(image["height"] for image in images), max(image["width"] for image in images)
    for transform in transforms:
        size = _after(transform, size)
    assert size is not None
    grey = any(str(transform.get("color_type", "")).startswith("grayscale") for transform in transforms)
    return 1 if grey else 3, *padded(cfg["model"], *size)


def _own_size(dataset: Mapping[str, Any]) -> tuple[int, int] | None:
    """(H, W) that all images of a data set have; None where its config doesn't say it."""
    if _name(dataset) != "CocoScenes":
        return None
    given = dataset.get("scenes") or {}
    return given.get("height", _SCENES[0]), given.get("width", _SCENES[1])


def padded(model: Mapping[str, Any], height: int, width: int) -> tuple[int, int]:
    """(H, W) of an image after the model's data preprocessor has padded it."""
    return _up((height, width), (model.get("data_preprocessor") or {}).get("pad_size_divisor", 1))


def _up(size: tuple[int, int], divisor: int) -> tuple[int, int]:
    """The next whole multiples."""
    height, width = (-(-side // divisor) * divisor for side in size)
    return height, width


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
    if scales := _scales(transform):
        largest = max(transform.get("ratio_range") or (1.0,))
        # of a fixed shape the rest is padded
        keeps = transform.get("keep_ratio", False) and name != "FixShapeResize"
        sizes = [_resized([int(side * largest) for side in scale], size, keeps) for scale in scales]
        return max(high for high, _ in sizes), max(wide for _, wide in sizes)
    if name == "RandomCrop" and transform.get("crop_type", "absolute").startswith("absolute"):
        wide, high = transform["crop_size"]
        return int(high), int(wide)
    if name == "Pad":
        if transform.get("size") is not None:
            size = int(transform["size"][1]), int(transform["size"][0])
        if size is not None and transform.get("pad_to_square"):
            size = max(size), max(size)
        return size if size is None else _up(size, transform.get("size_divisor") or 1)
    return size


def _scales(transform: Mapping[str, Any]) -> list[tuple[int, int]]:
    """(W, H) that a transform may scale images to or into; empty for other transforms."""
    if _name(transform) not in _SCALING:
        return []
    if "height" in transform:
        return [(transform["width"], transform["height"])]
    found = transform.get("scale", transform.get("scales"))
    if found is None:
        return []
    several = not isinstance(found, int) and isinstance(found[0], list | tuple)
    return [(scale, scale) if isinstance(scale, int) else tuple(scale) for scale in (found if several else [found])]


def _resized(scale: Sequence[int], size: tuple[int, int] | None, keep_ratio: bool) -> tuple[int, int]:
    if not keep_ratio:
        return scale[1], scale[0]
    if size is None:
        return max(scale), max(scale)
    wide, high = rescale_size(size[::-1], tuple(scale))
    return high, wide


def _name(group: Mapping[str, Any]) -> str:
    return str(group.get("type", "")).rpartition(".")[2]
