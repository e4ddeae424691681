"""DPC goes through the tools on embedded scenes: by gradients with partial channels, and by random search."""

import json
from pathlib import Path

import pytest

pytest.importorskip("mmseg")

from tests.tools.killed import goes_on_bit_for_bit

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs" / "segmentation"
# scenes of 64x48 pixels, 3 branches of 6 operations
TINY = """
_base_ = {base!r}
scenes = dict(width=64, height=48, train=14, val=4, test=1)
model = dict(
    data_preprocessor=dict(size=(32, 32)),
    backbone=dict(spec=dict(stem=8, blocks=[[1, 3, 2, 1, 8, 8, 0], [1, 3, 2, 2, 8, 16, 0]], head=16)),
    neck=dict(channels=8, branches=3, rates=(1, 3), grids=(2,)),
    decode_head=dict(channels=8),
)
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmseg.LoadAnnotations'),
    dict(type='mmseg.RandomCrop', crop_size=(32, 32), cat_max_ratio=0.9),
    dict(type='mmseg.PackSegInputs'),
]
train_dataloader = dict(batch_size=2, dataset=dict(scenes=scenes, pipeline=pipeline))
val_dataloader = dict(dataset=dict(scenes=scenes))
test_dataloader = dict(dataset=dict(scenes=scenes))
"""
DARTS = """
model['neck'].update(partial=4)
strategy = dict(freeze_epochs=1)
splits = dict(weights=0.4, architecture=0.4, validation=0.2)
arch_dataloader = dict(batch_size=2, dataset=dict(scenes=scenes, pipeline=pipeline))
train_cfg = dict(max_epochs=2, save_steps=1)
"""
RANDOM = """
strategy = dict(trials=2)
executor = dict(jobs={jobs})
splits = dict(train=0.7, validation=0.3)
train_cfg = dict(max_epochs=1, val_interval=1)
"""
ONE_EPOCH = "train_cfg = dict(max_epochs=1)\n"


def write(folder, base, only=""):
    path = folder / f"{base}.py"
    path.write_text(TINY.format(base=str(CONFIGS / f"{base}.py")) + only)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory, cache):
    return tmp_path_factory.mktemp("dpc")


@pytest.fixture(scope="module")
def retrain(folder):
    return write(folder, "dpc_scenes_cpu_retrain", ONE_EPOCH)


@pytest.fixture(scope="module")
def searched(tool, folder, one_thread):
    config = write(folder, "dpc_darts_scenes_cpu", DARTS)
    assert tool("search")(config, "--work-dir", folder / "darts") == 0
    return folder / "darts"


def test_a_search_by_gradients_leaves_a_cell_of_the_neck(searched):
    found = json.loads((searched / "architecture.json").read_text())["parts"]
    assert list(found) == ["neck"] and {"dpc/n1/inputs", "dpc/n3/inputs"} < set(found["neck"]["choices"])
    summary = json.loads((searched / "summary.json").read_text())
    # 3! x 6^3: a 1x1 convolution, four rates, one grid
    assert summary["space"]["size"] == 1296 and summary["strategy"] == "DARTS, order 1"
    last = json.loads((searched / "history.jsonl").read_text().splitlines()[-1])
    assert last["partial"] == 4 and len(last["probabilities"]["dpc/n3<-2"]) == 6
    assert "dpc cell" in (searched / "report.html").read_text()


def test_what_was_found_is_trained_tested_and_drawn(tool, searched, retrain, folder, capsys):
    arch = searched / "architecture.json"
    assert tool("train")(retrain, "--arch", arch, "--work-dir", folder / "train") == 0
    trained = json.loads((folder / "train" / "summary.json").read_text())["architectures"]
    assert trained == {"neck": json.loads(arch.read_text())["parts"]["neck"]["choices"]}
    capsys.readouterr()
    assert tool("test")(retrain, folder / "train" / "checkpoint.pth", "--tta", "--work-dir", folder / "test") == 0
    assert "mIoU_present: " in capsys.readouterr().out
    assert tool("draw")(arch, "-o", folder / "cell.svg") == 0
    drawn = (folder / "cell.svg").read_text()
    assert "concat" in drawn and all(f">{i}<" in drawn for i in (1, 2, 3))


def test_random_search_by_the_same_tool(tool, folder, one_thread):
    config = write(folder, "dpc_random_scenes_cpu", RANDOM.format(jobs=0))
    assert tool("search")(config, "--work-dir", folder / "random") == 0
    rows = [json.loads(line) for line in (folder / "random" / "history.jsonl").read_text().splitlines()]
    best = json.loads((folder / "random" / "architecture.json").read_text())["parts"]["neck"]["choices"]
    assert len(rows) == 2 and best in [row["architecture"] for row in rows]


def test_a_file_of_another_space_is_refused(tool, searched, folder, retrain, capsys):
    other = write(folder, "dpc_folder_cpu_retrain")
    text = (folder / "dpc_scenes_cpu_retrain.py").read_text().replace("rates=(1, 3)", "rates=(1, 6)")
    other.write_text(text)
    assert tool("train")(other, "--arch", searched / "architecture.json", "--work-dir", folder / "refused") == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "part 'neck' is an architecture of another space" in said or "which this neck doesn't offer" in said
    assert tool("train")(retrain, "--work-dir", folder / "none") == 2
    assert "search.DensePredictionCell has no architecture" in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_search_goes_on_bit_for_bit(tmp_path, cache):
    goes_on_bit_for_bit(write(tmp_path, "dpc_darts_scenes_cpu", DARTS), tmp_path)


@pytest.mark.slow
def test_trials_in_processes_of_their_own_score_the_same(tool, tmp_path, cache, one_thread):
    scores = []
    for jobs in (0, 2):
        config = write(tmp_path, "dpc_random_scenes_cpu", RANDOM.format(jobs=jobs))
        assert tool("search")(config, "--work-dir", tmp_path / f"jobs{jobs}") == 0
        rows = (tmp_path / f"jobs{jobs}" / "history.jsonl").read_text().splitlines()
        scores.append([json.loads(row)["score"] for row in rows])
    assert scores[0] == scores[1]
