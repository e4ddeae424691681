"""What the planner is told equals what a step has: shapes of batches, bytes that losses keep, crops."""

import copy

import pytest
from mmengine.config import Config

pytest.importorskip("mmseg")

import tasks.segmentation  # noqa: F401  (before mmseg's models)
from search.cost import bytes_kept
from search.engine.errors import UserError
from search.engine.fake_step import need_of
from search.registry import DATASETS, MODELS, TASKS
from search.supernet import ArchParams, Relax, Softmax, building, record
from tests.search.engine.resident import grows_as_predicted, growth, needs_proc
from tests.tasks.real_batches import predicted_and_measured
from tests.tasks.segmentation.test_adapter import TINY, config

SMALL = {
    **TINY,
    "model.decode_head.in_channels": [4, 8, 16],
    "model.decode_head.channels": 8,
    "model.backbone.partial": 1,
    "train_dataloader.batch_size": 2,
    "arch_dataloader.batch_size": 2,
    "val_dataloader.batch_size": 2,
}


@pytest.fixture
def cfg():
    cfg = Config.fromfile("configs/segmentation/cells_pc_darts_scenes_cpu.py")
    cfg.merge_from_dict(SMALL)
    return cfg


@pytest.fixture
def task():
    return TASKS.build(dict(type="segmentation"))


def test_batches_have_the_shapes_of_real_ones(task, make_folder, tmp_path):
    cfg = config(make_folder(), **SMALL)
    prepared = task.prepare(cfg, tmp_path / "w")
    model = MODELS.build(dict(type="mmseg.SegDataPreProcessor", size=(128, 128)))
    dataset = DATASETS.build(dict(prepared.train_dataloader.dataset))
    real = dict(inputs=[dataset[0]["inputs"]] * 2, data_samples=[copy.deepcopy(dataset[0]["data_samples"]) for _ in range(2)])
    a, b = (model(batch, training=True) for batch in (real, task.memory_batch(cfg, "train_dataloader")))
    assert a["inputs"].shape == b["inputs"].shape == (2, 3, 128, 128) and a["inputs"].dtype == b["inputs"].dtype
    labels = [[sample.gt_sem_seg.data for sample in batch["data_samples"]] for batch in (a, b)]
    assert [(x.shape, x.dtype) for x in labels[0]] == [(x.shape, x.dtype) for x in labels[1]]
    # what the planner sees before the adapter has looked at images: the square that they are scaled into
    assert task.image_size(cfg, "train_dataloader") == (3, 128, 128)


def test_losses_keep_what_mmsegs_keep(task, cfg):
    cfg.model.auxiliary_head = dict(cfg.model.decode_head, in_index=1, in_channels=8, input_transform=None)
    cfg.model.auxiliary_head.loss_decode.loss_weight = 0.4
    params = ArchParams(record(lambda: MODELS.build(copy.deepcopy(cfg.model))).space)
    with building(Relax(params)):
        model = MODELS.build(copy.deepcopy(cfg.model)).train()
    batch = model.data_preprocessor(task.memory_batch(cfg, "train_dataloader"), True)
    own = [*model.parameters(), *model.buffers(), *params.parameters()]

    def kept(loss):
        with params.gated(Softmax()):
            return bytes_kept(lambda: model.parse_losses(loss())[0], own)

    mmsegs = kept(lambda: model(**batch, mode="loss"))
    # the indices that mmseg's accuracy sorts by, int64 for each pixel and head, are saved too, and freed at once
    indices = 2 * 8 * batch["inputs"][:, 0].numel()
    assert kept(lambda: task.memory_loss(cfg, model, **batch)) == mmsegs - indices


def test_a_step_needs_the_same_on_fake_tensors(task, cfg):
    fake = need_of(cfg, task)
    assert fake.kept == need_of(cfg, task, fake=False).kept
    assert fake.peaks.keys() == {"weights", "architecture", "validation"}


LOADERS = ("train_dataloader", "arch_dataloader", "val_dataloader")
LONG = ("auto_deeplab", "dpc_darts")
SUPERNETS = {
    "cells_pc_darts": {**TINY, "model.decode_head.channels": 8},
    "auto_deeplab": {"model.backbone.layers": 4, "model.backbone.blocks": 2, "model.backbone.stem": (4, 4, 8)},
    "dpc_darts": {"model.neck.branches": 3, "model.neck.rates": (1, 3), "model.neck.grids": (2,)},
}


