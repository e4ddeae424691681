"""What becomes of a config: folders, classes, channels and splits are the data's."""

import json
import shutil

import pytest
from mmengine.config import Config

pytest.importorskip("mmdet")

import tasks.detection  # noqa: F401, I001  (before mmdet's models)
from mmdet.datasets import CocoDataset
from search.engine.task_data import LOADERS
from search.registry import TASKS
from tasks.image_files import LoadImage
from tests.tasks.prepared import built, images

CONFIG = "configs/detection/cells_pc_darts_coco_cpu.py"
RETRAIN = "configs/detection/cells_coco_cpu_retrain.py"
# a wide build of the configs' own size takes a second
TINY = dict(channels=4, layers=2, nodes=1, reductions=[1], out_indices=[0, 1, 2])
TINY = {f"model.backbone.{key}": value for key, value in TINY.items()}
CLASSES = ["dot", "square", "ring"]


@pytest.fixture
def task():
    return TASKS.build(dict(type="detection"))


def config(root, path=CONFIG, **options):
    cfg = Config.fromfile(path)
    cfg.merge_from_dict({"data_root": str(root), **TINY, **options})
    return cfg


def test_data_root_changes_every_dataset(task, make_coco, tmp_path):
    cfg = task.prepare(config(make_coco("mine")), tmp_path / "w")
    for loader in LOADERS:
        assert images(cfg, loader) and all(path.startswith(str(tmp_path / "mine")) for path in images(cfg, loader))
    assert cfg.val_evaluator.ann_file == str(tmp_path / "mine/annotations/instances_train.json")
    assert cfg.test_evaluator.ann_file == str(tmp_path / "mine/annotations/instances_val.json")
    shutil.rmtree(tmp_path / "mine/annotations")
    with pytest.raises(ValueError, match=r"instances_train\.json does not exist: give data_root=FOLDER"):
        task.prepare(config(tmp_path / "mine"), tmp_path / "w2")


def test_files_and_folders_may_have_other_names(task, make_coco, tmp_path):
    root = make_coco("mine")
    for old, new in (("train", "train2017"), ("val", "val2017")):
        (root / old).rename(root / new)
        (root / f"annotations/instances_{old}.json").rename(root / f"{new}.json")
    with pytest.raises(ValueError, match="train_ann, val_ann, train_img and val_img"):
        task.prepare(config(root), tmp_path / "w")
    names = dict(train_ann="train2017.json", val_ann="val2017.json", train_img="train2017/", val_img="val2017/")
    with pytest.raises(ValueError, match=r"the folder \S+/val/? does not exist"):
        task.prepare(config(root, **names | {"val_img": "val/"}), tmp_path / "w")
    cfg = task.prepare(config(root, **names), tmp_path / "w")
    assert all("/train2017/" in path for loader in LOADERS[:3] for path in images(cfg, loader))
    assert all("/val2017/" in path for path in images(cfg, "test_dataloader"))


def test_splits_are_disjoint_and_test_images_apart(task, make_coco, tmp_path):
    root = make_coco(train=20)
    cfg = task.prepare(config(root), tmp_path / "w")
    parts = {loader: images(cfg, loader) for loader in LOADERS}
    counts = dict(train_dataloader=9, arch_dataloader=9, val_dataloader=2, test_dataloader=4)
    assert {k: len(v) for k, v in parts.items()} == counts and len(set.union(*parts.values())) == 24
    assert all("/val/" in path for path in parts["test_dataloader"])
    # the whole training set but what validates, with equal seed
    train = images(task.prepare(config(root, RETRAIN), tmp_path / "w2"), "train_dataloader")
    assert len(train) == 18 and not train & parts["val_dataloader"]
    shares = {"splits.validation": 0.2, "splits.weights": 0.4, "splits.architecture": 0.4}
    few = task.prepare(config(root, **{"splits.images": 10, **shares}), tmp_path / "w3")
    assert [len(images(few, loader)) for loader in LOADERS] == [4, 4, 2, 4]
    # 4 images can't fill a batch of 8
    assert few.train_dataloader.batch_size == few.arch_dataloader.batch_size == 4


