import shutil

import pytest
from mmengine.config import Config

from search.engine.task_data import LOADERS, datasets_of
from search.registry import DATASETS, TASKS

CONFIG = "configs/classification/cells_pc_darts_folder_cpu.py"
RETRAIN = "configs/classification/cells_folder_cpu_retrain.py"


@pytest.fixture
def task():
    return TASKS.build(dict(type="classification"))


def config(root, path=CONFIG, **options):
    cfg = Config.fromfile(path)
    cfg.merge_from_dict({"data_root": str(root), **options})
    return cfg


def built(cfg, loader):
    (dataset,) = datasets_of(cfg[loader])
    return DATASETS.build(dict(dataset))


def test_data_root_changes_every_dataset(task, make_folder, tmp_path):
    first, second = make_folder("first"), make_folder("second", shift=500)
    one = task.prepare(config(first), tmp_path / "w1")
    two = task.prepare(config(second), tmp_path / "w2")
    for loader in LOADERS:
        a, b = built(one, loader), built(two, loader)
        assert a.root.is_relative_to(first) and b.root.is_relative_to(second)
        # the same names, other pixels
        assert a.names == b.names and not (a[0]["inputs"] == b[0]["inputs"]).all()
    shutil.rmtree(first)
    with pytest.raises(ValueError, match="first"):
        task.prepare(config(first), tmp_path / "w3")


@pytest.mark.parametrize("classes", [3, 7])
def test_class_count_is_written_everywhere(task, make_folder, tmp_path, classes):
    root = make_folder(classes=[f"class{i}" for i in range(classes)])
    cfg = config(root, RETRAIN)
    cfg.model.backbone.update(auxiliary=True, num_classes=99)
    cfg = task.prepare(cfg, tmp_path / "w")
    assert cfg.model.num_classes == cfg.model.backbone.num_classes == classes
    for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
        assert list(built(cfg, loader).classes) == [f"class{i}" for i in range(classes)]
    assert list(cfg.val_evaluator.topk) == ([1] if classes == 3 else [1, 5])
    assert task.input_size(cfg) == (3, 32, 32)


def test_splits_are_disjoint_and_test_images_apart(task, make_folder, tmp_path):
    root = make_folder(train=20)
    cfg = task.prepare(config(root), tmp_path / "w")
    parts = {loader: set(built(cfg, loader).names) for loader in LOADERS}
    assert {k: len(v) for k, v in parts.items()} == dict(
        train_dataloader=27, arch_dataloader=27, val_dataloader=6, test_dataloader=12
    )
    assert len(set.union(*parts.values())) == 72
    assert built(cfg, "test_dataloader").root == root / "val"
    # 27 images can't fill a batch of 64
    assert cfg.train_dataloader.batch_size == cfg.arch_dataloader.batch_size == 27


def test_resuming_reads_the_splits_back(task, make_folder, tmp_path):
    root = make_folder(train=20)
    before = task.prepare(config(root), tmp_path / "w")
    # new images that come later don't move the old ones
    for i in range(5):
        shutil.copy(root / "train" / "ant" / "train00.jpg", root / "train" / "ant" / f"new{i}.jpg")
    after = task.prepare(config(root), tmp_path / "w")
    assert before.train_dataloader == after.train_dataloader
    assert built(before, "arch_dataloader").names == built(after, "arch_dataloader").names
    with pytest.raises(ValueError, match="fractions"):
        task.prepare(config(root, **{"splits.weights": 0.3}), tmp_path / "w")
    (tmp_path / "w" / "splits" / "validation.txt").write_text("ant/train00.jpg\n")
    with pytest.raises(ValueError, match=r"validation\.txt was changed"):
        task.prepare(config(root), tmp_path / "w")


def test_without_validation(task, make_folder, tmp_path):
    root = make_folder(train=20)
    options = {"splits.validation": 0.0}
    search = task.prepare(config(root, **options), tmp_path / "w1")
    assert search.val_dataloader.dataset.split == search.arch_dataloader.dataset.split
    retrain = task.prepare(config(root, RETRAIN, **options), tmp_path / "w2")
    assert retrain.val_dataloader is retrain.val_cfg is retrain.val_evaluator is None
    assert retrain.train_dataloader.dataset.split.endswith("train.txt")


def test_evaluation_needs_the_test_folder_alone(task, make_folder, tmp_path):
    root = make_folder()
    shutil.rmtree(root / "train")
    cfg = config(root, RETRAIN)
    for key in ("train_dataloader", "val_dataloader"):
        cfg.pop(key)
    cfg = task.prepare(cfg, tmp_path / "w")
    assert cfg.model.num_classes == 3 and len(built(cfg, "test_dataloader")) == 12
    assert not (tmp_path / "w").exists()


def test_mistakes_are_told(task, make_folder, tmp_path):
    root = make_folder()
    shutil.rmtree(root / "val" / "cat")
    with pytest.raises(ValueError, match=r"val lacks the class 'cat'"):
        task.prepare(config(root), tmp_path / "w")
    digits = Config.fromfile("configs/demo/digits_search.py")
    digits.data_root = str(root)
    with pytest.raises(ValueError, match="changes nothing"):
        task.prepare(digits, tmp_path / "w")
    cfg = config(make_folder("other"), splits=dict(train=0.9, _delete_=True))
    with pytest.raises(ValueError, match=r"weights, architecture, validation"):
        task.prepare(cfg, tmp_path / "w")


def test_the_input_size_is_read_from_validation_images(task, make_folder, tmp_path):
    cfg = task.prepare(config(make_folder(), **{"test_dataloader.dataset.size": 16}), tmp_path / "w")
    assert task.input_size(cfg) == (3, 32, 32)
    for key in ("train_dataloader", "arch_dataloader", "val_dataloader"):
        cfg.pop(key)
    assert task.input_size(cfg) == (3, 16, 16)


def test_a_default_folder_is_the_same_folder(task, make_folder, tmp_path):
    cfg = config(make_folder(train=20))
    cfg.train_dataloader.dataset.pop("folder", None)
    cfg.val_dataloader.dataset.folder = "train"
    assert task.prepare(cfg, tmp_path / "w1").val_dataloader.dataset.split.endswith("validation.txt")
    cfg.val_dataloader.dataset.folder = "val"
    with pytest.raises(ValueError, match="must read the training images"):
        task.prepare(cfg, tmp_path / "w2")


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"splits.weights": "half"}, r"splits\.weights='half'"),
        ({"splits.seed": "a"}, r"splits\.seed='a'"),
        ({"splits.per_class": 2.5}, r"splits\.per_class=2\.5"),
        ({"train_dataloader.batch_size": "abc"}, r"train_dataloader\.batch_size='abc'"),
    ],
)
def test_what_is_no_number_is_named(task, make_folder, tmp_path, option, words):
    with pytest.raises(ValueError, match=words):
        task.prepare(config(make_folder(train=20), **option), tmp_path / "w")


def test_sync_bn_becomes_bn_on_cpu(task, make_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("tasks.classification.adapter.get_device", lambda: "cpu")
    cfg = config(make_folder(), RETRAIN)
    cfg.model.backbone.norm_cfg = dict(type="SyncBN", requires_grad=True)
    assert task.prepare(cfg, tmp_path / "w").model.backbone.norm_cfg.type == "BN"
