"""Data sets of mmseg's kind in Cityscapes' layout: any folder, and the embedded scenes."""

from __future__ import annotations

from pathlib import Path

from mmseg.datasets import BaseSegDataset, CityscapesDataset

from search.registry import DATASETS
from tasks.scenes import CLASSES, PALETTE, Settings, make

IMAGES, LABELS = "_leftImg8bit.png", "_gtFine_labelTrainIds.png"
NAMES = "classes.txt"


@DATASETS.register_module()
class CityscapesFolder(BaseSegDataset):
    """A folder in Cityscapes' layout with classes of its own, or Cityscapes'.

    ``<data_root>/leftImg8bit/<split>/<city>/*_leftImg8bit.png``, ``gtFine/<split>/<city>/*_gtFine_labelTrainIds.png``. The
    classes are what ``metainfo`` names; else the lines of ``<data_root>/classes.txt``, the first for label 0; else the 19 of
    Cityscapes with their colours. Arguments as mmseg's BaseSegDataset.

    Raises ValueError for a classes.txt that isn't text.
    """

    def __init__(
        self,
        data_root: str | None = None,
        metainfo: dict | None = None,
        img_suffix: str = IMAGES,
        seg_map_suffix: str = LABELS,
        **kwargs,
    ) -> None:
        if "classes" not in (metainfo or {}):
            metainfo = {**(metainfo or {}), **_classes(data_root)}
        super().__init__(data_root=data_root, metainfo=metainfo, img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, **kwargs)


@DATASETS.register_module()
class Scenes(BaseSegDataset):
    """Handwritten digits on photographs (`tasks.scenes`), in Cityscapes' layout, drawn when they are first needed.

    Args:
        data_root: where they lie; by default in the user's cache.
        scenes: `tasks.scenes.Settings` by name, such as dict(train=60, seed=1).
        others: as mmseg's BaseSegDataset.

    Raises ValueError for settings that make no scenes and for a folder that holds something else.
    """

    METAINFO = dict(classes=CLASSES, palette=[list(colour) for colour in PALETTE])

    def __init__(
        self,
        data_root: str | None = None,
        scenes: dict | None = None,
        img_suffix: str = IMAGES,
        seg_map_suffix: str = LABELS,
        **kwargs,
    ) -> None:
        folder = make(Settings(**(scenes or {})), data_root)
        super().__init__(data_root=str(folder), img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, **kwargs)


def _classes(data_root: str | None) -> dict:
    path = Path(data_root or "") / NAMES
    if not path.is_file():
        return dict(CityscapesDataset.METAINFO)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} isn't text in UTF-8: give a class's name in each line") from error
    return dict(classes=[line.strip() for line in lines if line.strip()])
