"""Data that can't be used: one sentence each, which names the file or the value."""

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

pytest.importorskip("mmseg")

from search.engine.errors import UserError
from search.registry import DATASETS, TASKS
from tests.tasks.segmentation.conftest import image_path, label_path
from tests.tasks.segmentation.test_adapter import CONFIG, RETRAIN, config, plain

PREPARED = ("missing label", "other size", "colours", "no image", "cut header", "empty", "few")


def spoil(root, how):
    image, label = image_path(root, "train", 3), label_path(root, "train", 3)
    if how == "missing label":
        label.unlink()
    elif how == "other size":
        Image.fromarray(np.zeros((32, 40), np.uint8)).save(label)
    elif how == "colours":
        Image.fromarray(np.zeros((32, 48, 3), np.uint8)).save(label)
    elif how == "no image":
        image.write_text("not an image")
    elif how == "cut header":
        label.write_bytes(label.read_bytes()[:10])
    elif how == "empty":
        for path in (root / "leftImg8bit" / "train").glob("*/*"):
            path.unlink()
    elif how == "few":
        for path in sorted((root / "leftImg8bit" / "train").glob("*/*"))[2:]:
            path.unlink()
    elif how == "cut image":
        image.write_bytes(image.read_bytes()[:-300])
    elif how == "half a JPEG":
        with Image.open(image) as whole:
            # its content tells what it is, not its name
            whole.save(image, "JPEG")
        image.write_bytes(image.read_bytes()[: image.stat().st_size // 2])
    elif how == "label 19":
        Image.fromarray(np.full((32, 48), 19, np.uint8)).save(label)
    elif how == "label 300":
        Image.fromarray(np.full((32, 48), 300, np.uint16)).save(label)
    return {"image": str(image), "label": str(label)}


SENTENCES = {
    "missing label": "the image {image} has no label file {label}: add it, or remove the image",
    "other size": "the label file {label} has 40x32 pixels, but its image {image} 48x32",
    "colours": "the label file {label} is a colour image (RGB): a pixel must be its class's number",
    "no image": "cannot read {image}: cannot identify image file",
    "cut header": "cannot read {label}:",
    "empty": "leftImg8bit/train holds no image *_leftImg8bit.png",
    "few": "the 2 training images are too few for the 3 splits weights, architecture, validation",
    "cut image": "cannot read {image}: failed to load image",
    "half a JPEG": "cannot read {image}: ",
    "label 19": "the label file {label} has the label 19, but the classes are 0 to 18 and 255 is ignored",
    "label 300": "the label file {label} has the label 300, but the classes are 0 to 18",
}


@pytest.mark.parametrize("how", SENTENCES)
def test_a_file_that_cannot_be_used_is_named(make_folder, tmp_path, how):
    root = make_folder()
    files = spoil(root, how)
    task = TASKS.build(dict(type="segmentation"))
    with pytest.raises(UserError) as caught:
        cfg = task.prepare(config(root), tmp_path / "w")
        assert how not in PREPARED
        dataset = dict(cfg.train_dataloader.dataset, ann_file="")
        for sample in DATASETS.build(dataset):
            assert sample["inputs"].shape[0] == 3
    assert SENTENCES[how].format(**files) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("classes", "words"),
    [((0, 255), "have 1 classes"), ((0, 1), None), ((255,), "have 0 classes")],
)
def test_label_files_without_two_classes(make_folder, tmp_path, classes, words):
    task, cfg = TASKS.build(dict(type="segmentation")), plain(config(make_folder(classes=classes)))
    if words is None:
        assert task.prepare(cfg, tmp_path / "w").model.decode_head.num_classes == 2
    else:
        with pytest.raises(UserError, match=words):
            task.prepare(cfg, tmp_path / "w")


def options(**values):
    return {key.replace("__", "."): value for key, value in values.items()}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (options(model__decode_head__ignore_index=0), "ignored label is 255 in the data sets but 0 in model.decode_head"),
        (options(val_evaluator__ignore_index=3), "255 in the data sets but 3 in val_evaluator"),
        (options(model__decode_head__loss_decode__class_weight=[1.0, 2.0]), "class_weight has 2 values, but the data have 19"),
        (options(model__data_preprocessor__size=(64, 64)), r"train_dataloader crops \(128, 128\), more than"),
        (options(splits__per_class=3), "splits="),
        (options(splits__images=0), r"splits\.images=0"),
        (options(train_dataloader__dataset__type="mmseg.BaseCDDataset"), "isn't a segmentation data set"),
        (options(train_dataloader__dataset__img_suffix=".bmp"), r"train holds no image \*\.bmp"),
        (options(train_dataloader__dataset__ann_file="gone.txt"), r"gone\.txt does not exist"),
        (options(train_dataloader__dataset__metainfo=dict(classes=["a"])), "differ from those of|at least 2"),
        (options(val_dataloader__dataset__data_prefix__img_path="leftImg8bit/val"), "must read the training images"),
    ],
)
def test_settings_that_cannot_be(make_folder, tmp_path, changes, words):
    task = TASKS.build(dict(type="segmentation"))
    with pytest.raises(ValueError, match=words):
        task.prepare(config(make_folder(), **changes), tmp_path / "w")


def test_training_images_of_different_sizes_need_a_crop_or_padding(make_folder, tmp_path):
    root = make_folder(train=30)
    for path in (image_path, label_path):
        with Image.open(path(root, "train", 5)) as image:
            image.resize((48, 48), Image.Resampling.NEAREST).save(path(root, "train", 5))
    task = TASKS.build(dict(type="segmentation"))
    cfg = config(root, RETRAIN, **{"splits.train": 1.0, "splits.validation": 0.0})
    cfg.model.data_preprocessor.pop("size")
    task.prepare(cfg, tmp_path / "cropped")
    cfg.train_dataloader.dataset.pipeline = [t for t in cfg.train_dataloader.dataset.pipeline if "Crop" not in t.type]
    with pytest.raises(UserError, match="train_dataloader: images of different sizes can't make a batch"):
        task.prepare(cfg, tmp_path / "whole")
    cfg.model.data_preprocessor.size = (128, 128)
    task.prepare(cfg, tmp_path / "padded")


def test_images_of_different_sizes_make_no_batch(make_folder, tmp_path):
    root = make_folder(train=30)
    for path in (image_path, label_path):
        with Image.open(path(root, "train", 5)) as image:
            image.resize((48, 48), Image.Resampling.NEAREST).save(path(root, "train", 5))
    task = TASKS.build(dict(type="segmentation"))
    cfg = config(root, **{"splits.validation": 0.5, "splits.weights": 0.25, "splits.architecture": 0.25})
    # whichever split the odd one falls in, one of the two seeds validates on it
    with pytest.raises(UserError, match="images of different sizes can't make a batch"):
        for seed in range(8):
            cfg.splits.seed = seed
            task.prepare(cfg, tmp_path / f"w{seed}")
    cfg.val_dataloader.dataset.pipeline[1].keep_ratio = False
    task.prepare(cfg, tmp_path / "resized")


def test_no_data_at_all(tmp_path):
    cfg = Config.fromfile(CONFIG)
    for key in ("train_dataloader", "arch_dataloader", "val_dataloader", "test_dataloader"):
        cfg.pop(key)
    with pytest.raises(UserError, match="no dataset"):
        TASKS.build(dict(type="segmentation")).prepare(cfg, tmp_path / "w")
