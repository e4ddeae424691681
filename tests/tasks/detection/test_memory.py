"""What the planner is told equals what a step has: shapes of batches, bytes that losses keep, sizes of images."""

import copy

import pytest
import torch
from mmengine.config import Config

pytest.importorskip("mmdet")

import tasks.detection  # noqa: F401  (before mmdet's models)
from search.cost import bytes_kept
from search.engine.errors import UserError
from search.engine.fake_step import need_of
from search.registry import DATASETS, MODELS, TASKS
from search.supernet import ArchParams, Relax, Softmax, building, record
from tests.search.engine.resident import grows_as_predicted, growth, needs_proc
from tests.tasks.detection.test_adapter import TINY, config
from tests.tasks.real_batches import predicted_and_measured

SMALL = {
    **TINY,
    "model.backbone.partial": 1,
    "model.neck.in_channels": [4, 4, 8],
    "model.neck.out_channels": 8,
    "train_dataloader.batch_size": 2,
    "arch_dataloader.batch_size": 2,
    "val_dataloader.batch_size": 2,
}
HEADS = {
    "retinanet": {"model.bbox_head.in_channels": 8, "model.bbox_head.feat_channels": 8, "model.bbox_head.num_classes": 3},
    "fcos": {
        "model.bbox_head.in_channels": 8,
        "model.bbox_head.feat_channels": 8,
        "model.bbox_head.num_classes": 3,
        "model.bbox_head.norm_cfg": dict(type="GN", num_groups=4),
    },
    "faster_rcnn": {
        "model.rpn_head.in_channels": 8,
        "model.rpn_head.feat_channels": 8,
        "model.roi_head.bbox_roi_extractor.out_channels": 8,
        "model.roi_head.bbox_head.in_channels": 8,
        "model.roi_head.bbox_head.fc_out_channels": 16,
        "model.roi_head.bbox_head.num_classes": 3,
        "model.train_cfg.rcnn.sampler.num": 16,
    },
}


def small(detector):
    """A search of cells under a detector, on scenes."""
    cfg = Config.fromfile("configs/detection/cells_pc_darts_scenes_cpu.py")
    if detector != "retinanet":
        backbone, model = (
            cfg.model.backbone,
            Config.fromfile(f"configs/detection/{detector}_resnet18_scenes_cpu_retrain.py").model,
        )
        cfg.model = model
        cfg.model.backbone = backbone
    cfg.merge_from_dict({**SMALL, **HEADS[detector]})
    return cfg


@pytest.fixture
def task():
    return TASKS.build(dict(type="detection"))


def test_batches_have_the_shapes_of_real_ones(task, make_coco, tmp_path):
    cfg = config(make_coco(), **SMALL)
    prepared = task.prepare(cfg, tmp_path / "w")
    model = MODELS.build(dict(type="mmdet.DetDataPreprocessor", pad_size_divisor=32))
    dataset = DATASETS.build(dict(prepared.train_dataloader.dataset))
    real = dict(inputs=[dataset[0]["inputs"]] * 2, data_samples=[copy.deepcopy(dataset[0]["data_samples"]) for _ in range(2)])
    a, b = (model(batch, training=True) for batch in (real, task.memory_batch(cfg, "train_dataloader")))
    # an image within 192x144 may stand or lie
    assert a["inputs"].shape == (2, 3, 160, 192) and b["inputs"].shape == (2, 3, 192, 192)
    boxes = [batch["data_samples"][0].gt_instances for batch in (a, b)]
    assert boxes[0].bboxes.shape[1:] == boxes[1].bboxes.shape[1:] == (4,) and boxes[0].labels.dtype == boxes[1].labels.dtype


@pytest.mark.parametrize("detector", ["retinanet", "fcos"])
def test_losses_keep_what_mmdets_keep(task, detector):
    cfg = small(detector)
    params = ArchParams(record(lambda: MODELS.build(copy.deepcopy(cfg.model))).space)
    with building(Relax(params)):
        model = MODELS.build(copy.deepcopy(cfg.model)).train()
    batch = model.data_preprocessor(task.memory_batch(cfg, "train_dataloader"), True)
    own = [*model.parameters(), *model.buffers(), *params.parameters()]

    def kept(loss):
        with params.gated(Softmax()):
            return bytes_kept(lambda: model.parse_losses(loss())[0], own)

    assert kept(lambda: task.memory_loss(cfg, model, **batch)) == kept(lambda: model(**batch, mode="loss"))


