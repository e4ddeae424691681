"""What the memory planner asks of the task: sizes of images and batches, read from a config alone, without images.

Letters: B batch, C channels, H, W pixels.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from search.engine.task_data import datasets_by_key

# transforms that fix the size of what they give; a batch's images are equal, so one side given to Resize means a square
_SIZED = ("RandomCrop", "RandomResizedCrop", "CenterCrop", "Resize")
# images of data sets whose format fixes their size
_SOURCES = {"CIFAR10": 32, "Digits": 8}


def image_size(cfg: Mapping[str, Any], loader: str = "train_dataloader") -> tuple[int, int, int]:
    """(C, H, W) of what a loader feeds the network: of its last crop, or of the data set's own images.

    Raises ValueError where neither fixes a size.
    """
    _, dataset = next(datasets_by_key(loader, cfg[loader]))
    sizes = [t["size"] for t in dataset.get("pipeline", ()) if _name(t) in _SIZED]
    size = sizes[-1] if sizes else dataset.get("size") or _SOURCES.get(_name(dataset))
    if size is None:
        raise ValueError(
            f"{loader}: nothing in its pipeline fixes the size of images, so their memory can't be predicted: add a transform "
            "such as dict(type='search.RandomResizedCrop', size=224)"
        )
    return (dataset.get("channels", 3), *_sides(size))


def memory_batch(cfg: Mapping[str, Any], loader: str) -> dict[str, Tensor]:
    """A batch of a loader's shapes, ``inputs`` [B, C, H, W] and ``label`` [B], without values of any meaning."""
    size = cfg[loader]["batch_size"]
    return {"inputs": torch.empty(size, *image_size(cfg, loader)), "label": torch.zeros(size, dtype=torch.long)}


def crop_options(cfg: Mapping[str, Any], side: int) -> dict[str, int]:
    """``key: value`` options that make the training images of both loaders ``side`` pixels large.

    Validation images keep their size. Empty where the images can't be made smaller: they aren't square, or neither a
    transform nor a ``size`` of the data set fixes their size.
    """
    options: dict[str, int] = {}
    for loader in ("train_dataloader", "arch_dataloader"):
        _, height, width = image_size(cfg, loader)
        found = {key: side for key, size in _sizes(loader, cfg[loader]) if _sides(size) == (height, width)}
        if height != width or not found:
            return {}
        options.update(found)
    return options


def _sizes(loader: str, group: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The keys that fix sizes, with their values."""
    for place, dataset in datasets_by_key(loader, group):
        if dataset.get("size") is not None:
            yield f"{place}.size", dataset["size"]
        for i, transform in enumerate(dataset.get("pipeline", ())):
            if _name(transform) in _SIZED:
                yield f"{place}.pipeline.{i}.size", transform["size"]


def _name(group: Mapping[str, Any]) -> str:
    return str(group.get("type", "")).rpartition(".")[2]


def _sides(size: Any) -> tuple[int, int]:
    sides = (size,) if isinstance(size, int) else tuple(size)
    return int(sides[0]), int(sides[-1])
