import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from search.registry import DATASETS
from tasks.classification.images import ImageCache, UnreadableImage, read_image


@pytest.mark.parametrize(
    "extension, modes",
    [("png", "1 L P RGB RGBA"), ("jpg", "1 L RGB CMYK"), ("bmp", "1 L P RGB RGBA"), ("webp", "L RGB RGBA")],
)
def test_every_mode_and_format_becomes_rgb(tmp_path, extension, modes):
    for mode in modes.split():
        path = tmp_path / f"{mode}.{extension}"
        Image.new("RGB", (9, 7), (255, 255, 255)).convert(mode).save(path)
        read = read_image(path)
        assert read.shape == (3, 7, 9) and read.dtype == torch.uint8 and int(read.min()) > 250, mode


def test_sixteen_bit_grey_keeps_its_range(tmp_path):
    Image.fromarray(np.array([[0, 32768, 65535]], dtype=np.uint16)).save(tmp_path / "x.png")
    assert read_image(tmp_path / "x.png")[0].tolist() == [[0, 128, 255]]


def test_size_keeps_the_centre_square(tmp_path):
    pixels = np.zeros((20, 60, 3), np.uint8)
    pixels[:, 20:40] = 255
    Image.fromarray(pixels).save(tmp_path / "x.png")
    read = read_image(tmp_path / "x.png", size=10)
    assert read.shape == (3, 10, 10)
    # only the outermost pixels see beyond the square
    assert int(read[..., 1:-1].min()) == 255 and int(read.min()) > 200


def test_truncated_and_foreign_files_are_named(tmp_path):
    good = tmp_path / "good.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(good)
    truncated = tmp_path / "truncated.jpg"
    truncated.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("no image")
    for name in ("truncated.jpg", "empty.png", "text.jpg", "missing.jpg"):
        with pytest.raises(UnreadableImage, match=name) as caught:
            read_image(tmp_path / name)
        assert len(str(caught.value).splitlines()) == 1


def test_a_worker_names_the_image_in_one_sentence(make_folder):
    root = make_folder(size=(40, 40))
    broken = root / "train" / "bee" / "train03.jpg"
    broken.write_bytes(broken.read_bytes()[:200])
    dataset = DATASETS.build(dict(type="search.ImageFolder", data_root=str(root)))
    with pytest.raises(UnreadableImage, match="train03") as caught:
        list(DataLoader(dataset, batch_size=None, num_workers=1))
    assert len(str(caught.value).splitlines()) == 1 and "Traceback" not in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_cache_holds_what_fits_and_equals_reading():
    images = [torch.full((3, 200, 300 + i), i, dtype=torch.uint8) for i in range(10)]
    reads = []

    def read(index):
        reads.append(index)
        return images[index]

    cache = ImageCache(read, len(images), limit_mib=1)
    # 180 kB and a little more each: five fit in a MiB
    assert cache.cached == 5 and cache.bytes_used <= 2**20
    reads.clear()
    assert all(torch.equal(cache[i], images[i]) for i in range(10))
    assert reads == [5, 6, 7, 8, 9]
