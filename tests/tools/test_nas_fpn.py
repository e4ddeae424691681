"""NAS-FPN goes through the tools on embedded scenes: by gradients with partial channels, then trained and tested."""

import json
from pathlib import Path

import pytest

pytest.importorskip("mmdet")

from tests.tools.killed import goes_on_bit_for_bit
from tests.tools.test_detection import ONLY_SEARCH, write

NECK = """
model = dict(
    backbone=dict(base_channels=4),
    neck=dict(in_channels=[4, 8, 16, 32], channels=8, repeats=2, cells=5{more}),
    bbox_head=dict(in_channels=8, feat_channels=8, stacked_convs=1),
    test_cfg=dict(score_thr=0.0, max_per_img=20),
)
"""
RETRAIN = NECK.format(more="") + "train_cfg = dict(max_epochs=1, val_interval=1)\n"
ONE_SHOT = (
    NECK.format(more="")
    + """
strategy = dict(trials=3, population=2, sample=1, batches=2)
splits = dict(train=0.7, validation=0.3)
train_cfg = dict(max_epochs=1, val_interval=1)
"""
)
SEARCH = NECK.format(more=", partial=4") + ONLY_SEARCH


@pytest.fixture(scope="module")
def folder(tmp_path_factory, cache):
    return tmp_path_factory.mktemp("nas_fpn")


@pytest.fixture(scope="module")
def searched(tool, folder, one_thread):
    config = write(folder, "nas_fpn_darts_scenes_cpu", SEARCH)
    assert tool("search")(config, "--work-dir", folder / "search") == 0
    return folder / "search"


def test_a_search_by_gradients_leaves_a_pyramid(searched):
    found = json.loads((searched / "architecture.json").read_text())["parts"]
    assert list(found) == ["neck"] and sorted(found["neck"]["choices"]["nas_fpn/outputs"]) == [3, 4, 5, 6, 7]
    summary = json.loads((searched / "summary.json").read_text())
    # five cells, all of them outputs: 5 x 4 to 9 x 8 ordered pairs, two operations each, 5! orders
    assert summary["space"]["size"] == 20 * 30 * 42 * 56 * 72 * 2**5 * 120
    last = json.loads((searched / "history.jsonl").read_text().splitlines()[-1])
    assert last["partial"] == 4 and len(last["probabilities"]["nas_fpn/outputs"]) == 120
    assert (searched / "report.html").exists()


def test_what_was_found_is_trained_and_tested(tool, searched, folder, capsys):
    retrain = write(folder, "nas_fpn_scenes_cpu_retrain", RETRAIN)
    arch = searched / "architecture.json"
    assert tool("train")(retrain, "--arch", arch, "--work-dir", folder / "train") == 0
    trained = json.loads((folder / "train" / "summary.json").read_text())["architectures"]
    assert trained == {"neck": json.loads(arch.read_text())["parts"]["neck"]["choices"]}
    capsys.readouterr()
    assert tool("test")(retrain, folder / "train" / "checkpoint.pth", "--tta", "--work-dir", folder / "test") == 0
    assert "bbox_mAP" in capsys.readouterr().out
    assert tool("cost")("--config", retrain, arch, "--shape", 3, 64, 64, "--json") == 0
    assert json.loads(capsys.readouterr().out)["params"] > 0


def test_a_one_shot_search_leaves_a_pyramid_and_its_weights(tool, folder, one_thread, capsys):
    config = write(folder, "nas_fpn_oneshot_scenes_cpu", ONE_SHOT)
    assert tool("search")(config, "--work-dir", folder / "one_shot") == 0
    rows = [json.loads(line) for line in (folder / "one_shot" / "history.jsonl").read_text().splitlines()]
    assert [row.get("trial") for row in rows] == [None, 0, 1, 2]
    found = json.loads((folder / "one_shot" / "architecture.json").read_text())["parts"]["neck"]["choices"]
    assert found in [row.get("architecture") for row in rows]
    # the derived network takes over all of its weights
    retrain = write(folder, "nas_fpn_scenes_cpu_retrain", RETRAIN)
    arch, weights = folder / "one_shot" / "architecture.json", folder / "one_shot" / "checkpoint.pth"
    assert tool("train")(retrain, "--arch", arch, "--inherit", weights, "--work-dir", folder / "inherited") == 0


def test_the_published_cells_are_a_file_that_trainings_take(tool, folder, capsys):
    root = Path(__file__).resolve().parents[2]
    arch = root / "backbones" / "archs" / "nas_fpn_cells.json"
    config = root / "configs" / "detection" / "nas_fpn_coco_retrain.py"
    assert tool("cost")("--config", config, arch, "--shape", 3, 640, 640, "--json") == 0
    # the official detector has 91 classes, nine anchors each, and biases in front of the norms of the head's eight convolutions
    assert json.loads(capsys.readouterr().out)["params"] == 60_078_743 - 11 * 9 * (9 * 256 + 1) - 8 * 256


@pytest.mark.slow
def test_a_killed_search_goes_on_bit_for_bit(tmp_path, cache):
    goes_on_bit_for_bit(write(tmp_path, "nas_fpn_darts_scenes_cpu", SEARCH), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("sampling", ["uniform", "fair"])
def test_a_one_shot_search_killed_twice_goes_on_bit_for_bit(tmp_path, cache, sampling):
    """In the supernet's training, and among the paths that are scored with it."""
    more = f"strategy['sampling'] = {sampling!r}\ntrain_cfg = dict(max_epochs=2, val_interval=1, save_steps=1)\n"
    goes_on_bit_for_bit(write(tmp_path, "nas_fpn_oneshot_scenes_cpu", ONE_SHOT + more), tmp_path, one_shot=True)
