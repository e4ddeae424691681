"""Processor time of runs that are killed, fail and go on."""

import json
import os
import signal
import time
from types import SimpleNamespace

import pytest

from search.engine import search, spent
from search.engine.spent import Spent, earlier
from search.engine.trials import Execution, Run, Steps, perform
from tests.search.engine import tiny

RECIPE = "configs/demo/digits_retrain.py"


def burn(seconds):
    """Use the processor for so many seconds."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def finish(cfg):
    burn(0.2)
    path = os.path.join(cfg.work_dir, "history.jsonl")
    with open(path, "w") as file:
        file.write(json.dumps({"epoch": 1, "phase": "train", "images_per_second": 1.0, "seconds": 1.0}) + "\n")
    return SimpleNamespace(score=1.0, summary={"seconds": 1.0, "derived": {"params": 1, "macs": 1}})


def fail(cfg):
    burn(0.4)
    raise RuntimeError("CUDA error: out of luck")


def die(cfg):
    burn(0.6)
    os.kill(os.getpid(), signal.SIGKILL)


def run(folder, seed=0):
    return Run("train", "a training", folder / "train", RECIPE, (), seed)


def in_a_child(action):
    child = os.fork()
    if child == 0:
        action()
        os._exit(0)
    return os.waitpid(child, 0)[1]


def test_attempts_that_were_killed_or_failed_count(tmp_path, monkeypatch):
    monkeypatch.setattr(spent, "EVERY", 0.02)
    assert in_a_child(lambda: perform(run(tmp_path), Steps(train=die))) == signal.SIGKILL
    with pytest.raises(RuntimeError, match="out of luck"):
        perform(run(tmp_path), Steps(train=fail))
    assert json.loads((tmp_path / "train" / "spent.json").read_text())["cpu_seconds"] > 0.8
    perform(run(tmp_path), Steps(train=finish))
    # 0.6 of the first, of which what was used after the last writing is missing, 0.4 and 0.2
    assert 1.0 < json.loads((tmp_path / "train" / "result.json").read_text())["cpu_seconds"] < 3.0
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_recorded_failure_says_what_all_attempts_used(tmp_path):
    execution = Execution(jobs=0, steps=Steps(train=fail), say=lambda text: None, retries=1, keep_failures=True)
    (result,) = execution.results([run(tmp_path)])
    assert result["attempts"] == 2 and 0.8 <= result["cpu_seconds"] < 3.0


def test_processes_add_up_and_gpus_are_counted_by_the_seconds_that_they_are_held(tmp_path, monkeypatch):
    with Spent(tmp_path, "a") as counted:
        burn(0.1)
        alone = counted.hours(36.0)
        assert list(alone) == ["cpu_hours"] and "CPU-hours" in spent.in_words(alone)
        monkeypatch.setattr(spent, "get_device", lambda: "cuda")
        monkeypatch.setattr(spent.distributed, "world_size", lambda: 2)
        monkeypatch.setattr(spent.distributed, "gather", lambda value: [value, value])
        both = counted.hours(36.0)
    assert both["gpu_hours"] == 0.02 and spent.in_words(both) == "0.02 GPU-hours"
    assert both["cpu_hours"] == pytest.approx(2 * alone["cpu_hours"], rel=0.5) and alone["cpu_hours"] >= 0.1 / 3600


@pytest.mark.parametrize(("share", "seconds"), [(1.0, 1.0), (0.25, 0.25)])
def test_of_a_gpu_that_several_runs_share_each_counts_its_part(tmp_path, monkeypatch, share, seconds):
    monkeypatch.setattr(spent, "get_device", lambda: "cuda")
    (tmp_path / "train").mkdir()
    perform(run(tmp_path), Steps(train=finish), share)
    # the training says that it took a second
    assert json.loads((tmp_path / "train" / "result.json").read_text())["gpu_seconds"] == pytest.approx(seconds)


def test_every_process_keeps_its_own_seconds(tmp_path, monkeypatch):
    with Spent(tmp_path, "a"):
        burn(0.1)
    monkeypatch.setattr(spent.distributed, "rank", lambda: 1)
    with Spent(tmp_path, "a") as second:
        assert second.cpu_seconds < 0.1
    assert {path.name for path in tmp_path.iterdir()} == {"spent.json", "1_spent.json"}


def test_a_searchs_summary_adds_the_attempts_before(tmp_path):
    result = search(tiny.config(tmp_path, epochs=1))
    assert 0 < 3600 * result.summary["cpu_hours"] < 100
    kept = json.loads((tmp_path / "spent.json").read_text())
    (tmp_path / "spent.json").write_text(json.dumps(kept | {"cpu_seconds": 1000.0}))
    again = search(tiny.config(tmp_path, epochs=1, resume=True))
    assert 1000 < 3600 * again.summary["cpu_hours"] < 1100


def test_another_run_in_the_folder_counts_from_nothing(tmp_path):
    with Spent(tmp_path, "a"):
        burn(0.2)
    with Spent(tmp_path, "b") as other:
        assert other.cpu_seconds < 0.1
    assert earlier(tmp_path, "a") is None and earlier(tmp_path, "b") is not None
    (tmp_path / "spent.json").write_text("")
    assert earlier(tmp_path, "b") is None
