import json
import re
from pathlib import Path

import pytest

from search.cost.planner import Need, Reserve
from search.engine import config, memory_plan
from search.engine.checkpoint import read_own
from search.engine.loops import ExactLoop

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "classification"
DIGITS = """
_base_ = {base!r}
model = dict(backbone=dict(layers=1, reductions=(), nodes=1, plan='reference'))
strategy = dict(freeze_epochs=0)
train_cfg = dict(max_epochs=2)
train_dataloader = dict(num_batch_per_epoch=2)
arch_dataloader = dict(num_batch_per_epoch=2)
"""


@pytest.fixture(scope="module")
def digits(tmp_path_factory, one_thread):
    path = tmp_path_factory.mktemp("configs") / "digits.py"
    path.write_text(DIGITS.format(base=str(CONFIGS / "cells_pc_darts_digits_cpu.py")))
    return path


@pytest.fixture(autouse=True)
def only_tensors_count(monkeypatch):
    """What the test process holds besides is nobody's."""
    monkeypatch.setattr(memory_plan, "reserve_here", lambda: Reserve(fixed=10**6))


@pytest.fixture
def by_formula(monkeypatch):
    """Needs of 64 kB an image at K=1 in float32, in place of measured ones."""

    def need_of(cfg, adapter):
        images = cfg.train_dataloader.batch_size / cfg.train_cfg.get("batch_parts", 1)
        peak = int(64_000 * images / cfg.model.backbone.partial / (2 if "Autocast" in cfg.optim_wrapper.get("type", "") else 1))
        return Need(0, 0, 0, 0, {"architecture": peak}, {"architecture": peak})

    monkeypatch.setattr(memory_plan, "need_of", need_of)


def test_a_plan_is_printed_applied_and_resumed(tool, digits, tmp_path, capsys, monkeypatch):
    work_dir = tmp_path / "w"
    command = (digits, "--work-dir", work_dir, "--max-memory", "4.4MB")
    run = ExactLoop._run_epoch

    def stopped(loop):
        run(loop)
        raise KeyboardInterrupt

    with monkeypatch.context() as once:
        once.setattr(ExactLoop, "_run_epoch", stopped)
        assert tool("search")(*command) == 130
    printed = capsys.readouterr().out
    assert "Memory plan for 4.4 MB" in printed
    assert "kept for backward" in printed and "batch 64 as in the config" in printed
    plan = json.loads((work_dir / memory_plan.NAME).read_text())
    assert plan["total"] <= 4_400_000
    assert plan["total"] == plan["reserve"]["fixed"] + max(plan["need"]["peaks"].values())
    # exact things first: the rest stays
    assert plan["setting"]["execution"].startswith("batched")
    assert {k: plan["setting"][k] for k in ("precision", "parts", "crop", "partial", "batch")} == {
        "precision": "float32",
        "parts": 1,
        "crop": 8,
        "partial": 4,
        "batch": 64,
    }
    for key, value in plan["options"].items():
        assert f"{key}={value}" in printed.replace("\n", "")
    written = config.load(work_dir / "config.py")
    assert written.model.backbone.plan == "batched"
    assert written.model.backbone.memory == plan["options"]["model.backbone.memory"]
    # another limit is another plan; the plan's own, and none, go on
    assert tool("search")(*command[:-1], "5MB", "--resume") == 2
    assert "was made for 4.4 MB" in capsys.readouterr().err
    assert tool("search")(digits, "--work-dir", work_dir, "--resume") == 0
    assert "Memory plan" not in capsys.readouterr().out
    saved = read_own(work_dir / "checkpoint.pth")["visnas"]
    assert saved["loop"]["epoch"] == 2
    assert json.loads(saved["config"])["model"]["backbone"]["plan"] == "batched"


