"""Data that can't be used: one sentence each, which names the file or the value; and odd data that can."""

import json

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

pytest.importorskip("mmdet")

from search.engine.errors import UserError
from search.registry import DATASETS, TASKS
from tests.tasks.detection.test_adapter import CONFIG, RETRAIN, built, config


def spoil(root, how):
    """Does it to the third training image, and names it."""
    image = root / "train" / "002.png"
    if how == "missing":
        image.unlink()
    elif how == "no image":
        image.write_text("not an image")
    elif how == "other size":
        Image.fromarray(np.zeros((32, 40, 3), np.uint8)).save(image)
    elif how == "cut":
        image.write_bytes(image.read_bytes()[:-300])
    elif how == "half a JPEG":
        with Image.open(image) as whole:
            # its content tells what it is, not its name
            whole.save(image, "JPEG")
        image.write_bytes(image.read_bytes()[: image.stat().st_size // 2])
    return image, root / "annotations" / "instances_train.json"


SENTENCES = {
    "missing": "{ann} names the image {image}, which does not exist: add it, or remove its entry",
    "no image": "cannot read {image}: cannot identify image file",
    "other size": "the image {image} has 40x32 pixels, but {ann} says 64x48",
    "cut": "cannot read {image}: failed to load image",
    "half a JPEG": "cannot read {image}: ",
}


@pytest.mark.parametrize("how", SENTENCES)
def test_an_image_that_cannot_be_used_is_named(make_coco, tmp_path, how):
    root = make_coco()
    image, ann = spoil(root, how)
    with pytest.raises(UserError) as caught:
        cfg = TASKS.build(dict(type="detection")).prepare(config(root), tmp_path / "w")
        assert how in ("cut", "half a JPEG")
        dataset = dict(cfg.train_dataloader.dataset, split=None, split_sha256=None)
        for sample in DATASETS.build(dataset):
            assert sample["inputs"].shape[0] == 3
    assert SENTENCES[how].format(image=image, ann=ann) in str(caught.value)
    assert "\n" not in str(caught.value)


def options(**values):
    return {key.replace("__", "."): value for key, value in values.items()}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (options(splits__per_class=3), "splits="),
        (options(splits__images=0), r"splits\.images=0"),
        (options(splits__images=2), "the 2 training images are too few for the 3 splits weights, architecture, validation"),
        (options(train_dataloader__dataset__type="mmdet.VOCDataset"), "isn't a data set in COCO's layout"),
        (options(val_dataloader__dataset__data_prefix__img="val/"), "val_dataloader must read the training images"),
        (options(test_dataloader__dataset__metainfo=dict(classes=["dot"])), "differ from those of .*has 'ring'"),
        (options(val_evaluator=dict(type="CocoMetric", metric="segm")), "val_evaluator.metric='segm': boxes are scored"),
        (options(val_evaluator=dict(type="CocoMetric", proposal_nums=(1, 2, 3))), "val_evaluator.proposal_nums is no setting"),
        (options(model__neck__start_level=4), "start_level=4, but the backbone returns 3 maps"),
    ],
)
def test_settings_that_cannot_be(make_coco, tmp_path, changes, words):
    with pytest.raises(ValueError, match=words):
        TASKS.build(dict(type="detection")).prepare(config(make_coco(train=4), **changes), tmp_path / "w")


def test_one_class_that_no_file_has(make_coco, tmp_path):
    cfg = config(make_coco())
    for loader in ("train_dataloader", "arch_dataloader", "val_dataloader", "test_dataloader"):
        cfg[loader].dataset.metainfo = dict(classes=["dot", "bird"])
    with pytest.raises(UserError, match=r"has no category 'bird', which metainfo\.classes names"):
        TASKS.build(dict(type="detection")).prepare(cfg, tmp_path / "w")


