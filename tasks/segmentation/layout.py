"""What a segmentation data set's folders hold, looked at before anything is trained: pairs of files, sizes, classes."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mmseg.datasets import BaseSegDataset
from PIL import Image

from search.engine.errors import UserError, values_are_the_users
from search.registry import DATASETS
from tasks.image_files import in_threads, size_of, unreadable
from tasks.segmentation.loading import ONE_CHANNEL, colours

# of a dataset's arguments, those that don't change which images there are
_HOW_READ = ("pipeline", "test_mode", "lazy_init", "serialize_data")


@dataclass(frozen=True)
class Listing:
    """A data set's images in its order.

    ``names``: paths below the image folder without the suffix, as mmseg's ``ann_file`` lists them; ``images``, ``labels``:
    files (no labels where the data set has none); ``sizes``: (width, height) of each image.
    """

    names: tuple[str, ...]
    images: tuple[str, ...]
    labels: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]


def empty_dataset(cfg: Mapping[str, Any], where: str) -> BaseSegDataset:
    """The data set of a config, without pipeline and before it lists its files.

    Raises UserError for one that isn't mmseg's kind, and for what its class says about its arguments.
    """
    settings = {key: copy.deepcopy(value) for key, value in cfg.items() if key not in _HOW_READ}
    with values_are_the_users(f"{where}.dataset"):
        built = DATASETS.build({**settings, "lazy_init": True, "serialize_data": False})
    if not isinstance(built, BaseSegDataset):
        raise UserError(f"{where}: {cfg['type']} isn't a segmentation data set of mmseg's kind, a BaseSegDataset")
    return built


def listing(cfg: Mapping[str, Any], where: str) -> Listing:
    """The files of a config's data set, looked at.

    Raises UserError for a folder that is missing or empty, and, naming the file, for an image without label file, an image
    or label file that is none, a label file of several channels or of another size than its image.
    """
    dataset = empty_dataset(cfg, where)
    images, labels = (dataset.data_prefix.get(key) for key in ("img_path", "seg_map_path"))
    if dataset.backend_args is None:
        for folder in (images, labels):
            if folder and not Path(folder).is_dir():
                raise UserError(
                    f"{where}: the folder {folder} does not exist; give the folder that holds "
                    f"{_below(folder, dataset.data_root)} by --cfg-options data_root=FOLDER"
                )
        if dataset.ann_file and not Path(dataset.ann_file).exists():
            raise UserError(f"{where}: the list {dataset.ann_file} does not exist")
    dataset.full_init()
    found = dataset.data_list
    if not found:
        raise UserError(f"{where}: {images} holds no image *{dataset.img_suffix}")
    paths = tuple(info["img_path"] for info in found)
    maps = tuple(info["seg_map_path"] for info in found if "seg_map_path" in info) if labels else ()
    names = tuple(Path(path).relative_to(images).as_posix().removesuffix(dataset.img_suffix) for path in paths)
    sizes = _looked_at(paths, maps) if dataset.backend_args is None else ()
    return Listing(names, paths, maps, tuple(sizes))


def label_folder(cfg: Mapping[str, Any], where: str) -> tuple[Path, str]:
    """(folder, suffix) of all label files beside those of a config's data set: of its label folder's parent.

    Raises UserError for a data set without labels.
    """
    dataset = empty_dataset(cfg, where)
    folder = dataset.data_prefix.get("seg_map_path")
    if not folder:
        raise UserError(
            f"{where} has no labels (data_prefix.seg_map_path), and nothing names the classes: give metainfo.classes"
        )
    return Path(folder).parent, dataset.seg_map_suffix


def classes_found(folder: Path, suffix: str, ignored: int) -> int:
    """How many classes the label files below a folder have: one more than the largest label that isn't ignored.

    Raises UserError, naming the file, for one that can't be read, has several channels or a label above 255; and for fewer
    than two classes.
    """
    files = sorted(path for path in folder.rglob(f"*{suffix}") if path.is_file())
    most = max(in_threads(lambda path: _largest(path, ignored), files), default=-1)
    if most < 1:
        raise UserError(
            f"the {len(files)} label files *{suffix} below {folder} have {most + 1} classes: give label files whose pixels are "
            f"class numbers from 0 ({ignored} is ignored), or metainfo.classes of the data sets"
        )
    return most + 1


def require_equal_sizes(sizes: Iterable[tuple[str, tuple[int, int]]], where: str) -> None:
    """Raises UserError where (name, size) differ, because a batch is of images of one size."""
    first: tuple[str, tuple[int, int]] | None = None
    for name, size in sizes:
        first = first or (name, size)
        if size != first[1]:
            (a, (wide, high)), (b, (width, height)) = first, (name, size)
            raise UserError(
                f"{where}: images of different sizes can't make a batch ({a} has {wide}x{high} pixels, {b} {width}x{height}): "
                "add a Resize with keep_ratio=False to the pipeline, or set batch_size=1 where nothing is searched"
            )


def _looked_at(images: Sequence[str], labels: Sequence[str]) -> list[tuple[int, int]]:
    for image, label in zip(images, labels, strict=False):
        if not Path(label).is_file():
            raise UserError(f"the image {image} has no label file {label}: add it, or remove the image")
    sizes = in_threads(size_of, images)
    for image, size, label, (width, height) in zip(images, sizes, labels, in_threads(_label_size, labels), strict=False):
        if size != (width, height):
            raise UserError(f"the label file {label} has {width}x{height} pixels, but its image {image} {size[0]}x{size[1]}")
    return sizes


def _label_size(path: str) -> tuple[int, int]:
    try:
        with Image.open(path) as image:
            mode, size = image.mode, image.size
    except (OSError, ValueError, SyntaxError) as error:
        raise unreadable(path, error) from error
    if mode not in ONE_CHANNEL:
        raise colours(path, mode)
    return size


def _largest(path: Path, ignored: int) -> int:
    _label_size(str(path))
    try:
        with Image.open(path) as image:
            labels = np.asarray(image).astype(np.int64)
    except (OSError, ValueError, SyntaxError) as error:
        raise unreadable(path, error) from error
    largest = int(labels.max(initial=-1, where=labels != ignored))
    if largest > 255:
        raise UserError(f"the label file {path} has the label {largest}: labels are class numbers up to 254")
    return largest


def _below(folder: str, root: str | None) -> str:
    path = Path(folder)
    return path.relative_to(root).as_posix() if root and path.is_relative_to(root) else path.name
