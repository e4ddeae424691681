import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def scope(no_default_scope):
    """Models of mmdet and mmseg are built here."""


def image_path(root, split, index, city="town"):
    return root / "leftImg8bit" / split / city / f"{city}_{index:06d}_000019_leftImg8bit.png"


def label_path(root, split, index, city="town"):
    return root / "gtFine" / split / city / f"{city}_{index:06d}_000019_gtFine_labelTrainIds.png"


@pytest.fixture
def make_folder(tmp_path):
    """Writes a folder in Cityscapes' layout, stripes of classes on grey noise; returns its path."""

    def make(name="data", train=10, val=3, size=(48, 32), classes=(0, 1, 2, 255), names=None, seed=0):
        root = tmp_path / name
        rng = np.random.default_rng(seed)
        width, height = size
        for split, count in (("train", train), ("val", val)):
            for index in range(count):
                labels = np.resize(np.repeat(np.array(classes, np.uint8), 4), (height, width))
                pixels = rng.integers(0, 60, (height, width, 3)) + 40 * (labels[..., None] % 5)
                for path, array in (
                    (image_path(root, split, index), pixels.astype(np.uint8)),
                    (label_path(root, split, index), labels),
                ):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(array).save(path)
        if names is not None:
            (root / "classes.txt").write_text("\n".join(names) + "\n")
        return root

    return make