def test_nothing_fits(tool, digits, tmp_path, capsys, by_formula):
    command = (digits, "--work-dir", tmp_path / "w", "--cfg-options", "train_cfg.max_epochs=1", "--max-memory")
    assert tool("search")(*command, "1031kB") == 3
    error = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(
        r"error: --max-memory: nothing fits in 1\.0 MB: the smallest need is 1\.0 MB "
        r"\(K=8, batch 64 in 8 parts, crop 8, bfloat16, .*\)\.",
        error,
    )
    assert not (tmp_path / "w" / "checkpoint.pth").exists()
    # 8 images of 64 kB / 16, and what the fixture reserves
    assert tool("search")(*command, "1032kB") == 0
    written = config.load(tmp_path / "w" / "config.py")
    assert written.train_cfg.batch_parts == written.model.backbone.partial == 8
    # steps and learning rates are the config's
    assert written.train_dataloader.batch_size == 64 and written.optim_wrapper.optimizer.lr == 0.05
    assert written.val_dataloader.batch_size == 22


def test_a_search_without_a_plan_goes_on_without_one(tool, digits, tmp_path, capsys):
    command = (digits, "--work-dir", tmp_path / "w", "--cfg-options", "train_cfg.max_epochs=1")
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / memory_plan.NAME).write_text("left by an unfinished start")
    assert tool("search")(*command) == 0
    assert not (tmp_path / "w" / memory_plan.NAME).exists()
    assert tool("search")(*command, "--resume", "--max-memory", "4.4MB") == 2
    assert "started without --max-memory" in capsys.readouterr().err


@pytest.mark.parametrize("size", ["11XB", "11", "0GB"])
def test_sizes_that_are_none(tool, digits, tmp_path, capsys, size):
    assert tool("search")(digits, "--work-dir", tmp_path / "w", "--max-memory", size) == 2
    assert tool("plan_memory")(digits, "--limits", size) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.count("is not a size of memory: give a number and a unit") for line in lines] == [1, 1]
    assert not (tmp_path / "w").exists()


def test_the_table(tool, digits, capsys):
    only = ("--partial", 4, 8, "--execution", "reference", "batched/small", "--precision", "float32")
    limits = ("--limits", "620MB", "1GB")
    assert tool("plan_memory")(digits, *only, *limits, "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    named = [(row["partial"], row["execution"]) for row in rows]
    assert named == [(4, "reference"), (4, "batched/small"), (8, "reference"), (8, "batched/small")]
    for row in rows:
        assert row["peak"] > max(row["kept"].values())
        # the stated assumption for a GPU
        assert row["total"] == int(row["peak"] * 1.05) + 600 * 10**6
        assert row["fits"][str(10**9)] == row["largest"] == 8 * 64
    # less of everything holds larger batches
    tight = [row["fits"][str(620 * 10**6)] for row in rows]
    assert tight[0] < tight[1] and tight[0] < tight[2]


@pytest.mark.parametrize("form", [(), ("--markdown",)])
def test_the_table_for_people(tool, digits, capsys, form, by_formula):
    only = ("--execution", "batched/small", "--precision", "bfloat16", "--limits", "600MB", "1GB")
    assert tool("plan_memory")(digits, *only, *form) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("digits: largest batch of one process that fits")
    (row,) = (line for line in printed.splitlines() if "bfloat16" in line)
    cells = [cell.strip() for cell in re.split("[|│]", row)[1:-1]]
    # the config's K and image side; what is assumed beside a step takes the first limit alone
    assert cells[:4] == ["4", "8", "bfloat16", "batched/small"] and cells[6:] == ["-", "512+"]


def test_what_a_table_can_not_have(tool, digits, capsys):
    assert tool("plan_memory")(digits, "--partial", 3) == 2
    assert "known are 1, 2, 4, 8" in capsys.readouterr().err
    retrain = CONFIGS / "cells_digits_cpu_retrain.py"
    assert tool("plan_memory")(retrain) == 2
    assert "which a search needs" in capsys.readouterr().err
