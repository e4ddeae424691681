import hashlib
import json

import pytest

pytest.importorskip("mmdet")

import tasks.detection  # noqa: F401, I001  (before mmdet's models)
from mmdet.datasets import CocoDataset
from search.engine.errors import UserError
from search.registry import DATASETS
from tasks.scenes import DIGITS, Settings, make

TRAIN = dict(ann_file="annotations/instances_train.json", data_prefix=dict(img="train/"))


def images(root, **settings):
    return DATASETS.build(dict(type="search.CocoImages", data_root=str(root), **TRAIN, **settings))


def test_a_data_set_finds_its_classes_itself(make_coco):
    found = images(make_coco())
    assert found.metainfo["classes"] == ["dot", "square", "ring"] and found.cat2label == {3: 0, 7: 1, 90: 2}
    assert images(make_coco("other"), metainfo=dict(classes=("ring",))).cat2label == {90: 0}


def test_entries_are_mmdets(make_coco):
    root = make_coco()
    ours = images(root)
    theirs = CocoDataset(data_root=str(root), metainfo=dict(classes=("dot", "square", "ring")), **TRAIN)
    assert len(ours) == len(theirs) == 12
    for i in range(12):
        own = ours.get_data_info(i)
        assert own.pop("file_name") == f"{i:03d}.png"
        assert own == theirs.get_data_info(i)


def test_a_list_picks_images_in_its_order(make_coco, tmp_path):
    root, split = make_coco(), tmp_path / "split.txt"
    split.write_text("005.png\n001.png\n")
    found = images(root, split=str(split), split_sha256=hashlib.sha256(split.read_bytes()).hexdigest())
    assert [found.get_data_info(i)["file_name"] for i in range(2)] == ["005.png", "001.png"] and len(found) == 2
    with pytest.raises(ValueError, match="was changed"):
        images(root, split=str(split), split_sha256="0")
    split.write_text("gone.png\n")
    with pytest.raises(UserError, match=r"names 'gone\.png', which is not in"):
        images(root, split=str(split))
    with pytest.raises(UserError, match="split_sha256 is given without a split"):
        images(root, split_sha256="0")


def test_scenes_are_drawn_where_they_are_asked_for(tmp_path):
    few = dict(width=48, height=32, train=3, val=1, test=1)
    data = DATASETS.build(dict(type="search.CocoScenes", data_root=str(tmp_path / "s"), scenes=few, **TRAIN))
    assert len(data) == 3 and data.metainfo["classes"] == list(DIGITS)
    content = json.loads((tmp_path / "s" / TRAIN["ann_file"]).read_text())
    boxes = [one for i in range(3) for one in data.get_data_info(i)["instances"]]
    assert len(boxes) == sum(entry["bbox"][2] >= 1 and entry["bbox"][3] >= 1 for entry in content["annotations"]) > 0
    # any reader of the layout finds the same
    other = images(make(Settings(**few), tmp_path / "s"))
    assert [other.get_data_info(i) for i in range(3)] == [data.get_data_info(i) for i in range(3)]
