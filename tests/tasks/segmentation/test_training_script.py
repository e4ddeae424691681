"""mmseg's own tools/train.py and inferencer run a backbone of ours: a config names it, nothing else is needed."""

import json
import random

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("mmseg")

import tasks.segmentation  # noqa: F401
from search.registry import MODELS
from search.space import save
from search.supernet import record
from tests.tasks.scripts import WITH_OPERATIONS, python, tool, write_config
from tests.tasks.segmentation.test_downstream import SIZE, deeplab, three_levels

pytestmark = pytest.mark.upstream
CLASSES = 19
SCRIPT = """
import sys
import numpy as np
from mmseg.apis import MMSegInferencer, inference_model, init_model

config, checkpoint, image = sys.argv[1:]
found = MMSegInferencer(config, checkpoint, device="cpu")(image, show=False)["predictions"]
again = inference_model(init_model(config, checkpoint, device="cpu"), image)
assert np.array_equal(found, again.pred_sem_seg.data[0].numpy()) and found.shape == (64, 96)
print("INFERRED")
"""


@pytest.fixture
def cityscapes(tmp_path):
    """Four images in Cityscapes' layout, the left half of one class and the right half of another."""
    for kind, split in ((k, s) for k in ("leftImg8bit", "gtFine") for s in ("train", "val")):
        (tmp_path / kind / split / "town").mkdir(parents=True)
    for split in ("train", "val"):
        for i in range(2):
            classes = np.zeros(SIZE, np.uint8)
            classes[:, SIZE[1] // 2 :] = 13
            classes[:2] = 255
            pixels = np.repeat(classes[..., None] * 18 + 10 * i, 3, axis=2).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "leftImg8bit" / split / "town" / f"town_{i}_leftImg8bit.png")
            Image.fromarray(classes).save(tmp_path / "gtFine" / split / "town" / f"town_{i}_gtFine_labelTrainIds.png")
    return tmp_path


def config(folder, backbone: dict, in_channels: list[int]) -> dict:
    """DeepLabV3+ on the images, as an mmseg config that trains for two iterations and then validates."""
    model = deeplab(backbone, in_channels)
    for head in ("decode_head", "auxiliary_head"):
        model[head]["num_classes"] = CLASSES

    def loader(split: str, shuffle: bool, *more: dict) -> dict:
        dataset = dict(
            type="CityscapesDataset",
            data_root=str(folder),
            data_prefix=dict(img_path=f"leftImg8bit/{split}", seg_map_path=f"gtFine/{split}"),
            pipeline=[dict(type="LoadImageFromFile"), *more, dict(type="PackSegInputs")],
        )
        return dict(batch_size=2, num_workers=0, sampler=dict(type="DefaultSampler", shuffle=shuffle), dataset=dataset)

    annotations = dict(type="LoadAnnotations")
    crop = dict(type="RandomCrop", crop_size=SIZE, cat_max_ratio=0.75)
    test_loader = loader("val", False, dict(type="Resize", scale=SIZE[::-1], keep_ratio=True), annotations)
    return dict(
        default_scope="mmseg",
        custom_imports=dict(imports=["backbones", "tasks.segmentation"], allow_failed_imports=False),
        model=model,
        train_dataloader=loader("train", True, annotations, crop, dict(type="RandomFlip", prob=0.5)),
        val_dataloader=test_loader,
        test_dataloader=test_loader,
        val_evaluator=dict(type="IoUMetric", iou_metrics=["mIoU"]),
        test_evaluator=dict(type="IoUMetric", iou_metrics=["mIoU"]),
        test_pipeline=[dict(type="LoadImageFromFile"), dict(type="PackSegInputs")],
        train_cfg=dict(type="IterBasedTrainLoop", max_iters=2, val_interval=2),
        val_cfg=dict(type="ValLoop"),
        test_cfg=dict(type="TestLoop"),
        optim_wrapper=dict(type="OptimWrapper", optimizer=dict(type="SGD", lr=0.01, momentum=0.9)),
        default_hooks=dict(
            logger=dict(type="LoggerHook", interval=1, log_metric_by_epoch=False),
            checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=2),
        ),
        visualizer=dict(type="SegLocalVisualizer", vis_backends=[dict(type="LocalVisBackend")]),
        randomness=dict(seed=0),
    )


