"""The folder data set on real images (ImageNet photographs at 96x96)."""

import os
from collections import Counter
from pathlib import Path

import pytest
import torch

from tasks.classification.datasets import ImageFolder

ROOT = Path(os.environ.get("VISNAS_DATA", Path(__file__).resolve().parents[4] / "shared" / "data")) / "imagenet_sample"

pytestmark = [
    pytest.mark.realdata,
    pytest.mark.skipif(not ROOT.is_dir(), reason=f"the real images are not at {ROOT}: set VISNAS_DATA"),
]


def test_counts_and_classes_are_those_of_the_folders():
    for folder, images in (("train", 9469), ("val", 1966)):
        data = ImageFolder(data_root=str(ROOT), folder=folder)
        assert len(data) == images
        expected = {d.name: sum(1 for _ in d.iterdir()) for d in sorted((ROOT / folder).iterdir())}
        assert list(data.metainfo["classes"]) == sorted(expected)
        counts = Counter(data.labels)
        assert [counts[i] for i in range(10)] == [expected[c] for c in sorted(expected)]


def test_a_photograph_arrives_as_pillow_reads_it():
    from PIL import Image
    from torchvision.transforms.functional import pil_to_tensor

    data = ImageFolder(data_root=str(ROOT), folder="val")
    item = data[100]
    name = sorted((ROOT / "val" / data.metainfo["classes"][item["label"]]).iterdir())
    images = {tuple(pil_to_tensor(Image.open(p).convert("RGB")).flatten()[:500].tolist()) for p in name}
    assert item["inputs"].shape == (3, 96, 96)
    assert tuple((item["inputs"] * 255).round().to(torch.uint8).flatten()[:500].tolist()) in images
