"""Budgets of whole detectors through the tools: kept by what each search finds, as counted afresh, or exit code 3."""

import contextlib
import io
import json

import pytest

pytest.importorskip("mmdet")

from tests.tools.test_auto_fpn import FASTER
from tests.tools.test_budget import counted
from tests.tools.test_detection import ONLY_SEARCH, write

# five outputs and one cell of a free level, on which alone costs depend
NECK = """
model = dict(
    backbone=dict(base_channels=4),
    neck=dict(in_channels=[4, 8, 16, 32], channels=8, repeats=1, cells=6{more}),
    bbox_head=dict(in_channels=8, feat_channels=8, stacked_convs=1),
    test_cfg=dict(score_thr=0.0, max_per_img=20),
)
"""
# multiply-adds of a cell that makes the second level, 4x4
NEXT = 4 * 4 * 8 * 8 * 9
DARTS = NECK.format(more=", partial=4") + ONLY_SEARCH
SPLIT = "splits = dict(train=0.7, validation=0.3)\ntrain_cfg = dict(max_epochs=1, val_interval=1)\n"
ONE_SHOT = NECK.format(more="") + SPLIT + "strategy = dict(trials=3, population=2, sample=1, batches=2)\n"
TRIALS = (
    NECK.format(more="") + SPLIT + "executor = dict(type='in_process')\nstrategy = dict(trials=3, population=2, sample=1)\n"
)


def summary_of(work_dir):
    return json.loads((work_dir / "summary.json").read_text())


def least_of(error):
    """The smallest number of multiply-adds that a refusal names."""
    sentence = error.splitlines()[-1]
    assert sentence.startswith("error: budget.macs=1 multiply-adds can't be met: no network of this space has fewer than ")
    assert " at 3x64x64, of which " in sentence
    return int(sentence.partition("fewer than ")[2].partition(" ")[0].replace(",", ""))


def nothing_was_trained(work_dir):
    return not [path for path in work_dir.iterdir() if path.suffix in (".jsonl", ".pth") or path.name == "architecture.json"]


def agrees(tool, capsys, work_dir):
    """What tools/cost.py counts of the network that was found, which is what the search said of it; within every limit."""
    capsys.readouterr()
    summary = summary_of(work_dir)
    assert summary["derived"]["input_size"] == summary["budget"]["input_size"] == [3, 64, 64]
    figures = counted(tool, capsys, work_dir, (3, 64, 64))
    for key in ("macs", "params", "activations"):
        assert figures[key] == summary["derived"][key]
    for metric, row in summary["budget"]["limits"].items():
        assert summary["derived"][metric] == row["derived"] <= row["limit"]
    return figures


def test_an_impossible_budget_of_two_stages_ends_before_the_first_step(tool, found, tmp_path, cache, one_thread, capsys):
    config = write(tmp_path, "auto_fpn_faster_rcnn_pc_darts_scenes_cpu", FASTER + ONLY_SEARCH)
    least = least_of(found(3, config, tmp_path / "w", "budget.macs=1"))
    assert nothing_was_trained(tmp_path / "w")
    # backbone, neck, RPN, and the box head on 1,000 boxes: its two convolutions of cells are the identity in the cheapest one
    assert least > 1000 * (16 * 49 * 11 + 8 * 16 * 49)


@pytest.mark.slow
def test_a_detector_of_two_stages(tool, found, tmp_path, cache, one_thread, capsys):
    config = write(tmp_path, "auto_fpn_faster_rcnn_pc_darts_scenes_cpu", FASTER + ONLY_SEARCH)
    least = least_of(found(3, config, tmp_path / "w", "budget.macs=1"))
    limits = (f"budget.macs={1.2 * least}", "budget.params=60000", "budget.activations=9MB")
    found(0, config, tmp_path / "w", *limits)
    agrees(tool, capsys, tmp_path / "w")
    budget = summary_of(tmp_path / "w")["budget"]
    assert budget["exact"] and budget["smallest"]["macs"] == least and budget["unconstrained"]["macs"] > 1.2 * least


@pytest.fixture(scope="module")
def refused(tool, tmp_path_factory, cache, one_thread):
    """The config of a search for pyramids by gradients, its work directory, where it was refused, the least multiply-adds."""
    folder, error = tmp_path_factory.mktemp("refused"), io.StringIO()
    config = write(folder, "nas_fpn_darts_scenes_cpu", DARTS)
    with contextlib.redirect_stderr(error):
        assert tool("search")(config, "--work-dir", folder / "w", "--cfg-options", "budget.macs=1") == 3
    return config, folder / "w", least_of(error.getvalue())


