import pickle
from collections import Counter

import numpy as np
import pytest
import torch
import torchvision

from search.engine import splits
from search.registry import DATASETS


def folder(root, **kwargs):
    return DATASETS.build(dict(type="search.ImageFolder", data_root=str(root), **kwargs))


def test_folder_reads_classes_in_order_and_nested_files(make_folder):
    root = make_folder(classes=("zebra", "ant"), train=2)
    (root / "train" / "ant" / "more").mkdir()
    (root / "train" / "ant" / "train00.jpg").rename(root / "train" / "ant" / "more" / "y.JPEG")
    (root / "train" / "ant" / "notes.txt").write_text("no image")
    (root / "train" / ".cache").mkdir()
    dataset = folder(root)
    assert dataset.classes == ("ant", "zebra") and dataset.metainfo == {"classes": ("ant", "zebra")}
    expected = ["ant/more/y.JPEG", "ant/train01.jpg", "zebra/train00.jpg", "zebra/train01.jpg"]
    assert dataset.names == expected and dataset.labels == [0, 0, 1, 1]
    item = dataset[3]
    assert item["label"] == 1 and item["inputs"].shape == (3, 10, 12) and item["inputs"].dtype == torch.float32
    assert 0.9 < item["inputs"].max() <= 1 and item["inputs"].min() >= 0


def test_cached_and_read_images_are_equal(make_folder):
    root = make_folder()
    for size in (None, 8):
        plain, cached = folder(root, size=size), folder(root, size=size, cache=True)
        assert all(torch.equal(plain[i]["inputs"], cached[i]["inputs"]) for i in range(len(plain)))
        assert cached.cache.cached == len(plain) == 30


def test_bad_folders_are_refused_in_one_sentence(make_folder, tmp_path):
    root = make_folder()
    (root / "val" / "dog").mkdir()
    (tmp_path / "empty" / "train").mkdir(parents=True)
    (tmp_path / "none").mkdir()
    cases = [
        (dict(root=tmp_path / "nowhere"), "nowhere does not exist"),
        (dict(root=tmp_path / "none"), "no folder 'train'"),
        (dict(root=tmp_path / "empty"), "no class folders"),
        (dict(root=root, folder="val"), "dog holds no image"),
        (dict(root=root, folder="val", classes=["ant", "bee", "cat"]), "has the class 'dog'"),
        (dict(root=root, folder="train", classes=["ant", "bee", "cat", "dog"]), "lacks the class 'dog'"),
    ]
    for arguments, words in cases:
        with pytest.raises(ValueError, match=words):
            folder(**arguments)


def test_split_picks_its_images_and_is_verified(make_folder, tmp_path):
    root = make_folder()
    hashes = splits.save(tmp_path / "s", {"train": ["bee/train02.jpg", "ant/train00.jpg"]}, {})
    path = str(tmp_path / "s" / "train.txt")
    dataset = folder(root, split=path, split_sha256=hashes["train"])
    assert dataset.names == ["bee/train02.jpg", "ant/train00.jpg"] and dataset.labels == [1, 0]
    assert torch.equal(dataset[0]["inputs"], folder(root)[12]["inputs"])
    with pytest.raises(ValueError, match="was changed"):
        folder(root, split=path, split_sha256="0" * 64)
    (root / "train" / "bee" / "train02.jpg").unlink()
    with pytest.raises(ValueError, match=r"names 'bee/train02.jpg'"):
        folder(root, split=path)


def test_digits_hold_out_the_same_stratified_fifth():
    train = DATASETS.build(dict(type="search.Digits", folder="train"))
    test = DATASETS.build(dict(type="search.Digits", folder="test", channels=1))
    assert len(train) + len(test) == 1797 and not set(train.names) & set(test.names)
    have, held = Counter(train.labels), Counter(test.labels)
    for digit in range(10):
        assert abs(held[digit] - 0.2 * (have[digit] + held[digit])) <= 0.5
    assert train[0]["inputs"].shape == (3, 8, 8) and test[0]["inputs"].shape == (1, 8, 8)
    images = torch.stack([train[i]["inputs"] for i in range(len(train))])
    assert images.min() == 0 and images.max() == 1
    from sklearn.datasets import load_digits

    source = load_digits()
    for i in (0, 77, len(test) - 1):
        number = int(test.names[i])
        assert test.labels[i] == source.target[number]
        assert np.array_equal(test[i]["inputs"][0].numpy() * 16, source.images[number])


def test_cifar10_as_torchvision_reads_it(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"CIFAR-10 was not found.*data_root="):
        DATASETS.build(dict(type="search.CIFAR10", data_root=str(tmp_path)))
    base = tmp_path / "cifar-10-batches-py"
    base.mkdir()
    rng = np.random.default_rng(0)
    for name in ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"):
        rows = {"data": rng.integers(0, 256, (4, 3072), np.uint8), "labels": [3, 1, 4, 1]}
        (base / name).write_bytes(pickle.dumps(rows))
    (base / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    # the real archive's MD5 sums can't hold for made-up images
    monkeypatch.setattr(torchvision.datasets.cifar, "check_integrity", lambda *args: True)
    dataset = DATASETS.build(dict(type="search.CIFAR10", data_root=str(tmp_path)))
    reference = torchvision.datasets.CIFAR10(str(tmp_path))
    assert len(dataset) == 20 and dataset.classes == tuple("abcdefghij") and dataset.labels == reference.targets
    expected = torch.from_numpy(reference.data[7]).permute(2, 0, 1) / 255
    assert torch.allclose(dataset[7]["inputs"], expected)
    assert len(DATASETS.build(dict(type="search.CIFAR10", data_root=str(tmp_path), folder="test"))) == 4