def test_resuming_reads_the_splits_back(task, make_coco, tmp_path):
    root = make_coco(train=12)
    before = task.prepare(config(root), tmp_path / "w")
    file = root / "annotations/instances_train.json"
    content = json.loads(file.read_text())
    content["images"].append(dict(content["images"][0], id=999, file_name="more.png"))
    shutil.copy(root / "train/000.png", root / "train/more.png")
    file.write_text(json.dumps(content))
    after = task.prepare(config(root), tmp_path / "w")
    assert all(images(before, loader) == images(after, loader) for loader in LOADERS)
    with pytest.raises(ValueError, match="images=200, not 5"):
        task.prepare(config(root, **{"splits.images": 5}), tmp_path / "w")
    (tmp_path / "w" / "splits" / "validation.txt").write_text("000.png\n")
    with pytest.raises(ValueError, match=r"validation\.txt was changed"):
        task.prepare(config(root), tmp_path / "w")


def test_classes_are_the_files_by_their_ids(task, make_coco, tmp_path):
    def reverse_val(content, split):
        if split == "val":
            content["categories"].reverse()

    cfg = task.prepare(config(make_coco(change=reverse_val)), tmp_path / "w")
    assert cfg.model.bbox_head.num_classes == 3
    for loader in LOADERS:
        dataset = built(cfg, loader)
        assert list(dataset.metainfo["classes"]) == CLASSES and len(dataset.metainfo["palette"]) == 3
        assert dataset.cat2label == {3: 0, 7: 1, 90: 2}


def test_two_stage_heads_get_the_classes_and_the_rpn_does_not(task, make_coco, tmp_path):
    cfg = config(make_coco(), "configs/detection/faster_rcnn_resnet18_coco_cpu_retrain.py")
    for key in TINY:
        cfg.model.backbone.pop(key.rpartition(".")[2], None)
    cfg.model.roi_head.bbox_head.pop("num_classes")
    cfg.model.rpn_head.num_classes = 1
    cfg = task.prepare(cfg, tmp_path / "w")
    assert cfg.model.roi_head.bbox_head.num_classes == 3 and cfg.model.rpn_head.num_classes == 1


def test_coco_keeps_its_colours(task, make_coco, tmp_path):
    names = CocoDataset.METAINFO["classes"]

    def all_of_coco(content, split):
        content["categories"] = [dict(id=number + 1, name=name) for number, name in enumerate(names)]
        content["annotations"] = [dict(entry, category_id=1 + entry["category_id"] % 80) for entry in content["annotations"]]

    cfg = task.prepare(config(make_coco(change=all_of_coco)), tmp_path / "w")
    meta = built(cfg, "test_dataloader").metainfo
    assert cfg.model.bbox_head.num_classes == 80
    assert tuple(meta["classes"]) == names and [tuple(c) for c in meta["palette"]] == CocoDataset.METAINFO["palette"]


def test_some_of_the_classes_by_name(task, make_coco, tmp_path):
    cfg = config(make_coco())
    for loader in LOADERS:
        cfg[loader].dataset.metainfo = dict(classes=["ring", "dot"])
    cfg = task.prepare(cfg, tmp_path / "w")
    dataset = built(cfg, "test_dataloader")
    assert cfg.model.bbox_head.num_classes == 2 and dataset.cat2label == {90: 0, 3: 1}
    labels = [one["bbox_label"] for i in range(len(dataset)) for one in dataset.get_data_info(i)["instances"]]
    assert set(labels) == {0, 1}


def test_the_neck_gets_the_backbones_channels(task, make_coco, tmp_path):
    root = make_coco()
    cfg = task.prepare(config(root, **{"model.backbone.channels": 16}), tmp_path / "w")
    assert cfg.model.neck.in_channels == [16, 16, 32]
    published = dict(type="search.published", name="MobileNetV2 1.0 @224", out_indices=(1, 2, 3, 4))
    cfg = config(root, RETRAIN)
    cfg.model.backbone = published
    assert task.prepare(cfg, tmp_path / "w2").model.neck.in_channels == [24, 32, 96, 320]
    # strides 8, 16 and 32: what the pyramid starts with is stride 16
    cfg.model.backbone.out_indices = (2, 3, 4)
    with pytest.raises(ValueError, match=r"strides from 8 on, but the maps of model.neck begin with stride 16"):
        task.prepare(cfg, tmp_path / "w3")
    cfg.model.neck.start_level = 0
    assert task.prepare(cfg, tmp_path / "w4").model.neck.in_channels == [32, 96, 320]


