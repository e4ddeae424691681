"""Embedded scenes: equal bytes, two layouts that agree, digits and places of the test that training never shows."""

import json
import os
from hashlib import sha256

import numpy as np
import pytest
from PIL import Image

from tasks.scenes import CLASSES, IGNORED, Settings, make
from tasks.scenes.drawing import _digits, draw
from tasks.scenes.layouts import run_lengths, stem

FEW = Settings(train=12, val=4, test=1)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return make(FEW, tmp_path_factory.mktemp("scenes") / "s")


def contents(folder):
    return {p.relative_to(folder): sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()}


def test_equal_settings_give_equal_bytes(scenes, tmp_path):
    assert contents(make(FEW, tmp_path / "again")) == contents(scenes)
    # more scenes begin with the same ones
    more = contents(make(Settings(train=13, val=4, test=1), tmp_path / "more"))
    kept = {name for name in contents(scenes) if name.parts[0] in ("leftImg8bit", "gtFine")}
    assert kept and all(more[name] == contents(scenes)[name] for name in kept)
    other = contents(make(Settings(train=12, val=4, test=1, seed=1), tmp_path / "other"))
    assert all(other[name] != contents(scenes)[name] for name in kept if name.parts[0] == "leftImg8bit")


def test_cityscapes_layout(scenes):
    found = {}
    for split, count in (("train", 12), ("val", 4), ("test", 1)):
        images = sorted((scenes / "leftImg8bit" / split).glob("*/*_leftImg8bit.png"))
        assert len(images) == count
        for path in images:
            name = path.name.removesuffix("_leftImg8bit.png")
            assert name.split("_")[0] == path.parent.name and len(name.split("_")) == 3
            labels = Image.open(scenes / "gtFine" / split / path.parent.name / f"{name}_gtFine_labelTrainIds.png")
            assert Image.open(path).size == labels.size == (192, 128)
            found[split, name] = np.unique(np.asarray(labels)).tolist()
    values = set().union(*found.values())
    assert {0, IGNORED} < values <= {*range(len(CLASSES)), IGNORED} and len(values) > 8
    # the tenth scene is empty
    assert found["train", stem(9)] == [0]


@pytest.mark.parametrize("split", ["train", "val"])
def test_coco_layout_agrees_with_the_label_maps(scenes, split):
    coco = pytest.importorskip("pycocotools.coco").COCO(scenes / "annotations" / f"instances_{split}.json")
    assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == list(CLASSES[1:])
    for image in coco.loadImgs(coco.getImgIds()):
        name = image["file_name"].removesuffix(".png")
        city = name.split("_")[0]
        pixels = np.asarray(Image.open(scenes / split / image["file_name"]))
        same = np.asarray(Image.open(scenes / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png"))
        assert (pixels == same).all() and pixels.shape == (image["height"], image["width"], 3)
        labels = np.asarray(Image.open(scenes / "gtFine" / split / city / f"{name}_gtFine_labelTrainIds.png"))
        drawn = np.zeros_like(labels)
        for a in coco.loadAnns(coco.getAnnIds(imgIds=image["id"])):
            mask = coco.annToMask(a).astype(bool)
            assert mask.sum() == a["area"] > 0 and not drawn[mask].any()
            drawn[mask] = a["category_id"]
            x, y, w, h = a["bbox"]
            assert mask[y : y + h, x : x + w].sum() == a["area"]
            assert mask[y].any() and mask[:, x].any() and mask[y + h - 1].any() and mask[:, x + w - 1].any()
        assert (drawn == np.where(labels == IGNORED, 0, labels)).all()


def test_crowds_and_empty_scenes(scenes):
    content = json.loads((scenes / "annotations" / "instances_train.json").read_text())
    crowds = {a["image_id"] for a in content["annotations"] if a["iscrowd"]}
    assert crowds == {4, 12}
    assert {i["id"] for i in content["images"]} - {a["image_id"] for a in content["annotations"]} == {10}


def test_run_lengths_are_cocos():
    mask_api = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(0)
    for mask in (rng.random((5, 7)) < 0.5, np.ones((3, 4), bool), np.zeros((2, 2), bool)):
        code = run_lengths(mask)
        assert (mask_api.decode(mask_api.frPyObjects(code, *mask.shape)).astype(bool) == mask).all()


def test_splits_share_no_digit():
    for digit in range(10):
        parts = [{sample.tobytes() for sample in _digits()[digit, split]} for split in ("train", "val", "test")]
        assert all(parts) and not parts[0] & parts[1] and not (parts[0] | parts[1]) & parts[2]


def test_a_scene_leaves_the_global_generators_alone():
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    draw(0, "train", 3, 64, 48)
    assert (np.random.get_state()[1] == before).all()


def test_made_once_and_again_when_settings_change(tmp_path):
    folder = make(FEW, tmp_path / "s")
    before = folder.stat().st_ino
    assert make(FEW, folder).stat().st_ino == before
    smaller = Settings(width=64, height=64, train=1, val=1, test=1)
    make(smaller, folder)
    assert len(list(folder.glob("leftImg8bit/*/*/*"))) == 3
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    monkeypatch.setattr("tasks.scenes.layouts.write_class_names", lambda root: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        make(Settings(64, 64, 1, 1, 1), tmp_path / "s")
    assert not list(tmp_path.iterdir())


def test_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VISNAS_CACHE", str(tmp_path / "cache"))
    one = make(Settings(64, 64, 1, 1, 1))
    two = make(Settings(64, 64, 1, 1, 1, seed=5))
    assert one != two and one.parent == two.parent == tmp_path / "cache"
    monkeypatch.setenv("VISNAS_CACHE", str(one / "scenes.json"))
    with pytest.raises(ValueError, match="VISNAS_CACHE"):
        make(Settings(64, 64, 1, 1, 1))


def test_mistakes_are_told(tmp_path):
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(ValueError, match="holds no scenes but something else"):
        make(FEW, tmp_path)
    assert os.listdir(tmp_path) == ["mine.txt"]
    for settings, words in (
        (dict(width=16), "width=16"),
        (dict(width=400, height=100), "too narrow"),
        (dict(val=0), "val=0"),
        (dict(seed=-1), "seed=-1"),
        (dict(train=2.5), "train=2.5"),
    ):
        with pytest.raises(ValueError, match=words):
            Settings(**settings)
