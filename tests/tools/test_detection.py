"""A detector's backbone goes through the tools on embedded scenes: searched, trained, tested; killed and resumed."""

import json
import os
import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from tasks.scenes import Settings, make
from tests.tools.killed import goes_on_bit_for_bit

pytest.importorskip("mmdet")

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs" / "detection"
DATA = Path(os.environ.get("VISNAS_DATA", ROOT.parent / "shared" / "data"))
# scenes of 64x48 pixels; a step takes a tenth of a second
SMALL = """
_base_ = {base!r}
scenes = dict(width=64, height=48, train=14, val=4, test=1)
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmdet.LoadAnnotations', with_bbox=True),
    dict(type='RandomResize', scale=(64, 48), ratio_range=(0.8, 1.25), keep_ratio=True, resize_type='mmdet.Resize'),
    dict(type='mmdet.RandomCrop', crop_size=(64, 48), allow_negative_crop=True),
    dict(type='mmdet.PhotoMetricDistortion'),
    dict(type='mmdet.PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmdet.Resize', scale=(64, 48), keep_ratio=True),
    dict(type='mmdet.LoadAnnotations', with_bbox=True),
    dict(type='mmdet.PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(batch_size=2, num_workers={workers}, dataset=dict(scenes=scenes, pipeline=pipeline))
val_dataloader = dict(batch_size=3, dataset=dict(scenes=scenes, pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(scenes=scenes, pipeline=test_pipeline))
"""
CELLS = """
model = dict(
    backbone=dict(channels=4, layers=2, reductions=(1,), nodes=2, out_indices=(0, 1, 2)),
    neck=dict(in_channels=[4, 8, 16], out_channels=8),
    bbox_head=dict(in_channels=8, feat_channels=8, stacked_convs=1),
    test_cfg=dict(score_thr=0.0, max_per_img=20),
)
"""
ONLY_SEARCH = """
strategy = dict(freeze_epochs=1)
splits = dict(weights=0.4, architecture=0.4, validation=0.2)
arch_dataloader = dict(batch_size=2, dataset=dict(scenes=scenes, pipeline=pipeline))
train_cfg = dict(max_epochs=2, save_steps=1)
"""
# half the width, a fixed and pretrained first part
RESNET = """
model = dict(backbone=dict(base_channels=8, frozen_stages=1), neck=dict(in_channels=[8, 16, 32, 64], out_channels=8), {heads})
train_cfg = dict(max_epochs=1, val_interval=1)
"""
DENSE = "bbox_head=dict(in_channels=8, feat_channels=8, stacked_convs=1{more}), test_cfg=dict(score_thr=0.0, max_per_img=20)"
HEADS = {
    "retinanet": DENSE.format(more=""),
    "fcos": DENSE.format(more=", norm_cfg=dict(type='GN', num_groups=4)"),
    "faster_rcnn": """
    rpn_head=dict(in_channels=8, feat_channels=8),
    roi_head=dict(bbox_roi_extractor=dict(out_channels=8), bbox_head=dict(in_channels=8, fc_out_channels=16)),
    train_cfg=dict(rpn_proposal=dict(nms_pre=50, max_per_img=20), rcnn=dict(sampler=dict(num=16))),
    test_cfg=dict(rpn=dict(nms_pre=50, max_per_img=20), rcnn=dict(score_thr=0.0, max_per_img=20))""",
}


def write(folder, base, more, workers=0):
    path = folder / f"{base}.py"
    path.write_text(SMALL.format(base=str(CONFIGS / f"{base}.py"), workers=workers) + more)
    return path


def of_a_folder(folder, data, base, more):
    """As `write`, of a config that reads any folder in COCO's layout."""
    path = write(folder, base, more)
    lines = [line for line in path.read_text().splitlines() if not line.startswith("scenes = ")]
    path.write_text("\n".join([*lines, f"data_root = {str(data)!r}\n"]).replace("scenes=scenes, ", ""))
    return path