def test_input_size_and_evaluation_alone(task, make_coco, tmp_path):
    root = make_coco()
    shutil.rmtree(root / "train")
    cfg = config(root, RETRAIN)
    for key in ("train_dataloader", "val_dataloader"):
        cfg.pop(key)
    cfg = task.prepare(cfg, tmp_path / "w")
    # the longest side becomes 192 pixels, and 144 are padded to a multiple of 32
    assert task.input_size(cfg) == (3, 160, 192)
    assert not (tmp_path / "w").exists()


def test_without_validation(task, make_coco, tmp_path):
    root, options = make_coco(), {"splits.validation": 0.0}
    search = task.prepare(config(root, **options), tmp_path / "w1")
    assert images(search, "val_dataloader") == images(search, "arch_dataloader")
    retrain = task.prepare(config(root, RETRAIN, **options), tmp_path / "w2")
    assert retrain.val_dataloader is retrain.val_cfg is retrain.val_evaluator is None
    # sizes that a training draws at random are none of the network's
    resize = dict(type="RandomResize", scale=(192, 144), ratio_range=(0.3, 3.0), resize_type="mmdet.Resize")
    retrain.train_dataloader.dataset.pipeline[2] = resize
    assert {task.input_size(retrain) for _ in range(8)} == {(3, 160, 192)}


def test_sync_bn_becomes_bn_on_cpu(task, make_coco, tmp_path, monkeypatch):
    monkeypatch.setattr("tasks.detection.adapter.get_device", lambda: "cpu")
    cfg = config(make_coco(), **{"model.neck.norm_cfg": dict(type="SyncBN")})
    assert task.prepare(cfg, tmp_path / "w").model.neck.norm_cfg.type == "BN"


def test_mmdets_names_become_the_checked_ones(task, make_coco, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr("tasks.detection.model_config.say", said.append)
    cfg = config(make_coco(), RETRAIN)
    # as mmdet's own configs write it
    cfg.train_dataloader.dataset.type = "CocoDataset"
    cfg.val_dataloader.dataset.type = "mmdet.CocoDataset"
    cfg.val_evaluator = [dict(type="CocoMetric", metric="bbox", classwise=True)]
    cfg = task.prepare(cfg, tmp_path / "w")
    said = [line for line in said if "Coco" in line]
    assert [line.partition(":")[0] for line in said] == [
        "train_dataloader.dataset.type='CocoDataset' is changed to 'search.CocoImages', which checks the annotation file",
        "val_dataloader.dataset.type='mmdet.CocoDataset' is changed to 'search.CocoImages', which checks the annotation file",
        "val_evaluator.type='CocoMetric' is changed to 'search.BoxAP'",
    ]
    assert "in percent, a hundred times mmdet's" in said[-1]
    assert cfg.train_dataloader.dataset.type == cfg.val_dataloader.dataset.type == "search.CocoImages"
    assert cfg.val_evaluator[0] == dict(
        type="search.BoxAP", classwise=True, ann_file=str(tmp_path / "data/annotations/instances_train.json")
    )
    for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
        # mmdet's inferencer looks for this name
        assert cfg[loader].dataset.pipeline[0].type == "LoadImageFromFile"
        assert type(built(cfg, loader).pipeline.transforms[0]) is LoadImage


def test_embedded_scenes(task, tmp_path, monkeypatch):
    monkeypatch.setenv("VISNAS_CACHE", str(tmp_path / "cache"))
    cfg = Config.fromfile("configs/detection/cells_pc_darts_scenes_cpu.py")
    cfg.merge_from_dict(TINY)
    for loader in LOADERS:
        cfg[loader].dataset.scenes = dict(width=64, height=48, train=10, val=2, test=1)
    raw = cfg.to_dict()
    cfg = task.prepare(cfg, tmp_path / "w")
    assert cfg.model.bbox_head.num_classes == 10 and task.input_size(cfg) == (3, 128, 192)
    assert len(images(cfg, "test_dataloader")) == 2
    here = task.prepare(Config({**raw, "data_root": str(tmp_path / "here")}), tmp_path / "w2")
    assert all(path.startswith(str(tmp_path / "here")) for path in images(here, "test_dataloader"))
