"""What becomes of a config: folders, classes, channels and splits are the data's."""

import copy
import shutil

import pytest
from mmengine.config import Config

pytest.importorskip("mmseg")

import tasks.segmentation  # noqa: F401, I001  (before mmseg's models)
from mmseg.datasets import CityscapesDataset
from search.engine.errors import UserError
from search.engine.task_data import LOADERS, datasets_of
from search.registry import TASKS
from search.space import Architecture
from tasks.segmentation.model_config import derived_model
from tests.tasks.prepared import built, images
from tests.tasks.segmentation.conftest import image_path, label_path

CONFIG = "configs/segmentation/cells_pc_darts_folder_cpu.py"
RETRAIN = "configs/segmentation/cells_folder_cpu_retrain.py"
# a wide build of the configs' own size takes a second
TINY = {f"model.backbone.{key}": value for key, value in dict(channels=4, layers=2, nodes=2, reductions=[1]).items()}
CITYSCAPES = list(CityscapesDataset.METAINFO["classes"])


@pytest.fixture
def task():
    return TASKS.build(dict(type="segmentation"))


def config(root, path=CONFIG, **options):
    cfg = Config.fromfile(path)
    cfg.merge_from_dict({"data_root": str(root), **TINY, **options})
    return cfg


def test_data_root_changes_every_dataset(task, make_folder, tmp_path):
    cfg = task.prepare(config(make_folder("mine")), tmp_path / "w")
    for loader in LOADERS:
        assert images(cfg, loader) and all(path.startswith(str(tmp_path / "mine")) for path in images(cfg, loader))
    shutil.rmtree(tmp_path / "mine")
    with pytest.raises(ValueError, match="leftImg8bit/train does not exist; give the folder that holds leftImg8bit/train"):
        task.prepare(config(tmp_path / "mine"), tmp_path / "w2")


def test_splits_are_disjoint_and_test_images_apart(task, make_folder, tmp_path):
    root = make_folder(train=20)
    cfg = task.prepare(config(root), tmp_path / "w")
    parts = {loader: images(cfg, loader) for loader in LOADERS}
    assert {k: len(v) for k, v in parts.items()} == dict(
        train_dataloader=9, arch_dataloader=9, val_dataloader=2, test_dataloader=3
    )
    assert len(set.union(*parts.values())) == 23
    assert all("/val/" in path for path in parts["test_dataloader"])
    # the whole training set but what validates, with equal seed
    train = images(task.prepare(config(root, RETRAIN), tmp_path / "w2"), "train_dataloader")
    assert len(train) == 18 and not train & parts["val_dataloader"]
    shares = {"splits.validation": 0.2, "splits.weights": 0.4, "splits.architecture": 0.4}
    few = task.prepare(config(root, **{"splits.images": 10, **shares}), tmp_path / "w3")
    assert [len(images(few, loader)) for loader in LOADERS] == [4, 4, 2, 3]
    # 4 images can't fill a batch of 8
    assert few.train_dataloader.batch_size == few.arch_dataloader.batch_size == 4


def test_resuming_reads_the_splits_back(task, make_folder, tmp_path):
    root = make_folder(train=12)
    before = task.prepare(config(root), tmp_path / "w")
    for path in (image_path, label_path):
        shutil.copy(path(root, "train", 0), path(root, "train", 77))
    after = task.prepare(config(root), tmp_path / "w")
    assert all(images(before, loader) == images(after, loader) for loader in LOADERS)
    with pytest.raises(ValueError, match="images=200, not 5"):
        task.prepare(config(root, **{"splits.images": 5}), tmp_path / "w")
    (tmp_path / "w" / "splits" / "validation.txt").write_text("town/town_000000_000019\n")
    with pytest.raises(ValueError, match=r"validation\.txt was changed"):
        task.prepare(config(root), tmp_path / "w")


def test_cityscapes_names_its_classes(task, make_folder, tmp_path):
    cfg = task.prepare(config(make_folder()), tmp_path / "w")
    assert cfg.model.decode_head.num_classes == 19
    for loader in LOADERS:
        meta = built(cfg, loader).metainfo
        assert list(meta["classes"]) == CITYSCAPES and meta["label_map"] is None
        assert meta["palette"][13] == [0, 0, 142]