def on_scenes(name, **options):
    """The config of a search on embedded scenes of 64x48 pixels, crops of 32x32."""
    cfg = Config.fromfile(f"configs/segmentation/{name}_scenes_cpu.py")
    scenes = dict(width=64, height=48, train=14, val=4, test=1)
    cfg.merge_from_dict({f"{loader}.dataset.scenes": scenes for loader in (*LOADERS, "test_dataloader")})
    cfg.merge_from_dict({f"{loader}.dataset.pipeline.2.crop_size": (32, 32) for loader in LOADERS[:2]})
    cfg.merge_from_dict({f"{loader}.batch_size": 2 for loader in LOADERS})
    shares = {"splits.weights": 0.4, "splits.architecture": 0.4, "splits.validation": 0.2}
    cfg.merge_from_dict({"model.data_preprocessor.size": (32, 32), **shares, **SUPERNETS[name], **options})
    return cfg


@pytest.mark.parametrize(
    "name", ["cells_pc_darts", *(pytest.param(n, marks=pytest.mark.slow) for n in SUPERNETS if n[0] != "c")]
)
def test_a_step_on_real_scenes_needs_what_is_predicted_without_them(task, name, tmp_path, monkeypatch):
    monkeypatch.setenv("VISNAS_CACHE", str(tmp_path / "cache"))
    predicted, measured = predicted_and_measured(task, on_scenes(name), tmp_path / "w")
    # the indices that mmseg's accuracy sorts by, int64 for each pixel, are freed at once
    indices = 8 * 2 * 32**2
    assert dict(predicted.kept) == pytest.approx({phase: size - indices for phase, size in measured.kept.items()}, rel=0.05)
    assert dict(predicted.peaks) == pytest.approx(measured.peaks, rel=0.05)


def test_classes_and_channels_are_known_without_images(task):
    cfg = on_scenes("auto_deeplab")
    # a default of Cityscapes' 19 doesn't fit the weights of 11 classes
    assert cfg.model.decode_head.num_classes == 19
    known = task.without_images(cfg)
    assert known.model.decode_head.num_classes == 11 and cfg.model.decode_head.num_classes == 19
    assert task.without_images(on_scenes("cells_pc_darts")).model.decode_head.in_channels == [4, 8, 16]
    cfg.train_dataloader.dataset.metainfo = dict(classes=["a", "b", "c"])
    with pytest.raises(UserError, match="class_weight has 11 values, but the data have 3 classes"):
        task.without_images(cfg)
    # told by no data set
    other = Config.fromfile("configs/segmentation/cells_pc_darts_folder_cpu.py")
    assert task.without_images(other).model.decode_head.num_classes == other.model.decode_head.num_classes


def growths():
    """For a step of a supernet what `resident.growth` finds."""
    task = TASKS.build(dict(type="segmentation"))
    found = {}
    for name, images, batch in (("", 32, 2), ("cells_pc_darts", 96, 192)):
        pixels = {f"{loader}.dataset.pipeline.2.crop_size": (images, images) for loader in LOADERS[:2]}
        batches = {f"{loader}.batch_size": batch for loader in LOADERS[:2]}
        cfg = on_scenes("cells_pc_darts", **pixels, **batches, **{"model.data_preprocessor.size": (images, images)})
        found[name] = growth(task.without_images(cfg), task)
    del found[""]
    return found


@pytest.mark.slow
@needs_proc
def test_resident_memory_grows_as_predicted():
    grows_as_predicted(__name__)


def test_crops_change_together(task, cfg):
    options = task.crop_options(cfg, 64)
    assert len(options) == 3
    cfg.merge_from_dict(options)
    assert task.image_size(cfg) == task.image_size(cfg, "arch_dataloader") == (3, 64, 64)
    assert tuple(cfg.model.data_preprocessor.size) == (64, 64)
    # of whole images
    assert task.image_size(cfg, "val_dataloader") == (3, 128, 192)
    cfg.train_dataloader.dataset.pipeline[2].crop_size = (64, 96)
    assert task.crop_options(cfg, 32) == {}


def test_images_that_keep_their_ratio_are_counted_as_the_box_they_fit_in(task):
    cfg = Config.fromfile("configs/segmentation/auto_deeplab_cityscapes.py")
    assert task.image_size(cfg) == (3, 321, 321) and task.image_size(cfg, "val_dataloader") == (3, 512, 1024)


def test_what_cannot_be_predicted_is_told(task, cfg):
    other = copy.deepcopy(cfg)
    other.val_dataloader.dataset.type = "mmseg.CityscapesDataset"
    other.model.data_preprocessor.pop("size")
    with pytest.raises(UserError, match="val_dataloader: nothing in its pipeline fixes the size"):
        task.image_size(other, "val_dataloader")
    cfg.model.decode_head.loss_decode = dict(type="mmseg.LovaszLoss", reduction="none")
    with pytest.raises(UserError, match="memory of a LovaszLoss can't be predicted"):
        need_of(cfg, task)