@pytest.fixture(scope="module")
def configs(tmp_path_factory, cache):
    folder = tmp_path_factory.mktemp("configs")
    retrain = write(folder, "cells_scenes_cpu_retrain", CELLS + "train_cfg = dict(max_epochs=1, val_interval=1)\n")
    return write(folder, "cells_pc_darts_scenes_cpu", CELLS + ONLY_SEARCH), retrain


@pytest.fixture(scope="module")
def searched(tool, configs, tmp_path_factory, one_thread):
    work_dir = tmp_path_factory.mktemp("search") / "work"
    assert tool("search")(configs[0], "--work-dir", work_dir) == 0
    return work_dir


@pytest.fixture(scope="module")
def trained(tool, configs, searched, tmp_path_factory):
    work_dir = tmp_path_factory.mktemp("train") / "work"
    assert tool("train")(configs[1], "--arch", searched / "architecture.json", "--work-dir", work_dir) == 0
    return work_dir


def scores_in(printed):
    return {line.split(": ")[0]: float(line.split(": ")[1]) for line in printed.splitlines() if line.startswith("coco/")}


def test_a_search_leaves_an_architecture_of_the_whole_detector(searched):
    found = json.loads((searched / "architecture.json").read_text())
    assert list(found["parts"]) == ["backbone"] and "normal/n2/inputs" in found["parts"]["backbone"]["choices"]
    summary = json.loads((searched / "summary.json").read_text())
    # padded to a multiple of 32
    assert summary["task"] == "detection" and summary["derived"]["input_size"] == [3, 64, 64]
    assert 0 <= summary["derived"]["score_supernet"] <= 100 and summary["derived"]["macs"] > 0
    last = json.loads((searched / "history.jsonl").read_text().splitlines()[-1])
    assert last["score"]["supernet"] is not None and last["score"]["derived"] is not None
    assert last["arch_loss"] > 0 and (searched / "report.html").exists()
    names = [set((searched / "splits" / f"{s}.txt").read_text().split()) for s in ("weights", "architecture", "validation")]
    assert len(set.union(*names)) == sum(map(len, names)) == 14


def test_training_trains_what_was_found(trained, searched):
    found = json.loads((searched / "architecture.json").read_text())["parts"]["backbone"]["choices"]
    assert json.loads((trained / "summary.json").read_text())["architectures"]["backbone"] == found
    saved = torch.load(trained / "checkpoint.pth", weights_only=True)
    # nine anchors of ten classes
    assert saved["state_dict"]["bbox_head.retina_cls.weight"].shape[0] == 90
    assert saved["meta"]["dataset_meta"]["classes"][:2] == ["zero", "one"]


def test_tests_print_precision_and_write_predictions(tool, configs, trained, tmp_path, capsys):
    checkpoint = trained / "checkpoint.pth"
    out, show = tmp_path / "out.json", tmp_path / "show"
    assert tool("test")(configs[1], checkpoint, "--out", out, "--show-dir", show, "--work-dir", tmp_path / "w") == 0
    scores = scores_in(capsys.readouterr().out)
    assert len(scores) == 6 and 0 <= scores["coco/bbox_mAP"] <= scores["coco/bbox_mAP_50"] <= 100
    boxes = json.loads(out.read_text())
    assert {box["category_id"] for box in boxes} <= set(range(1, 11)) and len({box["image_id"] for box in boxes}) == 4
    assert len(list(show.glob("*.png"))) == 4
    assert tool("test")(configs[1], checkpoint, "--tta", "--work-dir", tmp_path / "w2") == 0
    assert len(scores_in(capsys.readouterr().out)) == 6


def test_mmdets_inferencer_takes_what_a_training_leaves(trained, cache):
    from mmdet.apis import DetInferencer

    image = next(Path(cache).glob("*/val/*.png"))
    inferencer = DetInferencer(str(trained / "config.py"), str(trained / "checkpoint.pth"), device="cpu", show_progress=False)
    found = inferencer(str(image), no_save_vis=True)["predictions"][0]
    assert 0 < len(found["bboxes"]) <= 20 and len(found["labels"]) == len(found["scores"])
    assert inferencer.visualizer.dataset_meta["classes"][:2] == ["zero", "one"]


