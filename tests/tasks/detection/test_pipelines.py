"""The size that a detector's costs are counted at: the test's transforms say it, whatever the images are."""

import pytest
from mmengine.config import Config

pytest.importorskip("mmdet")

import tasks.detection  # noqa: F401  (registers the task)
from search.registry import DATASETS, MODELS, TASKS
from tests.tasks.prepared import built

LOAD = [dict(type="LoadImageFromFile")]
PACK = [dict(type="mmdet.LoadAnnotations", with_bbox=True), dict(type="mmdet.PackDetInputs", meta_keys=("img_shape",))]
# width and height of images, of several aspect ratios
SIZES = [(64, 48), (48, 64), (100, 30), (50, 50)]


@pytest.fixture
def task():
    return TASKS.build(dict(type="detection"))


def resize(scale, **settings):
    return dict(type="mmdet.Resize", scale=scale, **settings)


def config(root, transforms, divisor=1, path="configs/detection/retinanet_resnet18_coco_cpu_retrain.py"):
    cfg = Config.fromfile(path)
    cfg.merge_from_dict({"data_root": str(root), "model.data_preprocessor.pad_size_divisor": divisor})
    for loader in ("val_dataloader", "test_dataloader"):
        cfg[loader].dataset.pipeline = [*LOAD, *transforms, *PACK]
        cfg[loader].dataset.data_root = str(root)
    return cfg


@pytest.mark.parametrize(
    ("transforms", "divisor", "size"),
    [
        ([resize((128, 96), keep_ratio=True)], 1, (96, 128)),
        ([resize((128, 96), keep_ratio=True)], 32, (96, 128)),
        ([resize((128, 96), keep_ratio=True)], 40, (120, 160)),
        ([resize((128, 96), keep_ratio=True), dict(type="mmdet.Pad", size_divisor=50)], 1, (100, 150)),
        ([resize((128, 96), keep_ratio=True), dict(type="mmdet.Pad", pad_to_square=True)], 1, (128, 128)),
        ([resize((128, 96), keep_ratio=True), dict(type="mmdet.Pad", size=(200, 150))], 32, (160, 224)),
        ([resize((100, 70), keep_ratio=False)], 1, (70, 100)),
        ([resize(80)], 1, (80, 80)),
        ([dict(type="mmdet.FixScaleResize", scale=(128, 96), keep_ratio=True)], 32, (96, 128)),
        ([dict(type="mmdet.FixShapeResize", width=100, height=90, keep_ratio=True)], 1, (90, 100)),
        # not known here
        ([dict(type="mmdet.ResizeShortestEdge", scale=30, resize_type="mmdet.Resize")], 1, (30, 40)),
        ([dict(type="mmdet.Resize", scale_factor=0.5, keep_ratio=True)], 1, (24, 32)),
    ],
)
def test_it_is_what_an_image_of_the_scales_aspect_ratio_becomes(task, make_coco, tmp_path, transforms, divisor, size):
    cfg = task.prepare(config(make_coco(size=(64, 48)), transforms, divisor), tmp_path / "w")
    item = built(cfg, "test_dataloader")[0]
    fed = MODELS.build(cfg.model.data_preprocessor)({"inputs": [item["inputs"]], "data_samples": [item["data_samples"]]})
    assert task.input_size(cfg) == tuple(fed["inputs"].shape[1:]) == (3, *size)


@pytest.mark.parametrize(
    ("transforms", "divisor", "size"),
    [
        ([resize((128, 96), keep_ratio=True)], 32, (96, 128)),
        # mmdet's resizing takes the longer number for the longer side
        ([resize((800, 1333), keep_ratio=True)], 32, (800, 1344)),
        # as they are: a batch of all images would be as high and as wide as the largest ones
        ([], 1, (64, 100)),
        ([dict(type="mmdet.Pad", size_divisor=32)], 1, (64, 128)),
    ],
)
def test_which_image_is_first_changes_nothing(task, make_coco, transforms, divisor, size):
    found = []
    for name, sizes in (("a", SIZES), ("b", SIZES[::-1])):

        def change(content, split, sizes=sizes):
            for image, (width, height) in zip(content["images"], sizes, strict=False):
                image.update(width=width, height=height)

        root = make_coco(name, size=(48, 32), change=change)
        found.append(task.input_size(config(root, transforms, divisor)))
    assert found == [(3, *size)] * 2


def test_it_is_the_tests_size_then_the_validations(task, make_coco):
    cfg = config(make_coco(), [resize((128, 96), keep_ratio=True)])
    cfg.val_dataloader.dataset.pipeline = [*LOAD, resize((64, 48), keep_ratio=True), *PACK]
    assert task.input_size(cfg) == (3, 96, 128)
    cfg.pop("test_dataloader")
    assert task.input_size(cfg) == (3, 48, 64)
    cfg.val_dataloader.dataset.pipeline[0] = dict(type="LoadImageFromFile", color_type="grayscale")
    assert task.input_size(cfg) == (1, 48, 64)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("retinanet_resnet50_coco_retrain", (800, 1344)),
        ("nas_fpn_coco_retrain", (640, 640)),
        ("nas_fpn_oneshot_coco_cpu", (160, 192)),
        ("nas_fpn_oneshot_scenes_cpu", (128, 192)),
        ("auto_fpn_faster_rcnn_pc_darts_scenes_cpu", (128, 192)),
    ],
)
def test_shipped_configs(task, name, size, tmp_path, monkeypatch):
    """Without their data, and of the embedded scenes the size of what is drawn."""
    monkeypatch.setenv("VISNAS_CACHE", str(tmp_path))
    cfg = Config.fromfile(f"configs/detection/{name}.py")
    assert task.input_size(cfg) == (3, *size)
    if "scenes" in name:
        dataset = dict(cfg.test_dataloader.dataset, pipeline=[*LOAD, *PACK], scenes=dict(train=2, val=1, test=1))
        assert size == tuple(DATASETS.build(dataset)[0]["inputs"].shape[1:])
