from pathlib import Path

import pytest
import torch
from PIL import Image


@pytest.fixture
def make_folder(tmp_path):
    """Writes an ImageNet-layout folder of small coloured JPEGs; returns its path."""

    def make(name="data", classes=("ant", "bee", "cat"), train=10, val=4, size=(12, 10), shift=0) -> Path:
        root = tmp_path / name
        for folder, count in (("train", train), ("val", val)):
            for c, label in enumerate(classes):
                (root / folder / label).mkdir(parents=True)
                for i in range(count):
                    generator = torch.Generator().manual_seed(1000 * c + i + shift)
                    pixels = torch.randint(0, 256, (size[1], size[0], 3), generator=generator, dtype=torch.uint8)
                    Image.fromarray(pixels.numpy()).save(root / folder / label / f"{folder}{i:02}.jpg")
        return root

    return make
