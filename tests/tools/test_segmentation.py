"""A segmentor's backbone goes through the tools on embedded scenes: searched, trained, tested; killed and resumed."""

import json
import os
from pathlib import Path

import pytest
import torch

from tests.tools.killed import goes_on_bit_for_bit

pytest.importorskip("mmseg")

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs" / "segmentation"
CAMVID = Path(os.environ.get("VISNAS_DATA", ROOT.parent / "shared" / "data")) / "camvid_cityscapes"
# scenes of 64x48 pixels; a step takes a tenth of a second
SEARCH = """
_base_ = {base!r}
scenes = dict(width=64, height=48, train=14, val=4, test=1)
model = dict(
    data_preprocessor=dict(size=(32, 32)),
    backbone=dict(channels=4, layers=2, reductions=(1,), nodes=2),
    decode_head=dict(in_channels=[4, 8, 16], channels=8, num_convs=1),
)
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmseg.LoadAnnotations'),
    dict(type='RandomResize', scale=(64, 48), ratio_range=(0.8, 1.25), keep_ratio=True),
    dict(type='mmseg.RandomCrop', crop_size=(32, 32), cat_max_ratio=0.9),
    dict(type='mmseg.PhotoMetricDistortion'),
    dict(type='mmseg.PackSegInputs'),
]
train_dataloader = dict(batch_size=2, num_workers={workers}, dataset=dict(scenes=scenes, pipeline=pipeline))
val_dataloader = dict(dataset=dict(scenes=scenes))
test_dataloader = dict(dataset=dict(scenes=scenes))
"""
ONLY_SEARCH = """
strategy = dict(freeze_epochs=1)
splits = dict(weights=0.4, architecture=0.4, validation=0.2)
arch_dataloader = dict(batch_size=2, dataset=dict(scenes=scenes, pipeline=pipeline))
train_cfg = dict(max_epochs=2, save_steps=1)
"""


def write(folder, base, only="", workers=0):
    path = folder / f"{base}.py"
    path.write_text(SEARCH.format(base=str(CONFIGS / f"{base}.py"), workers=workers) + only)
    return path


@pytest.fixture(scope="module")
def configs(tmp_path_factory, cache):
    folder = tmp_path_factory.mktemp("configs")
    retrain = write(folder, "cells_scenes_cpu_retrain", "train_cfg = dict(max_epochs=1)\n")
    return write(folder, "cells_pc_darts_scenes_cpu", ONLY_SEARCH), retrain


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


def test_a_search_leaves_an_architecture_of_the_whole_segmentor(searched):
    found = json.loads((searched / "architecture.json").read_text())
    assert list(found["parts"]) == ["backbone"] and "normal/n2/inputs" in found["parts"]["backbone"]["choices"]
    summary = json.loads((searched / "summary.json").read_text())
    assert summary["task"] == "segmentation" and summary["derived"]["input_size"] == [3, 48, 64]
    assert 0 <= summary["derived"]["score_supernet"] <= 100
    last = json.loads((searched / "history.jsonl").read_text().splitlines()[-1])
    assert last["score"]["supernet"] is not None and last["score"]["derived"] is not None
    assert (searched / "report.html").exists()
    names = [set((searched / "splits" / f"{s}.txt").read_text().split()) for s in ("weights", "architecture", "validation")]
    assert len(set.union(*names)) == sum(map(len, names)) == 14


def test_training_trains_what_was_found(trained, searched):
    found = json.loads((searched / "architecture.json").read_text())["parts"]["backbone"]["choices"]
    assert json.loads((trained / "summary.json").read_text())["architectures"]["backbone"] == found
    saved = torch.load(trained / "checkpoint.pth", weights_only=True)
    assert saved["state_dict"]["decode_head.conv_seg.weight"].shape[0] == 11
    assert saved["meta"]["dataset_meta"]["classes"][:2] == ["background", "zero"]


