"""tools/compare.py and tools/demo.py on the digits: real searches and trainings, shortened."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools import compare, demo

ROOT = Path(__file__).resolve().parents[2]
SEARCH, RECIPE = (str(ROOT / "configs" / "demo" / f"digits_{name}.py") for name in ("search", "retrain"))
SHORT_SEARCH = ["train_cfg.max_epochs=1", "strategy.freeze_epochs=0", "model.backbone.channels=4"]
SHORT_RECIPE = ["train_cfg.max_epochs=1", "model.backbone.channels=4", "model.backbone.layers=3"]


def arguments(tmp_path, *more):
    options = ["--search-options", *SHORT_SEARCH, "--retrain-options", *SHORT_RECIPE]
    seeds = ["--seeds", "0", "--random", "1", "--random-search-seeds"]
    return [SEARCH, "--retrain", RECIPE, "--work-dir", str(tmp_path / "w"), *seeds, *options, *more]


@pytest.mark.parametrize(
    "more, words",
    [
        (["--jobs", "0"], "--jobs 0"),
        (["--cfg-options", "train_cfg.max_epoch=1"], "max_epochs"),
        (["--retrain", "absent.py"], "absent.py"),
    ],
)
def test_mistakes_have_one_sentence(tmp_path, capsys, more, words):
    assert compare.main(arguments(tmp_path, *more)) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and words in error


def test_a_mistake_in_a_runs_own_process_has_one_sentence_too(tmp_path, capsys):
    assert compare.main(arguments(tmp_path, "--search-options", "strategy.order=3")) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: search digits_search, seed 0: ") and "order=3" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "w" / "search" / "digits_search" / "seed0" / "result.json").exists()


def test_the_demonstration_runs_from_another_folder_and_again_in_no_time(tmp_path, capsys, monkeypatch):
    options = ["--work-dir", str(tmp_path / "demo"), "--parts", "digits", "--random", "1"]
    options += ["--search-options", *SHORT_SEARCH, "--retrain-options", *SHORT_RECIPE]
    work_dir = tmp_path / "demo" / "digits"
    monkeypatch.chdir(tmp_path)
    assert demo.main(options) == 0
    assert str(work_dir / "report.html") in capsys.readouterr().out
    result = json.loads((work_dir / "compare.json").read_text())
    assert [row["group"] for row in result["runs"]] == ["digits_search", "random architectures"]
    assert all(0 <= row["test"] <= 100 and row["params"] > 0 for row in result["runs"])
    search = work_dir / "search" / "digits_search" / "seed0"
    for path in (search / "architecture.json", search / "report.html", work_dir / "report.html"):
        assert path.exists()
    before = (search / "history.jsonl").stat().st_mtime_ns
    assert demo.main(options) == 0
    assert json.loads((work_dir / "compare.json").read_text()) == result
    assert (search / "history.jsonl").stat().st_mtime_ns == before
    assert "no difference shown" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    "part, options",
    [("scenes", ["strategy.freeze_epochs=0"]), ("boxes", ["strategy.trials=3", "strategy.population=2", "strategy.batches=2"])],
)
def test_the_demonstration_of_a_segmentor_and_a_detector(tmp_path, part, options):
    short = ["train_cfg.max_epochs=1", "train_cfg.val_interval=1"]
    options = ["--work-dir", str(tmp_path), "--parts", part, "--search-options", *short, *options, "--retrain-options", *short]
    assert demo.main(options) == 0
    result = json.loads((tmp_path / part / "compare.json").read_text())
    assert [row["group"] for row in result["runs"]] == [f"{part}_search", "random architectures"]


@pytest.mark.slow
def test_two_at_a_time_give_the_same_numbers_as_one(tmp_path):
    results = []
    for jobs in ("1", "2"):
        work_dir = ["--work-dir", str(tmp_path / jobs), "--jobs", jobs, "--random", "2"]
        assert compare.main([*arguments(tmp_path), *work_dir]) == 0
        rows = json.loads((tmp_path / jobs / "compare.json").read_text())["runs"]
        results.append([{k: v for k, v in row.items() if not k.endswith("seconds")} for row in rows])
    assert results[0] == results[1]


@pytest.mark.slow
def test_a_killed_comparison_goes_on(tmp_path):
    command = [sys.executable, str(ROOT / "tools" / "compare.py"), *arguments(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    search = tmp_path / "w" / "search" / "digits_search" / "seed0"
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.startswith("[1/1] search"):
                break
        process.kill()
    before = (search / "history.jsonl").stat().st_mtime_ns
    assert not (tmp_path / "w" / "compare.json").exists()
    assert subprocess.run(command, env=environment, stdout=subprocess.DEVNULL).returncode == 0
    assert (search / "history.jsonl").stat().st_mtime_ns == before
    assert len(json.loads((tmp_path / "w" / "compare.json").read_text())["runs"]) == 2