@pytest.mark.slow
def test_mmseg_trains_validates_and_infers(cityscapes):
    torch.manual_seed(0)
    source = MODELS.build(three_levels("darts"))
    pretrained = source.state_dict()
    # as saved with a classifier
    torch.save(dict(state_dict={f"backbone.{k}": v for k, v in pretrained.items()}), cityscapes / "pretrained.pth")
    init_cfg = dict(type="Pretrained", checkpoint=str(cityscapes / "pretrained.pth"), prefix="backbone")
    backbone = dict(three_levels("darts"), frozen_stages=0, init_cfg=init_cfg)
    file = write_config(cityscapes / "config.py", config(cityscapes, backbone, list(source.out_channels)))

    out = python(tool("mmseg", "train"), file, "--work-dir", cityscapes / "work", cwd=cityscapes)
    assert "mIoU" in out
    log = next((cityscapes / "work").glob("*/vis_data/scalars.json")).read_text().splitlines()
    losses = [entry["loss"] for entry in map(json.loads, log) if "loss" in entry]
    assert len(losses) == 2 and np.isfinite(losses).all()

    saved = torch.load(cityscapes / "work" / "iter_2.pth", weights_only=False)["state_dict"]
    trained = {k.removeprefix("backbone."): v for k, v in saved.items() if k.startswith("backbone.")}
    assert trained.keys() == pretrained.keys()
    moved = {name for name, x in trained.items() if not torch.equal(x, pretrained[name])}
    assert not [name for name in moved if name.startswith("stem0.")]
    rest = {name for name in trained if not name.startswith("stem0.")}
    assert {name for name in rest if name.endswith(("weight", "running_mean"))} <= moved

    script = cityscapes / "infer.py"
    script.write_text(SCRIPT)
    image = cityscapes / "leftImg8bit" / "val" / "town" / "town_0_leftImg8bit.png"
    assert "INFERRED" in python(*WITH_OPERATIONS, script, file, cityscapes / "work" / "iter_2.pth", image, cwd=cityscapes)


def test_mmseg_trains_what_a_search_left_behind(cityscapes):
    """A path and a cell from an architecture file, under our decoder: a config names both, nothing else is needed."""
    backbone = dict(type="search.AutoDeepLab", layers=4, blocks=2, filters=4, stem=(8, 8, 8))
    parts = record(lambda: MODELS.build(dict(backbone))).parts
    architecture = parts["backbone"].sample(random.Random(0))
    file = cityscapes / "architecture.json"
    provenance = dict(strategy="random", seed=0, score=None, cost={}, commit=None)
    save(file, {"backbone": (parts["backbone"], architecture)}, provenance)
    backbone["arch"] = str(file)
    settings = config(cityscapes, backbone, [16, 16, 16])
    del settings["model"]["auxiliary_head"]
    settings["model"]["decode_head"] = dict(
        type="search.DeepLabV3PlusHead",
        in_channels=list(MODELS.build(dict(backbone)).out_channels),
        in_index=[0, 1],
        channels=8,
        low_channels=4,
        dilations=[1, 2],
        num_classes=CLASSES,
        norm_cfg=dict(type="BN"),
    )
    written = write_config(cityscapes / "config.py", settings)
    out = python(tool("mmseg", "train"), written, "--work-dir", cityscapes / "work", cwd=cityscapes)
    assert "mIoU" in out and (cityscapes / "work" / "iter_2.pth").is_file()
    saved = torch.load(cityscapes / "work" / "iter_2.pth", weights_only=False)["state_dict"]
    cells = {name.split(".")[2] for name in saved if name.startswith("backbone.cells.")}
    assert cells == {f"l{layer}_s{stride}" for layer, stride in enumerate(architecture["path"])}
