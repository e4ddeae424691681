"""What a detection data set's annotation file and image folder hold, looked at before anything is trained."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.engine.errors import UserError, values_are_the_users
from search.engine.task_data import say
from search.registry import DATASETS
from tasks.detection import annotations
from tasks.detection.datasets import CocoImages
from tasks.image_files import in_threads, size_of

# of a dataset's arguments, those that don't change which images there are
_HOW_READ = ("pipeline", "test_mode", "lazy_init", "serialize_data", "filter_cfg", "split", "split_sha256", "metainfo")


@dataclass(frozen=True)
class Listing:
    """A data set's images in its order.

    ``ann_file``: the annotation file; ``names``: of the images, as it has them; ``classes``: its categories by their ids;
    ``boxes``: for each name how many boxes it has, crowds aside.
    """

    ann_file: str
    names: tuple[str, ...]
    classes: tuple[str, ...]
    boxes: Mapping[str, int]


def empty_dataset(cfg: Mapping[str, Any], where: str) -> CocoImages:
    """The data set of a config, without pipeline and before it reads its annotation file.

    Raises UserError for one that isn't in COCO's layout, and for what its class says about its arguments.
    """
    settings = {key: copy.deepcopy(value) for key, value in cfg.items() if key not in _HOW_READ}
    kind = DATASETS.get(cfg["type"]) if isinstance(cfg["type"], str) else cfg["type"]
    if not (isinstance(kind, type) and issubclass(kind, CocoImages)):
        raise UserError(f"{where}: {cfg['type']} isn't a data set in COCO's layout: give type='search.CocoImages'")
    with values_are_the_users(f"{where}.dataset"):
        return DATASETS.build({**settings, "metainfo": {"classes": ()}, "lazy_init": True})


def listing(cfg: Mapping[str, Any], where: str) -> Listing:
    """What a config's data set holds; whatever is odd, but can be trained on, is logged.

    Raises UserError as `annotations.read`, and, naming the file, for an image that is missing, can't be read or has another
    size than its annotation file says; and for a file without boxes.
    """
    dataset = empty_dataset(cfg, where)
    found = annotations.read(dataset.ann_file, masks=False)
    images, folder = found.content["images"], Path(dataset.data_prefix.get("img", ""))
    if dataset.backend_args is None:
        _look_at(images, folder, found.path)
    names = {image["id"]: image["file_name"] for image in images}
    learnable = [entry for entry in found.content["annotations"] if not entry["iscrowd"]]
    if not learnable:
        raise UserError(f"{where}: no image of {found.path} has a box, so there is nothing to detect")
    boxes = Counter(names[entry["image_id"]] for entry in learnable)
    _say_empty_classes(found, {entry["category_id"] for entry in learnable})
    return Listing(found.path, tuple(names.values()), found.classes, boxes)


def _look_at(images: Sequence[Mapping[str, Any]], folder: Path, path: str) -> None:
    """Raises UserError for an image that is missing, can't be read or has another size than is said."""
    if not folder.is_dir():
        raise UserError(
            f"the folder {folder} does not exist: give the one that holds the images of {path} by --cfg-options "
            "data_root=FOLDER and, where it has another name, train_img and val_img"
        )

    def size(image: Mapping[str, Any]) -> tuple[int, int] | None:
        file = folder / image["file_name"]
        return size_of(str(file)) if file.is_file() else None

    for image, found in zip(images, in_threads(size, images), strict=True):
        file = folder / image["file_name"]
        if found is None:
            raise UserError(f"{path} names the image {file}, which does not exist: add it, or remove its entry")
        if found != (image["width"], image["height"]):
            said = f"{image['width']}x{image['height']}"
            raise UserError(f"the image {file} has {found[0]}x{found[1]} pixels, but {path} says {said}: correct one of them")


def _say_empty_classes(found: annotations.Annotations, seen: set) -> None:
    empty = [category["name"] for category in found.content["categories"] if category["id"] not in seen]
    if empty:
        say(f"{found.path}: {len(empty)} of the {len(found.classes)} classes have no box: {annotations.shortened(empty)}")