def test_data_sets_of_other_classes(make_coco, tmp_path):
    def rename(content, split):
        if split == "val":
            content["categories"][1]["name"] = "box"

    with pytest.raises(UserError, match=r"test_dataloader \(.*instances_val.json\) differ from .*only one of them has 'box'"):
        TASKS.build(dict(type="detection")).prepare(config(make_coco(change=rename)), tmp_path / "w")


def test_a_file_without_boxes_and_a_split_without(make_coco, tmp_path):
    def none(content, split):
        if split == "train":
            content["annotations"] = []

    def only_first(content, split):
        content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] == 10]

    task = TASKS.build(dict(type="detection"))
    with pytest.raises(UserError, match=r"no image of \S+instances_train.json has a box"):
        task.prepare(config(make_coco("none", change=none)), tmp_path / "w")
    with pytest.raises(UserError, match=r"no image of the split \S+ has a box: give it a larger share"):
        task.prepare(config(make_coco("first", change=only_first)), tmp_path / "w2")


def test_a_class_without_boxes_is_told_and_counts(make_coco, tmp_path, monkeypatch):
    def without_rings(content, split):
        content["annotations"] = [entry for entry in content["annotations"] if entry["category_id"] != 90]

    said = []
    monkeypatch.setattr("tasks.detection.layout.say", said.append)
    root = make_coco(change=without_rings)
    cfg = TASKS.build(dict(type="detection")).prepare(config(root), tmp_path / "w")
    assert cfg.model.bbox_head.num_classes == 3
    files = [root / "annotations" / f"instances_{split}.json" for split in ("train", "val")]
    assert said == [f"{file}: 1 of the 3 classes have no box: ring" for file in files]


def test_grey_images_crowds_and_empty_images_are_read(make_coco, tmp_path):
    def odd(content, split):
        content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] not in (12, 13)]
        crowd = next(entry for entry in content["annotations"] if entry["image_id"] == 11)
        crowd.update(iscrowd=1, segmentation=dict(size=[48, 64], counts=[0, 48 * 64]))

    root = make_coco(change=odd)
    with Image.open(root / "train" / "000.png") as image:
        image.convert("L").save(root / "train" / "000.png")
    cfg = TASKS.build(dict(type="detection")).prepare(config(root, RETRAIN), tmp_path / "w")
    dataset = DATASETS.build(dict(cfg.train_dataloader.dataset, split=None, split_sha256=None))
    grey, crowd, empty = dataset[0], dataset[1], dataset[2]
    assert grey["inputs"].shape == (3, 144, 192) and len(grey["data_samples"].gt_instances) == 2
    assert len(crowd["data_samples"].gt_instances) == len(crowd["data_samples"].ignored_instances) == 1
    assert empty["data_samples"].gt_instances.bboxes.tensor.shape == (0, 4)
    assert len(dataset) == 12
    cfg.train_dataloader.dataset.filter_cfg = dict(filter_empty_gt=True)
    assert len(DATASETS.build(dict(cfg.train_dataloader.dataset, split=None, split_sha256=None))) == 10


def test_ids_that_jump_are_mapped(make_coco, tmp_path):
    root = make_coco()
    cfg = TASKS.build(dict(type="detection")).prepare(config(root, CONFIG), tmp_path / "w")
    content = json.loads((root / "annotations" / "instances_val.json").read_text())
    dataset = built(cfg, "test_dataloader")
    ids = {3: 0, 7: 1, 90: 2}
    for i in range(len(dataset)):
        info = dataset.get_data_info(i)
        wanted = [ids[entry["category_id"]] for entry in content["annotations"] if entry["image_id"] == info["img_id"]]
        assert [one["bbox_label"] for one in info["instances"]] == wanted


def test_names_of_files_that_a_task_does_not_read():
    cfg = Config.fromfile("configs/classification/cells_pc_darts_digits_cpu.py")
    cfg.train_ann = "annotations.json"
    with pytest.raises(ValueError, match=r"train_ann='annotations\.json' changes nothing: the data of task 'classification'"):
        TASKS.build(dict(type="classification")).prepare(cfg, "w")