@pytest.mark.parametrize("detector", ["retinanet", *(pytest.param(d, marks=pytest.mark.slow) for d in ("fcos", "faster_rcnn"))])
def test_a_step_needs_the_same_without_values(task, detector):
    cfg = small(detector)
    before = torch.get_rng_state()
    fake, real = need_of(cfg, task), need_of(cfg, task, fake=False)
    assert torch.equal(before, torch.get_rng_state())
    assert fake.peaks.keys() == {"weights", "architecture", "validation"}
    assert fake.kept == real.kept
    for phase, peak in real.peaks.items():
        assert fake.peaks[phase] == pytest.approx(peak, rel=0.005)


LOADERS = ("train_dataloader", "arch_dataloader", "val_dataloader")
NECK = {"model.backbone.base_channels": 4, "model.neck.in_channels": [4, 8, 16, 32]}
DENSE = {"model.bbox_head.in_channels": 8, "model.bbox_head.feat_channels": 8}
AUTO_FPN = {**NECK, "model.neck.channels": 8, "model.neck.nodes": 1}
LONG = ("auto_fpn_pc_darts", "nas_fpn_darts", "auto_fpn_faster_rcnn_pc_darts")
SUPERNETS = {
    "cells_pc_darts": {**TINY, "model.neck.out_channels": 8, **DENSE},
    "auto_fpn_pc_darts": {**AUTO_FPN, **DENSE, **{f"model.bbox_head.{name}_cell.nodes": 1 for name in ("cls", "reg")}},
    "nas_fpn_darts": {**NECK, "model.neck.channels": 8, "model.neck.repeats": 2, "model.neck.cells": 5, **DENSE},
    "auto_fpn_faster_rcnn_pc_darts": {
        **AUTO_FPN,
        "model.rpn_head.in_channels": 8,
        "model.rpn_head.feat_channels": 8,
        "model.roi_head.bbox_roi_extractor.out_channels": 8,
        "model.roi_head.bbox_head.in_channels": 8,
        "model.roi_head.bbox_head.channels": 16,
        "model.roi_head.bbox_head.cell.nodes": 1,
    },
}


def on_scenes(name, **options):
    """The config of a search on embedded scenes of 128x96 pixels."""
    cfg = Config.fromfile(f"configs/detection/{name}_scenes_cpu.py")
    scenes = dict(width=128, height=96, train=14, val=4, test=1)
    cfg.merge_from_dict({f"{loader}.dataset.scenes": scenes for loader in (*LOADERS, "test_dataloader")})
    for loader in LOADERS[:2]:
        cfg[loader].dataset.pipeline[2].update(scale=(128, 96), ratio_range=(1.0, 1.0))
        cfg[loader].dataset.pipeline[3].crop_size = (128, 96)
    cfg.val_dataloader.dataset.pipeline[1].scale = (128, 96)
    cfg.merge_from_dict({f"{loader}.batch_size": 2 for loader in LOADERS})
    shares = {"splits.weights": 0.4, "splits.architecture": 0.4, "splits.validation": 0.2}
    cfg.merge_from_dict({**shares, **SUPERNETS[name], **options})
    return cfg


@pytest.mark.parametrize(
    "name", ["cells_pc_darts", *(pytest.param(n, marks=pytest.mark.slow) for n in SUPERNETS if n[0] != "c")]
)
def test_a_step_on_real_scenes_needs_what_is_predicted_without_them(task, name, tmp_path, monkeypatch):
    monkeypatch.setenv("VISNAS_CACHE", str(tmp_path / "cache"))
    predicted, measured = predicted_and_measured(task, on_scenes(name), tmp_path / "w")
    assert dict(predicted.kept) == pytest.approx(measured.kept, rel=0.05)
    # picking boxes is left out
    assert predicted.peaks.pop("validation") == pytest.approx(measured.peaks.pop("validation"), rel=0.05, abs=10**6)
    assert dict(predicted.peaks) == pytest.approx(measured.peaks, rel=0.05)


