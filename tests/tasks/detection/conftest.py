import json

import numpy as np
import pytest
from PIL import Image

CATEGORIES = ((3, "dot"), (7, "square"), (90, "ring"))


@pytest.fixture(autouse=True)
def scope(no_default_scope):
    """Models of mmdet and mmseg are built here."""


@pytest.fixture
def make_coco(tmp_path):
    """Writes a folder in COCO's layout, bright rectangles on noise; returns its path.

    `change(content, split)` may alter an annotation file before it is written. Category ids jump.
    """

    def make(name="data", train=12, val=4, size=(64, 48), change=None, seed=0):
        root = tmp_path / name
        rng = np.random.default_rng(seed)
        width, height = size
        (root / "annotations").mkdir(parents=True)
        for split, count in (("train", train), ("val", val)):
            (root / split).mkdir()
            images, boxes = [], []
            for index in range(count):
                pixels = rng.integers(0, 60, (height, width, 3)).astype(np.uint8)
                for number in range(2):
                    x, y = int(rng.integers(0, width // 2)), int(rng.integers(0, height // 2))
                    wide, high = int(rng.integers(8, width // 2)), int(rng.integers(8, height // 2))
                    pixels[y : y + high, x : x + wide] = 120 + 60 * number
                    category = CATEGORIES[(index + number) % len(CATEGORIES)][0]
                    entry = dict(
                        image_id=index + 10, category_id=category, bbox=[x, y, wide, high], area=wide * high, iscrowd=0
                    )
                    boxes.append(dict(entry, id=len(boxes) + 1))
                Image.fromarray(pixels).save(root / split / f"{index:03d}.png")
                images.append(dict(id=index + 10, file_name=f"{index:03d}.png", width=width, height=height))
            categories = [dict(id=number, name=name) for number, name in CATEGORIES]
            content = dict(images=images, annotations=boxes, categories=categories)
            if change is not None:
                content = change(content, split) or content
            (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
        return root

    return make
