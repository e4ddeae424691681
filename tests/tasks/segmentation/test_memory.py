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
