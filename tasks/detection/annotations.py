"""COCO annotation files: read, checked, and completed with what evaluators need.

A file that isn't COCO's is told in one sentence that names it and the first thing that is wrong. Category ids may be any
numbers; boxes that nothing can be learned from are left out and counted.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from mmdet.datasets.api_wrappers import COCO

from search.engine.errors import UserError
from search.engine.task_data import say

PARTS = ("images", "annotations", "categories")
_NEEDED = {
    "images": ("id", "file_name", "width", "height"),
    "annotations": ("id", "image_id", "category_id", "bbox"),
    "categories": ("id", "name"),
}
_UNIQUE = {"images": ("id", "file_name"), "annotations": ("id",), "categories": ("id", "name")}
# files of which it was said that boxes are left out: data sets and metrics read them again
_said: set[tuple[str, int]] = set()


@dataclass(frozen=True)
class Annotations:
    """A checked file.

    ``content``: COCO's mapping, categories sorted by id, annotations numbered from 1, each with ``area`` and ``iscrowd``;
    ``dropped``: how many boxes were left out, of zero size or outside of their image.
    """

    path: str
    content: dict[str, Any]
    dropped: int

    @property
    def classes(self) -> tuple[str, ...]:
        """The categories' names, by their ids' order."""
        return tuple(category["name"] for category in self.content["categories"])


def read(path: str | Path, masks: bool = True) -> Annotations:
    """The content of an annotation file; ``masks``: with the annotations' segmentations.

    Raises UserError, naming the file: missing, no JSON, not COCO's layout, ids or names that occur twice, an annotation of an
    image or a category that isn't listed, a box that isn't four finite numbers, an image without a size.
    """
    content = _mapping(Path(path))
    for part in PARTS:
        _check_entries(path, part, content[part])
    sizes = {image["id"]: _size(path, image) for image in content["images"]}
    known = {category["id"] for category in content["categories"]}
    kept = []
    for annotation in content["annotations"]:
        place = f"{path}: the annotation of id {annotation['id']!r}"
        if annotation["image_id"] not in sizes:
            raise UserError(f"{place} is of the image of id {annotation['image_id']!r}, which isn't among the images")
        if annotation["category_id"] not in known:
            raise UserError(f"{place} is of the category of id {annotation['category_id']!r}, which isn't among the categories")
        box = _box(place, annotation["bbox"])
        if _visible(box, *sizes[annotation["image_id"]]):
            kept.append(_completed(annotation, box, len(kept) + 1, masks))
    categories = sorted(content["categories"], key=lambda category: category["id"])
    dropped = len(content["annotations"]) - len(kept)
    if dropped and (str(path), dropped) not in _said:
        _said.add((str(path), dropped))
        boxes = "1 box is" if dropped == 1 else f"{dropped} boxes are"
        say(f"{path}: {boxes} of zero size or outside of the image, and left out")
    return Annotations(str(path), {**content, "annotations": kept, "categories": categories}, dropped)


class Coco(COCO):
    """pycocotools' index of a checked annotation file, which prints nothing; names of categories are found in any order.

    ``masks``: keep the annotations' segmentations. Raises UserError as `read`.
    """

    def __init__(self, annotation_file: str | Path, masks: bool = True) -> None:
        super().__init__(None)
        self.path = annotation_file
        self.dataset = read(annotation_file, masks).content
        with redirect_stdout(StringIO()):
            self.createIndex()
        self.img_ann_map, self.cat_img_map = self.imgToAnns, self.catToImgs

    def get_cat_ids(self, cat_names: Sequence[str] = (), sup_names: Sequence[str] = (), cat_ids: Sequence[int] = ()) -> list:
        """As mmdet's, but of names in the order of these names: a class's number is its place among them.

        Raises UserError for a name that the file doesn't have.
        """
        if not cat_names:
            return super().get_cat_ids(list(cat_names), list(sup_names), list(cat_ids))
        found = {category["name"]: category["id"] for category in self.dataset["categories"]}
        for name in cat_names:
            if name not in found:
                raise UserError(f"{self.path} has no category {name!r}: it has {shortened(found)}")
        return [found[name] for name in cat_names]


def shortened(names: Iterable[str], most: int = 5) -> str:
    """Names in a sentence, the first few where there are many."""
    listed = [str(name) for name in names]
    rest = len(listed) - most
    return ", ".join(listed[:most]) + (f" and {rest} more" if rest > 0 else "")


def _mapping(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(
            f"the annotation file {path} does not exist: give data_root=FOLDER and, where its files have other names, "
            "train_ann, val_ann, train_img and val_img by --cfg-options"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} isn't JSON: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} isn't a COCO annotation file: it holds a {type(content).__name__}, not a mapping")
    for part in PARTS:
        if not isinstance(content.get(part), list):
            raise UserError(f"{path} isn't a COCO annotation file: it has no list {part!r}, only {shortened(content)}")
    for part in ("images", "categories"):
        if not content[part]:
            raise UserError(f"{path} has no {part}")
    return content


def _check_entries(path: str | Path, part: str, entries: Sequence[Any]) -> None:
    for number, entry in enumerate(entries):
        for key in _NEEDED[part]:
            if not isinstance(entry, Mapping) or key not in entry:
                raise UserError(f"{path} isn't a COCO annotation file: {part}[{number}] has no {key!r}")
    for key in _UNIQUE[part]:
        seen = set()
        for number, entry in enumerate(entries):
            if not isinstance(entry[key], int | str) or (key != "id" and not isinstance(entry[key], str)):
                raise UserError(f"{path}: {part}[{number}].{key}={entry[key]!r} is no {'number' if key == 'id' else 'text'}")
            if entry[key] in seen:
                raise UserError(f"{path}: two of the {part} have the {key} {entry[key]!r}")
            seen.add(entry[key])
    if part == "categories" and len({type(entry["id"]) for entry in entries}) > 1:
        raise UserError(f"{path}: some ids of categories are numbers and some are text")


def _size(path: str | Path, image: Mapping[str, Any]) -> tuple[float, float]:
    for key in ("width", "height"):
        if not _number(image[key]) or image[key] <= 0:
            raise UserError(f"{path}: the image {image['file_name']} has {key}={image[key]!r}, which is no number of pixels")
    return image["width"], image["height"]


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _box(place: str, box: Any) -> tuple[float, float, float, float]:
    if not isinstance(box, list) or len(box) != 4 or not all(_number(value) for value in box):
        raise UserError(f"{place} has bbox={box!r}, which isn't [x, y, width, height] in pixels")
    x, y, width, height = box
    return x, y, width, height


def _visible(box: tuple[float, float, float, float], width: float, height: float) -> bool:
    x, y, wide, high = box
    return wide > 0 and high > 0 and min(x + wide, width) > max(x, 0) and min(y + high, height) > max(y, 0)


def _completed(annotation: Mapping[str, Any], box: Sequence[float], number: int, masks: bool) -> dict[str, Any]:
    # pycocotools takes a match with an annotation of id 0 for none
    own = {**annotation, "id": number, "iscrowd": int(bool(annotation.get("iscrowd", 0)))}
    area = annotation.get("area")
    own["area"] = area if _number(area) and area > 0 else box[2] * box[3]
    if not masks:
        own.pop("segmentation", None)
    return own