def test_a_folder_names_its_own_classes(task, make_folder, tmp_path):
    cfg = config(make_folder(names=["soil", "leaf", "stone"]))
    cfg.model.auxiliary_head = [dict(cfg.model.decode_head, num_classes=7)]
    cfg = task.prepare(cfg, tmp_path / "w")
    assert cfg.model.decode_head.num_classes == cfg.model.auxiliary_head[0].num_classes == 3
    assert all(built(cfg, loader).metainfo["classes"] == ["soil", "leaf", "stone"] for loader in LOADERS)


def plain(cfg):
    """The config with mmseg's base class, which names no classes."""
    for loader in LOADERS:
        for dataset in datasets_of(cfg.get(loader)):
            dataset.update(
                type="mmseg.BaseSegDataset", img_suffix="_leftImg8bit.png", seg_map_suffix="_gtFine_labelTrainIds.png"
            )
    return cfg


def test_labels_tell_the_number_of_classes(task, make_folder, tmp_path):
    root = make_folder(classes=(0, 2, 255))
    cfg = task.prepare(plain(config(root)), tmp_path / "w")
    assert cfg.model.decode_head.num_classes == 3
    assert built(cfg, "train_dataloader").metainfo["classes"] == ["0", "1", "2"]
    # a test without training data finds as many: those of all label files
    make_folder("data", train=0, val=1, classes=(0, 1))
    alone = plain(config(root))
    for key in ("train_dataloader", "arch_dataloader", "val_dataloader"):
        alone.pop(key)
    assert task.prepare(alone, tmp_path / "w2").model.decode_head.num_classes == 3


def test_where_mmseg_drops_the_label_zero_classes_count_from_one(task, make_folder, tmp_path):
    cfg = plain(config(make_folder(classes=(0, 1, 2, 255))))
    for loader in LOADERS:
        for dataset in datasets_of(cfg.get(loader)):
            dataset.reduce_zero_label = True
    cfg = task.prepare(cfg, tmp_path / "w")
    dataset = built(cfg, "train_dataloader")
    assert dataset.metainfo["classes"] == ["1", "2"] and cfg.model.decode_head.num_classes == 2
    assert set(dataset[0]["data_samples"].gt_sem_seg.data.unique().tolist()) <= {0, 1, 255}


def test_metainfo_of_one_dataset_counts_for_those_that_say_nothing(task, make_folder, tmp_path):
    cfg = plain(config(make_folder()))
    cfg.arch_dataloader.dataset.metainfo = dict(classes=["a", "b", "c", "d"])
    cfg = task.prepare(cfg, tmp_path / "w")
    assert cfg.model.decode_head.num_classes == 4
    assert built(cfg, "test_dataloader").metainfo["classes"] == ["a", "b", "c", "d"]
    other = plain(config(tmp_path / "data"))
    other.train_dataloader.dataset.metainfo = dict(classes=["a", "b"])
    other.test_dataloader.dataset.metainfo = dict(classes=["a", "c"])
    with pytest.raises(ValueError, match="test_dataloader differ from those of train_dataloader: only one of them has 'b'"):
        task.prepare(other, tmp_path / "w2")


def test_heads_get_the_backbones_channels(task, make_folder, tmp_path):
    cfg = config(make_folder(), **{"model.backbone.channels": 16})
    cfg.model.auxiliary_head = dict(type="mmseg.FCNHead", in_index=1, channels=8, num_classes=19)
    cfg = task.prepare(cfg, tmp_path / "w")
    assert cfg.model.decode_head.in_channels == [16, 32, 64] and cfg.model.auxiliary_head.in_channels == 32
    wrong = config(tmp_path / "data")
    wrong.model.decode_head.in_index = [0, 1, 3]
    with pytest.raises(ValueError, match="the backbone returns 3 maps"):
        task.prepare(wrong, tmp_path / "w2")


def test_necks_and_then_heads_get_channels(task, make_folder, tmp_path):
    cfg = Config.fromfile("configs/segmentation/dpc_darts_folder_cpu.py")
    small = {"model.neck.branches": 2, "model.neck.rates": [1], "model.neck.grids": [1], "model.neck.channels": 16}
    cfg.merge_from_dict({"data_root": str(make_folder()), **small})
    raw = cfg.to_dict()
    cfg.model.backbone.out_indices = (0, 1, 2)
    cfg = task.prepare(cfg, tmp_path / "w")
    assert cfg.model.neck.in_channels == [16, 24, 64] and cfg.model.decode_head.in_channels == [16, 24]
    # a neck that doesn't tell what it gives leaves the heads alone
    other = Config(raw)
    other.model.neck = dict(type="mmseg.FPN", in_channels=[24, 64], out_channels=7, num_outs=2)
    assert task.prepare(other, tmp_path / "w2").model.decode_head.in_channels == [24, 32]
    wrong = Config(raw)
    wrong.model.decode_head.in_index = [0, 2]
    with pytest.raises(ValueError, match=r"in_index=\[0, 2\], but the neck returns 2 maps"):
        task.prepare(wrong, tmp_path / "w3")