@pytest.mark.parametrize("detector", HEADS)
def test_mmdets_detectors_are_trained_and_tested(tool, detector, tmp_path, cache, one_thread, capsys):
    config = write(tmp_path, f"{detector}_resnet18_scenes_cpu_retrain", RESNET.format(heads=HEADS[detector]))
    assert tool("train")(config, "--work-dir", tmp_path / "w") == 0
    saved = torch.load(tmp_path / "w" / "checkpoint.pth", weights_only=True)["state_dict"]
    start = {name: value for name, value in saved.items() if name.startswith(("backbone.bn1", "backbone.layer1.0.bn1"))}
    # frozen: as they were made
    assert all((value == float(name.endswith(("weight", "var")))).all() for name, value in start.items())
    assert saved["backbone.layer2.0.bn1.running_mean"].abs().max() > 0
    summary = json.loads((tmp_path / "w" / "summary.json").read_text())
    assert summary["derived"]["params"] > 0 and summary["derived"]["macs"] > 0
    capsys.readouterr()
    assert tool("test")(config, tmp_path / "w" / "checkpoint.pth", "--work-dir", tmp_path / "t") == 0
    assert "coco/bbox_mAP" in scores_in(capsys.readouterr().out)


def test_a_published_backbone_starts_from_its_weights_and_stays_frozen(tool, tmp_path, cache, one_thread):
    from search.registry import MODELS

    settings = dict(type="search.published", name="MobileNetV2 0.35 @96", out_indices=(1, 2, 3, 4))
    state = {name: x + 0.01 if name.endswith("running_mean") else x for name, x in MODELS.build(settings).state_dict().items()}
    torch.save(dict(state_dict=state), tmp_path / "weights.pth")
    init_cfg = dict(type="Pretrained", checkpoint=str(tmp_path / "weights.pth"))
    backbone = dict(settings, _delete_=True, frozen_stages=2, init_cfg=init_cfg)
    model = f"model = dict(backbone={backbone!r}, neck=dict(out_channels=8), {HEADS['retinanet']})\n"
    config = write(tmp_path, "cells_scenes_cpu_retrain", model + "train_cfg = dict(max_epochs=1)\n")
    assert tool("train")(config, "--work-dir", tmp_path / "w") == 0
    saved = torch.load(tmp_path / "w" / "checkpoint.pth", weights_only=True)["state_dict"]
    trained = {name.removeprefix("backbone."): x for name, x in saved.items() if name.startswith("backbone.")}
    moved = {name for name, value in trained.items() if not torch.equal(value, state[name])}
    frozen = ("stem.", *(f"stages.{i}." for i in range(3)))
    assert trained.keys() == state.keys() and moved and not [name for name in moved if name.startswith(frozen)]


def test_a_whole_detector_is_counted(tool, capsys):
    size = ("--shape", 3, 800, 1280, "--json")
    assert tool("cost")("--config", CONFIGS / "faster_rcnn_resnet50_coco_retrain.py", *size) == 0
    found = json.loads(capsys.readouterr().out)
    # backbone, neck, RPN, and the box head on 1,000 boxes: mmdet prints 207.07 G, with biases, norms and activations
    assert (found["params"], round(found["macs"] / 1e9, 2)) == (41_753_056, 206.33)


def test_mistakes_are_one_sentence_and_exit_code_2(tool, configs, trained, tmp_path, capsys):
    def said(*argv):
        assert tool(argv[0])(*argv[1:], "--work-dir", tmp_path / "w") == 2
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return captured.err.splitlines()[-1]

    assert "'class_wise', the nearest known one is 'classwise'" in said(
        "search", configs[0], "--cfg-options", "val_evaluator.class_wise=True"
    )
    assert "score.key='mIoU' isn't among" in said("search", configs[0], "--cfg-options", "score.key=mIoU")
    assert "holds no scenes but something else" in said("search", configs[0], "--cfg-options", f"data_root={trained}")
    folder = CONFIGS / "cells_pc_darts_coco_cpu.py"
    assert "instances_train.json does not exist: give data_root=FOLDER" in said(
        "search", folder, "--cfg-options", f"data_root={tmp_path}"
    )
    assert "give the name of a file that ends in .json" in said(
        "test", configs[1], trained / "checkpoint.pth", "--out", tmp_path / "boxes"
    )


