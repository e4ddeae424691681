"""mmdet's own tools/train.py and inferencer run a backbone or a neck of ours: a config names it, nothing else is needed."""

import json
import random

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("mmdet")

import tasks.detection  # noqa: F401, I001  (before mmdet's models)
from mmdet.apis import inference_detector, init_detector
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from search.registry import MODELS
from search.space import save
from search.supernet import record
from tests.tasks.detection.test_downstream import retinanet
from tests.tasks.scripts import ROOT, WITH_OPERATIONS, python, tool, write_config

pytestmark = pytest.mark.upstream
SIZE = (64, 96)
CLASSES = ("square", "dot")
BACKBONE = dict(type="search.published", name="EfficientNet-B0", out_indices=(1, 2, 3, 4))
# the last level that isn't trained, and the prefixes of what belongs to it
FROZEN, FROZEN_PARTS = 1, ("stem.", "stages.0.", "stages.1.")
SCRIPT = """
import sys
import torch
from mmdet.apis import DetInferencer, inference_detector, init_detector

config, checkpoint, image = sys.argv[1:]
inferencer = DetInferencer(config, checkpoint, device="cpu", show_progress=False)
found = inferencer(image, no_save_vis=True)["predictions"][0]
assert 0 < len(found["bboxes"]) <= 10, found
again = inference_detector(init_detector(config, checkpoint, device="cpu"), image)
torch.testing.assert_close(again.pred_instances.bboxes, torch.tensor(found["bboxes"]))
print("INFERRED")
"""


@pytest.fixture
def coco(tmp_path):
    """Four images with a box each, in COCO's layout."""
    (tmp_path / "images").mkdir()
    images, annotations = [], []
    for i in range(4):
        pixels = np.full((*SIZE, 3), 40 * i, np.uint8)
        x, y, side = 8 + 4 * i, 6, 32
        pixels[y : y + side, x : x + side] = 255
        Image.fromarray(pixels).save(tmp_path / "images" / f"{i}.png")
        images.append(dict(id=i, file_name=f"{i}.png", height=SIZE[0], width=SIZE[1]))
        box = dict(id=i + 1, image_id=i, category_id=i % 2 + 1, bbox=[x, y, side, side], area=side**2, iscrowd=0)
        annotations.append(box)
    categories = [dict(id=k + 1, name=name) for k, name in enumerate(CLASSES)]
    data = dict(images=images, annotations=annotations, categories=categories)
    (tmp_path / "instances.json").write_text(json.dumps(data))
    return tmp_path


def config(folder, backbone: dict, in_channels: list[int]) -> dict:
    """A RetinaNet on the images, as an mmdet config that trains for two iterations and then validates."""
    model = retinanet(backbone, in_channels)
    model["bbox_head"]["num_classes"] = len(CLASSES)

    def loader(*more: dict, **settings) -> dict:
        pipeline = [
            dict(type="LoadImageFromFile"),
            dict(type="LoadAnnotations", with_bbox=True),
            dict(type="Resize", scale=SIZE[::-1], keep_ratio=True),
            *more,
        ]
        dataset = dict(
            type="CocoDataset",
            data_root=str(folder),
            ann_file="instances.json",
            data_prefix=dict(img="images/"),
            metainfo=dict(classes=CLASSES),
            pipeline=pipeline,
            **settings,
        )
        shuffle = not settings.get("test_mode", False)
        return dict(batch_size=2, num_workers=0, sampler=dict(type="DefaultSampler", shuffle=shuffle), dataset=dataset)

    meta_keys = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")
    validation = loader(dict(type="PackDetInputs", meta_keys=meta_keys), test_mode=True)
    evaluator = dict(type="CocoMetric", ann_file=str(folder / "instances.json"), metric="bbox")
    return dict(
        default_scope="mmdet",
        custom_imports=dict(imports=["backbones", "tasks.detection"], allow_failed_imports=False),
        model=model,
        train_dataloader=loader(dict(type="RandomFlip", prob=0.5), dict(type="PackDetInputs")),
        val_dataloader=validation,
        test_dataloader=validation,
        val_evaluator=evaluator,
        test_evaluator=evaluator,
        train_cfg=dict(type="EpochBasedTrainLoop", max_epochs=1, val_interval=1),
        val_cfg=dict(type="ValLoop"),
        test_cfg=dict(type="TestLoop"),
        optim_wrapper=dict(type="OptimWrapper", optimizer=dict(type="SGD", lr=0.01, momentum=0.9)),
        default_hooks=dict(logger=dict(type="LoggerHook", interval=1), checkpoint=dict(type="CheckpointHook", interval=1)),
        custom_hooks=[dict(type="EMAHook", momentum=0.5)],
        visualizer=dict(type="DetLocalVisualizer", vis_backends=[dict(type="LocalVisBackend")]),
        randomness=dict(seed=0),
    )


