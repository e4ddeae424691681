"""Data sets of mmdet's kind in COCO's layout: any folder, and the embedded scenes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmdet.datasets import CocoDataset
from mmdet.visualization import get_palette

from search.engine import splits
from search.engine.errors import UserError
from search.registry import DATASETS
from tasks.detection import annotations
from tasks.image_files import checked
from tasks.scenes import Settings, make


@DATASETS.register_module()
class CocoImages(CocoDataset):
    """mmdet's CocoDataset on a checked annotation file, with that file's classes, of all its images or of a list of them.

    Without ``metainfo.classes`` the classes are all categories of the file, by their ids. A category's number is found by its
    name, so files may list categories in different orders and ids may jump. Boxes as mmdet: those narrower or lower than a
    pixel aren't trained on, crowds are ignored. An image that can't be read is named.

    Args:
        split, split_sha256: a list of file names, as in the annotation file, and its SHA-256, which is verified.
        others: as mmdet's CocoDataset.

    Raises ValueError for a file that isn't COCO's (see `annotations.read`), for a class that it lacks, and for a list that
    was changed, is missing, or names an image that isn't there.
    """

    COCOAPI = annotations.Coco

    def __init__(
        self,
        ann_file: str = "",
        data_root: str | None = None,
        metainfo: dict | None = None,
        split: str | None = None,
        split_sha256: str | None = None,
        **kwargs,
    ) -> None:
        if split is None and split_sha256 is not None:
            raise UserError("split_sha256 is given without a split")
        self.split, self.split_sha256 = split, split_sha256
        if "classes" not in (metainfo or {}):
            metainfo = {**(metainfo or {}), **named(annotations.read(Path(data_root or "") / ann_file, masks=False).classes)}
        super().__init__(ann_file=ann_file, data_root=data_root, metainfo=metainfo, **kwargs)
        self.pipeline = checked(self.pipeline)

    def load_data_list(self) -> list[dict]:
        """mmdet's entries of the images, or of the list's in its order."""
        entries = super().load_data_list()
        if self.split is None:
            return entries
        by_name = {entry["file_name"]: entry for entry in entries}
        listed = splits.read(Path(self.split), self.split_sha256)
        missing = next((name for name in listed if name not in by_name), None)
        if missing is not None:
            raise UserError(f"the split list {self.split} names {missing!r}, which is not in {self.ann_file}; was it changed?")
        return [by_name[name] for name in listed]

    def parse_data_info(self, raw_data_info: dict) -> dict:
        """mmdet's entry of an image, with its ``file_name`` as in the annotation file."""
        return {**super().parse_data_info(raw_data_info), "file_name": raw_data_info["raw_img_info"]["file_name"]}


@DATASETS.register_module()
class CocoScenes(CocoImages):
    """Handwritten digits on photographs (`tasks.scenes`), in COCO's layout, drawn when they are first needed.

    Args:
        data_root: where they lie; by default in the user's cache.
        scenes: `tasks.scenes.Settings` by name, such as dict(train=60, seed=1).
        others: as `CocoImages`.

    Raises ValueError for settings that make no scenes and for a folder that holds something else.
    """

    def __init__(self, ann_file: str = "", data_root: str | None = None, scenes: dict | None = None, **kwargs) -> None:
        folder = make(Settings(**(scenes or {})), data_root)
        super().__init__(ann_file=ann_file, data_root=str(folder), **kwargs)


def named(classes: Sequence[str]) -> dict[str, list]:
    """``metainfo`` of classes: their names, and COCO's colours where they are COCO's, else as many different ones."""
    coco = CocoDataset.METAINFO
    own = coco["palette"] if tuple(classes) == coco["classes"] else get_palette("random", len(classes))
    return dict(classes=list(classes), palette=[tuple(int(value) for value in colour) for colour in own])