def test_a_jpeg_file_that_is_cut_short_is_named(tool, tmp_path, capfd):
    """Of which cv2 may give what there is, grey below; in a data loader's process."""
    data = make(Settings(width=64, height=48, train=6, val=2, test=1), tmp_path / "data")
    for path in sorted((data / "train").glob("*.png")):
        with Image.open(path) as image:
            # its content tells what it is, not its name
            image.save(path, "JPEG")
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    small = RESNET.format(heads=HEADS["retinanet"])
    config = of_a_folder(tmp_path, data, "retinanet_resnet18_coco_cpu_retrain", small)
    capfd.readouterr()
    options = ("--cfg-options", "train_dataloader.num_workers=1")
    assert tool("train")(config, "--work-dir", tmp_path / "w", *options) == 2
    said = capfd.readouterr().err
    assert "Traceback" not in said and said.count("error: ") == 1
    assert re.fullmatch(rf"error: cannot read {data}/train/\S+\.png: .*; replace or remove this file", said.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_killed_search_goes_on_bit_for_bit(tmp_path, cache, workers):
    goes_on_bit_for_bit(write(tmp_path, "cells_pc_darts_scenes_cpu", CELLS + ONLY_SEARCH, workers), tmp_path)


NAMES = dict(
    train_ann="annotations/instances_train2017.json",
    val_ann="annotations/instances_val2017.json",
    train_img="train2017/",
    val_img="val2017/",
)


SPACES = {
    "cells": ("cells_pc_darts_coco_cpu", "cells_coco_cpu_retrain", ["strategy.freeze_epochs=0"]),
    "nas_fpn": (
        *("nas_fpn_oneshot_coco_cpu", "nas_fpn_coco_cpu_retrain"),
        [f"strategy.{key}={value}" for key, value in dict(trials=3, population=2, sample=1, batches=2).items()],
    ),
}


@pytest.mark.realdata
@pytest.mark.slow
@pytest.mark.parametrize(("folder", "names", "classes"), [("bccd_coco", {}, 3), ("coco_mini", NAMES, 80)])
@pytest.mark.parametrize("space", SPACES)
def test_real_images_by_their_folder_alone(tool, tmp_path, one_thread, capsys, folder, names, classes, space):
    root = DATA / folder
    if not root.is_dir():
        pytest.skip(f"no {folder} in {DATA}")
    data = ("--cfg-options", f"data_root={root}", *(f"{key}={value}" for key, value in names.items()))
    *configs, only_search = SPACES[space]
    search, train = (CONFIGS / f"{name}.py" for name in configs)
    few = ("splits.images=24", "train_cfg.max_epochs=1", "train_cfg.val_interval=1", "train_dataloader.batch_size=4")
    assert tool("search")(search, "--work-dir", tmp_path / "s", *data, *few, *only_search) == 0
    arch = tmp_path / "s" / "architecture.json"
    assert tool("train")(train, "--arch", arch, "--work-dir", tmp_path / "t", *data, *few) == 0
    saved = torch.load(tmp_path / "t" / "checkpoint.pth", weights_only=True)
    assert saved["state_dict"]["bbox_head.retina_cls.weight"].shape[0] == 9 * classes
    assert len(saved["meta"]["dataset_meta"]["classes"]) == classes
    capsys.readouterr()
    assert tool("test")(train, tmp_path / "t" / "checkpoint.pth", *data) == 0
    assert 0 <= scores_in(capsys.readouterr().out)["coco/bbox_mAP"] <= 100