def average_precision(annotations, predictions) -> float:
    """COCO's average precision of mmdet's predictions for the images 0, 1 ... of a file, by pycocotools."""
    truth, found = COCO(str(annotations)), []
    for image, sample in enumerate(predictions):
        boxes = sample.pred_instances
        for (x, y, right, bottom), score, label in zip(boxes.bboxes.tolist(), boxes.scores, boxes.labels, strict=True):
            box = dict(bbox=[x, y, right - x, bottom - y], score=float(score), category_id=int(label) + 1)
            found.append(dict(box, image_id=image))
    evaluation = COCOeval(truth, truth.loadRes(found), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return float(evaluation.stats[0])


@pytest.mark.slow
def test_mmdet_trains_validates_and_infers(coco):
    torch.manual_seed(0)
    source = MODELS.build(BACKBONE)
    # statistics that a batch would move
    pretrained = {name: x + 0.1 if name.endswith("running_mean") else x for name, x in source.state_dict().items()}
    torch.save(dict(state_dict=pretrained), coco / "pretrained.pth")
    init_cfg = dict(type="Pretrained", checkpoint=str(coco / "pretrained.pth"))
    backbone = dict(BACKBONE, frozen_stages=FROZEN, init_cfg=init_cfg)
    file = write_config(coco / "config.py", config(coco, backbone, list(source.out_channels)))

    out = python(tool("mmdet", "train"), file, "--work-dir", coco / "work", cwd=coco)
    assert "bbox_mAP" in out
    log = next((coco / "work").glob("*/vis_data/scalars.json")).read_text().splitlines()
    losses = [entry["loss"] for entry in map(json.loads, log) if "loss" in entry]
    assert len(losses) == 2 and np.isfinite(losses).all()

    saved = torch.load(coco / "work" / "epoch_1.pth", weights_only=False)
    for state in (saved["state_dict"], {k.removeprefix("module."): v for k, v in saved["ema_state_dict"].items()}):
        trained = {k.removeprefix("backbone."): v for k, v in state.items() if k.startswith("backbone.")}
        assert trained.keys() == pretrained.keys()
        moved = {name for name, x in trained.items() if not torch.equal(x, pretrained[name])}
        assert not [name for name in moved if name.startswith(FROZEN_PARTS)]
        # weights and statistics of all that comes after, but for a bias of which one step's gradient is nothing
        rest = {name for name in trained if not name.startswith(FROZEN_PARTS)}
        assert {name for name in rest if name.endswith(("weight", "running_mean"))} <= moved

    script = coco / "infer.py"
    script.write_text(SCRIPT)
    out = python(*WITH_OPERATIONS, script, file, coco / "work" / "epoch_1.pth", coco / "images" / "1.png", cwd=coco)
    assert "INFERRED" in out


def test_mmdet_trains_what_a_search_left_behind(coco):
    """A cell from an architecture file, and our data set and metric, which find the classes: a config names them."""
    backbone = dict(type="search.CellNet", channels=4, layers=4, stem="imagenet", reductions=(1, 3), out_indices=(0, 1, 2, 3))
    parts = record(lambda: MODELS.build(dict(backbone))).parts
    architecture = parts["backbone"].sample(random.Random(0))
    provenance = dict(strategy="random", seed=0, score=None, cost={}, commit=None)
    save(coco / "architecture.json", {"backbone": (parts["backbone"], architecture)}, provenance)
    backbone["arch"] = str(coco / "architecture.json")
    channels = list(MODELS.build(dict(backbone)).out_channels)
    settings = config(coco, backbone, channels)
    for key in ("train_dataloader", "val_dataloader", "test_dataloader"):
        dataset = settings[key]["dataset"]
        dataset.pop("metainfo", None)
        dataset["type"] = "search.CocoImages"
    settings["val_evaluator"] = settings["test_evaluator"] = dict(type="search.BoxAP", ann_file=str(coco / "instances.json"))
    file = write_config(coco / "config.py", settings)
    out = python(tool("mmdet", "train"), file, "--work-dir", coco / "work", cwd=coco)
    assert "bbox_mAP" in out
    saved = torch.load(coco / "work" / "epoch_1.pth", weights_only=False)
    assert tuple(saved["meta"]["dataset_meta"]["classes"]) == CLASSES
    narrow = {f"backbone.{name}" for name in MODELS.build(dict(backbone)).state_dict()}
    assert narrow == {name for name in saved["state_dict"] if name.startswith("backbone.")}


@pytest.mark.slow
def test_mmdets_runner_trains_a_derived_neck(coco, no_default_scope):
    """Loops, data, preprocessor and metric are mmdet's, and so is the config but for the neck, whose cells a search left."""
    neck = dict(type="search.NASFPN", in_channels=[32, 64, 128, 256], channels=16, repeats=1, start_level=1)
    parts = record(lambda: MODELS.build(dict(neck))).parts
    architecture = parts["neck"].sample(random.Random(0))
    provenance = dict(strategy="random", seed=0, score=None, cost={}, commit=None)
    save(coco / "architecture.json", {"neck": (parts["neck"], architecture)}, provenance)
    neck["arch"] = str(coco / "architecture.json")

    files = dict(data_root=str(coco), ann_file="instances.json", data_prefix=dict(img="images/"))
    files["metainfo"] = dict(classes=CLASSES)
    load = dict(type="LoadImageFromFile")
    pipeline = [load, dict(type="LoadAnnotations", with_bbox=True), dict(type="PackDetInputs")]
    meta_keys = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")
    resize = dict(type="Resize", scale=SIZE[::-1], keep_ratio=True)
    train_set = dict(type="CocoDataset", **files, pipeline=pipeline)
    # forty passes in one epoch
    repeated = dict(_delete_=True, type="RepeatDataset", times=40, dataset=train_set)
    validation = dict(
        num_workers=0,
        persistent_workers=False,
        dataset=dict(**files, pipeline=[load, resize, pipeline[1], dict(type="PackDetInputs", meta_keys=meta_keys)]),
    )
    evaluator = dict(ann_file=str(coco / "instances.json"))
    settings = dict(
        _base_=str(ROOT / "configs/mmdet/nas_fpn_retinanet_r50_coco.py"),
        model=dict(
            data_preprocessor=dict(pad_size_divisor=32, batch_augments=None),
            backbone=dict(depth=18, base_channels=32, frozen_stages=-1, init_cfg=None),
            neck=neck,
            bbox_head=dict(num_classes=len(CLASSES), in_channels=16, feat_channels=16, stacked_convs=1),
        ),
        train_dataloader=dict(batch_size=4, num_workers=0, persistent_workers=False, dataset=repeated),
        val_dataloader=validation,
        test_dataloader=validation,
        val_evaluator=evaluator,
        test_evaluator=evaluator,
        train_cfg=dict(max_epochs=1),
        param_scheduler=[],
        optim_wrapper=dict(optimizer=dict(_delete_=True, type="AdamW", lr=0.003, weight_decay=1e-4)),
        default_hooks=dict(logger=dict(interval=1)),
        randomness=dict(seed=0),
    )
    file = write_config(coco / "config.py", settings)
    python(tool("mmdet", "train"), file, "--work-dir", coco / "work", cwd=coco)
    log = next((coco / "work").glob("*/vis_data/scalars.json")).read_text().splitlines()
    logged = [entry["coco/bbox_mAP"] for entry in map(json.loads, log) if "coco/bbox_mAP" in entry]
    assert len(logged) == 1 and logged[0] > 0.1

    # the file's network, which its checkpoint fits; what mmdet reads of both finds what was scored
    saved = torch.load(coco / "work" / "epoch_1.pth", weights_only=False)["state_dict"]
    derived = MODELS.build(dict(neck)).state_dict()
    assert derived.keys() == {name.removeprefix("neck.") for name in saved if name.startswith("neck.")}
    detector = init_detector(str(file), str(coco / "work" / "epoch_1.pth"), device="cpu")
    assert all(torch.equal(value, saved[name]) for name, value in detector.state_dict().items())
    images = [str(coco / "images" / f"{i}.png") for i in range(4)]
    found = inference_detector(detector, images)
    assert average_precision(coco / "instances.json", found) == pytest.approx(logged[0], abs=1e-3)
