"""Scenes written in the true layouts of Cityscapes and of COCO."""

from __future__ import annotations

import json
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tasks.scenes.drawing import CLASSES, DIGITS, PALETTE, PHOTOGRAPHS, Scene, Thing


def stem(index: int) -> str:
    """The name of scene ``index`` in Cityscapes' manner, ``<city>_<sequence>_<frame>``; the city is the photograph."""
    return f"{PHOTOGRAPHS[index % len(PHOTOGRAPHS)]}_{index:06d}_000019"


def write_cityscapes(root: Path, split: str, index: int, scene: Scene) -> None:
    """``leftImg8bit/<split>/<city>/<name>_leftImg8bit.png`` and ``gtFine/.../<name>_gtFine_labelTrainIds.png``.

    The label maps have a palette, as Cityscapes' coloured ones; their values are class numbers.
    """
    name = stem(index)
    city = name.partition("_")[0]
    labels = Image.fromarray(scene.labels)
    # 256 colours: with fewer, Pillow would pack the numbers into 4 bits, and lose IGNORED
    colours = [*PALETTE, *[(0, 0, 0)] * (256 - len(PALETTE))]
    labels.putpalette([channel for colour in colours for channel in colour])
    for kind, suffix, image in (
        ("leftImg8bit", "leftImg8bit", Image.fromarray(scene.image)),
        ("gtFine", "gtFine_labelTrainIds", labels),
    ):
        folder = root / kind / split / city
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}_{suffix}.png").write_bytes(_png(image))


def write_coco(root: Path, split: str, scenes: Sequence[Scene]) -> None:
    """``<split>/<name>.png`` and ``annotations/instances_<split>.json`` with boxes, areas and run-length masks.

    Crowds have ``iscrowd`` 1; scenes without digits are listed without annotations. Ids start at 1, as in COCO.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    (root / split).mkdir(parents=True, exist_ok=True)
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    for index, scene in enumerate(scenes):
        name = f"{stem(index)}.png"
        (root / split / name).write_bytes(_png(Image.fromarray(scene.image)))
        height, width = scene.labels.shape
        images.append(dict(id=index + 1, file_name=name, width=width, height=height))
        for thing in scene.things:
            annotations.append(dict(id=len(annotations) + 1, image_id=index + 1, **_annotation(thing)))
    content = dict(
        info=dict(description="scikit-learn's digits on its photographs, composed by visnas"),
        licenses=[],
        images=images,
        annotations=annotations,
        categories=[dict(id=digit + 1, name=name, supercategory="digit") for digit, name in enumerate(DIGITS)],
    )
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content, sort_keys=True) + "\n")


def write_class_names(root: Path) -> None:
    """``classes.txt``: the name of each number in the label maps, a line each."""
    (root / "classes.txt").write_text("".join(f"{name}\n" for name in CLASSES))


def run_lengths(mask: np.ndarray) -> dict[str, list[int]]:
    """COCO's uncompressed run-length code of a mask, bool [H, W]: columns one after the other, zeros first."""
    flat = mask.flatten(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = np.concatenate([[0], changes, [flat.size]])
    counts = np.diff(edges).tolist()
    return dict(size=list(mask.shape), counts=[0, *counts] if flat[0] else counts)


def _annotation(thing: Thing) -> dict[str, Any]:
    rows, columns = (np.flatnonzero(thing.mask.any(axis=axis)) for axis in (1, 0))
    left, top = int(columns[0]), int(rows[0])
    return dict(
        category_id=thing.digit + 1,
        bbox=[left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1],
        area=int(thing.mask.sum()),
        segmentation=run_lengths(thing.mask),
        iscrowd=int(thing.crowd),
    )


def _png(image: Image.Image) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