def test_classes_and_channels_are_known_without_images(task):
    cfg = on_scenes("auto_fpn_faster_rcnn_pc_darts")
    assert cfg.model.roi_head.bbox_head.num_classes == 80
    known = task.without_images(cfg)
    assert known.model.roi_head.bbox_head.num_classes == 10 and cfg.model.roi_head.bbox_head.num_classes == 80
    assert task.without_images(on_scenes("cells_pc_darts")).model.neck.in_channels == [4, 4, 8]
    cfg.train_dataloader.dataset.metainfo = dict(classes=["a", "b", "c"])
    assert task.without_images(cfg).model.roi_head.bbox_head.num_classes == 3


def growths():
    """For a step of a supernet what `resident.growth` finds."""
    task = TASKS.build(dict(type="detection"))
    found = {}
    for name, batch in (("", 2), ("cells_pc_darts", 192)):
        batches = {f"{loader}.batch_size": batch for loader in LOADERS[:2]}
        found[name] = growth(task.without_images(on_scenes("cells_pc_darts", **batches)), task)
    del found[""]
    return found


@pytest.mark.slow
@needs_proc
def test_resident_memory_grows_as_predicted():
    grows_as_predicted(__name__)


def resize(**settings):
    return dict(type="mmdet.Resize", **settings)


@pytest.mark.parametrize(
    ("transforms", "size"),
    [
        ([resize(scale=(300, 200))], (200, 300)),
        ([resize(scale=(300, 200), keep_ratio=True)], (300, 300)),
        ([dict(type="RandomResize", scale=(300, 200), ratio_range=(0.1, 2.0), keep_ratio=True)], (600, 600)),
        ([dict(type="RandomResize", scale=[(300, 200), (300, 250)])], (250, 300)),
        ([dict(type="RandomChoiceResize", scales=[(300, 200), (200, 280)])], (280, 300)),
        ([resize(scale=(300, 200)), dict(type="mmdet.RandomCrop", crop_size=(90, 70))], (70, 90)),
        ([resize(scale=(300, 200)), dict(type="mmdet.RandomCrop", crop_size=(0.5, 0.5), crop_type="relative")], (200, 300)),
        ([dict(type="mmdet.RandomFlip", prob=0.5), dict(type="mmdet.Pad", size=(320, 256))], (256, 320)),
    ],
)
def test_sizes_of_images_follow_from_the_transforms(task, make_coco, transforms, size):
    cfg = config(make_coco())
    cfg.model.data_preprocessor.pad_size_divisor = 1
    cfg.train_dataloader.dataset.pipeline = transforms
    assert task.image_size(cfg) == (3, *size)
    cfg.model.data_preprocessor.pad_size_divisor = 64
    assert task.image_size(cfg) == (3, *(-(-side // 64) * 64 for side in size))


def test_scenes_have_a_size_of_their_own(task):
    cfg = small("retinanet")
    assert task.image_size(cfg, "val_dataloader") == (3, 128, 192)
    for loader in ("train_dataloader", "val_dataloader"):
        cfg[loader].dataset.scenes = dict(width=96, height=96)
    # scaled by up to 1.25 and cut to the crop, or within 192x128
    assert task.image_size(cfg) == (3, 128, 192) and task.image_size(cfg, "val_dataloader") == (3, 128, 128)


def test_crops_change_together(task):
    cfg = small("retinanet")
    assert task.crop_options(cfg, 64) == {}
    for loader in ("train_dataloader", "arch_dataloader"):
        cfg[loader].dataset.pipeline[3].crop_size = (128, 128)
    options = task.crop_options(cfg, 64)
    assert len(options) == 2
    cfg.merge_from_dict(options)
    assert task.image_size(cfg) == task.image_size(cfg, "arch_dataloader") == (3, 64, 64)


def test_what_cannot_be_predicted_is_told(task):
    cfg = small("retinanet")
    other = copy.deepcopy(cfg)
    other.val_dataloader.dataset.type = "mmdet.CocoDataset"
    other.val_dataloader.dataset.pipeline.pop(1)
    with pytest.raises(UserError, match="val_dataloader: nothing in its pipeline limits the size"):
        task.image_size(other, "val_dataloader")
    with pytest.raises(UserError, match="memory of a Linear can't be predicted"):
        model = torch.nn.Linear(1, 1)
        model.extract_feat = lambda inputs: inputs
        task.memory_loss(cfg, model, torch.zeros(1), [])
    cfg.strategy.update(order=2, exact=True)
    cfg.model.backbone.plan = "reference"
    with pytest.raises(UserError, match="exact second order through a detector's losses"):
        need_of(cfg, task)