def test_tests_print_both_means_and_write_predictions(tool, configs, trained, tmp_path, capsys):
    checkpoint = trained / "checkpoint.pth"
    out, show = tmp_path / "out", tmp_path / "show"
    assert tool("test")(configs[1], checkpoint, "--out", out, "--show-dir", show, "--work-dir", tmp_path / "w") == 0
    printed = capsys.readouterr().out
    assert "\nmIoU: " in printed and "\nmIoU_present: " in printed
    assert len(list(out.rglob("*.png"))) == len(list(show.rglob("*.png"))) == 4
    slide = ("model.test_cfg.mode=slide", "model.test_cfg.crop_size=(32,32)", "model.test_cfg.stride=(16,16)")
    assert tool("test")(configs[1], checkpoint, "--tta", "--work-dir", tmp_path / "w2", "--cfg-options", *slide) == 0
    assert "mIoU_present: " in capsys.readouterr().out


def test_mmsegs_inferencer_takes_what_a_training_leaves(trained, cache):
    from mmseg.apis import MMSegInferencer

    image = next(Path(cache).glob("*/leftImg8bit/val/*/*.png"))
    inferencer = MMSegInferencer(str(trained / "config.py"), str(trained / "checkpoint.pth"), device="cpu")
    found = inferencer(str(image), show=False)["predictions"]
    assert found.shape == (48, 64) and 0 <= found.min() <= found.max() <= 10


def test_mistakes_are_one_sentence_and_exit_code_2(tool, configs, trained, tmp_path, capsys):
    def said(*argv):
        assert tool(argv[0])(*argv[1:], "--work-dir", tmp_path / "w") == 2
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return captured.err.splitlines()[-1]

    assert "'iou_metric', the nearest known one is 'iou_metrics'" in said(
        "search", configs[0], "--cfg-options", "val_evaluator.iou_metric=mIoU"
    )
    trellis = CONFIGS / "auto_deeplab_scenes_cpu.py"
    assert "model.decode_head: unknown key 'channels'" in said(
        "search", trellis, "--cfg-options", "model.decode_head.channels=8"
    )
    assert "score.key='top1' isn't among" in said("search", configs[0], "--cfg-options", "score.key=top1")
    assert "holds no scenes but something else" in said("search", configs[0], "--cfg-options", f"data_root={trained}")
    assert "scenes.width=7 must be from 32" in said(
        "search", configs[0], "--cfg-options", "train_dataloader.dataset.scenes.width=7"
    )
    folder = CONFIGS / "cells_pc_darts_folder_cpu.py"
    assert "leftImg8bit/train does not exist" in said("search", folder, "--cfg-options", f"data_root={tmp_path}")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_killed_search_goes_on_bit_for_bit(tmp_path, cache, workers):
    goes_on_bit_for_bit(write(tmp_path, "cells_pc_darts_scenes_cpu", ONLY_SEARCH, workers), tmp_path)


@pytest.mark.realdata
@pytest.mark.slow
@pytest.mark.skipif(not CAMVID.is_dir(), reason=f"no CamVid in {CAMVID}")
def test_real_street_scenes_by_their_folder_alone(tool, tmp_path, one_thread, capsys):
    data = ("--cfg-options", f"data_root={CAMVID}")
    search, train = CONFIGS / "auto_deeplab_pc_darts_folder_cpu.py", CONFIGS / "auto_deeplab_folder_cpu_retrain.py"
    few = ("splits.images=12", "train_cfg.max_epochs=1", "train_cfg.val_interval=1")
    assert tool("search")(search, "--work-dir", tmp_path / "s", *data, *few, "strategy.freeze_epochs=0") == 0
    arch = tmp_path / "s" / "architecture.json"
    assert len(json.loads(arch.read_text())["parts"]["backbone"]["choices"]["path"]) == 5
    assert tool("train")(train, "--arch", arch, "--work-dir", tmp_path / "t", *data, *few) == 0
    capsys.readouterr()
    assert tool("test")(train, tmp_path / "t" / "checkpoint.pth", *data) == 0
    scores = dict(line.split(": ") for line in capsys.readouterr().out.splitlines() if line.startswith("mIoU"))
    # 11 of the 19 classes occur: the others can only lower mmseg's mean
    assert float(scores["mIoU_present"]) >= float(scores["mIoU"]) - 0.01