def test_input_size_and_evaluation_alone(task, make_folder, tmp_path):
    root = make_folder()
    shutil.rmtree(root / "leftImg8bit" / "train")
    cfg = config(root, RETRAIN)
    for key in ("train_dataloader", "val_dataloader"):
        cfg.pop(key)
    cfg = task.prepare(cfg, tmp_path / "w")
    # the longest side becomes 256 pixels
    assert task.input_size(cfg) == (3, 171, 256)
    assert not (tmp_path / "w").exists()


def test_without_validation(task, make_folder, tmp_path):
    root, options = make_folder(), {"splits.validation": 0.0}
    search = task.prepare(config(root, **options), tmp_path / "w1")
    assert images(search, "val_dataloader") == images(search, "arch_dataloader")
    retrain = task.prepare(config(root, RETRAIN, **options), tmp_path / "w2")
    assert retrain.val_dataloader is retrain.val_cfg is retrain.val_evaluator is None


def test_sync_bn_becomes_bn_on_cpu(task, make_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("tasks.segmentation.adapter.get_device", lambda: "cpu")
    cfg = config(make_folder(), **{"model.decode_head.norm_cfg.type": "SyncBN"})
    assert task.prepare(cfg, tmp_path / "w").model.decode_head.norm_cfg.type == "BN"


def test_mmsegs_loading_is_checked_everywhere(task, make_folder, tmp_path):
    cfg = config(make_folder(), RETRAIN)
    # as mmseg's own configs write it
    cfg.train_dataloader.dataset.pipeline[1].type = "LoadAnnotations"
    test = Config({key: value for key, value in copy.deepcopy(cfg).items() if not key.startswith(("train", "val"))})
    cfg, test = task.prepare(cfg, tmp_path / "w"), task.prepare(test, tmp_path / "w")
    for run, loader in ((cfg, "train_dataloader"), (cfg, "val_dataloader"), (test, "test_dataloader")):
        types = [t.type for t in run[loader].dataset.pipeline]
        assert types[0] == "search.LoadImage" and "search.LoadLabels" in types
    # what a training leaves is for mmseg's inferencer
    types = [t.type for t in cfg.test_dataloader.dataset.pipeline]
    assert types[0] == "LoadImageFromFile" and "LoadAnnotations" in types
    inner = cfg.tta_pipeline[1].transforms
    assert inner[2] == [dict(type="search.LoadLabels", num_classes=19, ignore_index=255)]
    assert [t.scale for t in inner[0]] == [(192, 192), (256, 256), (320, 320)]


def test_embedded_scenes(task, tmp_path, monkeypatch):
    monkeypatch.setenv("VISNAS_CACHE", str(tmp_path / "cache"))
    cfg = Config.fromfile("configs/segmentation/cells_pc_darts_scenes_cpu.py")
    for loader in LOADERS:
        cfg[loader].dataset.scenes = dict(width=64, height=48, train=10, val=2, test=1)
    raw = cfg.to_dict()
    cfg = task.prepare(cfg, tmp_path / "w")
    assert cfg.model.decode_head.num_classes == 11 and task.input_size(cfg) == (3, 48, 64)
    assert len(images(cfg, "test_dataloader")) == 2
    here = task.prepare(Config({**raw, "data_root": str(tmp_path / "here")}), tmp_path / "w2")
    assert all(path.startswith(str(tmp_path / "here")) for path in images(here, "test_dataloader"))


def test_a_head_that_reads_all_strides_unsaid_is_narrowed_too():
    model = {"decode_head": {"type": "search.AutoDeepLabSearchHead", "in_channels": [12, 24, 48, 96]}}
    arch = Architecture({"path": (4, 8, 16)})
    narrow = derived_model(model, arch)["decode_head"]
    assert (narrow["strides"], narrow["in_channels"], narrow["in_index"]) == ([16], [48], [-1])
    few = {"decode_head": {**model["decode_head"], "strides": [4, 8], "in_channels": [12, 24]}}
    with pytest.raises(UserError, match=r"model.decode_head.strides=\[4, 8\] lacks 16, at which a path"):
        derived_model(few, arch)