@pytest.mark.slow
def test_a_pyramid_by_gradients(tool, found, refused, capsys):
    config, work_dir, least = refused
    assert nothing_was_trained(work_dir)
    figures = {}
    for limit in (least, least + NEXT - 1):
        found(
            0,
            config,
            work_dir,
            f"budget.macs={limit}",
            "budget.params=1e6",
            "budget.activations=1e5",
            "strategy.freeze_epochs=0",
        )
        figures[limit] = agrees(tool, capsys, work_dir)
        budget = summary_of(work_dir)["budget"]
        assert budget["exact"] and budget["smallest"]["macs"] == least
        for path in work_dir.glob("*"):
            if path.suffix in (".jsonl", ".pth", ".json"):
                path.unlink()
    assert figures[least]["macs"] == least


@pytest.mark.slow
def test_a_pyramid_by_trials(tool, found, refused, tmp_path, capsys):
    """A free cell of one of the three coarsest levels."""
    config, least = write(tmp_path, "nas_fpn_evolution_scenes_cpu", TRIALS), refused[2]
    found(0, config, tmp_path / "w", f"budget.macs={least + NEXT - 64 * 9 - 1}", "budget.activations=40MB")
    agrees(tool, capsys, tmp_path / "w")
    rows = [json.loads(line) for line in (tmp_path / "w" / "history.jsonl").read_text().splitlines()]
    assert {row["architecture"]["nas_fpn/n5/level"] for row in rows} <= {5, 6, 7} and len(rows) == 3


@pytest.mark.slow
def test_a_pyramid_by_one_shot_within_a_latency(tool, found, tmp_path, cache, one_thread, capsys):
    """By a table of the supernet's config, changed: 10 ms a convolution of the finest level, 1 ms all else, a rest of 2 ms."""
    config = write(tmp_path, "nas_fpn_oneshot_scenes_cpu", ONE_SHOT)
    table = tmp_path / "T.json"
    quick = ("--rounds", 2, "--warmup", 1, "--threads", 1, "--cfg-options", "model.bbox_head.num_classes=10")
    assert tool("latency")("table", config, "--shape", 3, 64, 64, "-o", table, *quick) == 0
    content = json.loads(table.read_text())
    content["rest"]["median"] = 2.0
    for row in content["operations"].values():
        row["median"] = 10.0 if row["name"] == "Conv2d" and row["shapes"] == [[1, 8, 8, 8]] else 1.0
    table.write_text(json.dumps(content))
    error = found(3, config, tmp_path / "none", "budget.latency=22.9", f"budget.table={table}")
    assert "the smallest found is 23 ms" in error and nothing_was_trained(tmp_path / "none")
    # six convolutions and norms, of which the output of the finest level has one: the free cell must not
    found(0, config, tmp_path / "w", "budget.latency=23", f"budget.table={table}")
    agrees(tool, capsys, tmp_path / "w")
    assert summary_of(tmp_path / "w")["derived"]["latency"] == 23
    rows = [json.loads(line) for line in (tmp_path / "w" / "history.jsonl").read_text().splitlines()]
    assert all(row["architecture"]["nas_fpn/n5/level"] != 3 for row in rows if "trial" in row)


@pytest.mark.slow
def test_a_table_of_two_stages_binds_a_search_by_gradients(tool, found, tmp_path, cache, one_thread, capsys):
    config = write(tmp_path, "auto_fpn_faster_rcnn_pc_darts_scenes_cpu", FASTER + ONLY_SEARCH)
    table = tmp_path / "T.json"
    quick = ("--rounds", 2, "--warmup", 1, "--threads", 1, "--cfg-options", "model.roi_head.bbox_head.num_classes=10")
    assert tool("latency")("table", config, "--shape", 3, 64, 64, "-o", table, *quick) == 0
    content = json.loads(table.read_text())
    content["rest"]["median"] = 2.0
    for row in content["operations"].values():
        row["median"] = 10.0 if "conv" in row["name"] else 1.0
    table.write_text(json.dumps(content))
    limits = ("budget.latency=100", f"budget.table={table}")
    found(0, config, tmp_path / "w", *limits)
    agrees(tool, capsys, tmp_path / "w")
    assert summary_of(tmp_path / "w")["budget"]["unconstrained"]["latency"] > 100
