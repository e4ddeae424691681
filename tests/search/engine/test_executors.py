"""Trials in real processes and on a real Ray cluster: none is lost, repeated, or scored without saying so."""

import errno
import importlib.util
import json
import math
import os
import signal
import time

import pytest

from search.engine import UserError, ray_executor
from search.engine.config_check import check
from search.engine.executors import InProcess, Local, executor_of
from search.strategies import Evolution
from tests.search.engine import faults

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray isn't installed (make setup EXTRAS=ray)")
LOCAL = dict(type="local", jobs=2)
KINDS = ["local", pytest.param("ray", marks=[needs_ray, pytest.mark.slow])]


def lines(work_dir):
    return [json.loads(line) for line in (work_dir / "history.jsonl").read_text().splitlines()]


def scores(work_dir):
    return [(row["architecture"], row["score"]["validation"], row["best"]) for row in lines(work_dir)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The search that all others must equal, with one trial after the other in this process."""
    work_dir = tmp_path_factory.mktemp("alone") / "work"
    found = faults.search(work_dir, dict(type="in_process"))
    return work_dir, found


def test_results_dont_depend_on_where_they_were_found(alone, tmp_path):
    found = faults.search(tmp_path / "work", dict(jobs=1))
    assert scores(tmp_path / "work") == scores(alone[0])
    assert found.architecture == alone[1].architecture and found.score == alone[1].score
    summary = json.loads((tmp_path / "work" / "summary.json").read_text())
    spent = sum(row["cpu_seconds"] for row in lines(tmp_path / "work"))
    assert summary["cpu_hours"] == pytest.approx(spent / 3600) and spent > 0.1
    assert summary["failed"] == 0


@needs_ray
@pytest.mark.slow
def test_a_worker_killed_on_ray_is_tried_again(alone, tmp_path):
    """And two at a time on a cluster leave what one after the other here does."""
    hooks = [dict(type="search.Fault", what="kill", of=[1], attempts=1)]
    faults.search(tmp_path / "work", dict(type="ray", jobs=2), hooks=hooks)
    assert scores(tmp_path / "work") == scores(alone[0])
    assert {number: len(pids) for number, pids in faults.attempts(tmp_path / "work").items()} == {0: 1, 1: 2, 2: 1, 3: 1}


def test_a_killed_worker_is_tried_again(alone, tmp_path, capsys):
    """And two at a time, in processes, leave what one after the other here does."""
    hooks = [dict(type="search.Fault", what="kill", of=[1], attempts=1)]
    faults.search(tmp_path / "work", LOCAL, hooks=hooks)
    assert scores(tmp_path / "work") == scores(alone[0])
    assert {number: len(pids) for number, pids in faults.attempts(tmp_path / "work").items()} == {0: 1, 1: 2, 2: 1, 3: 1}
    assert "trial 1 stopped with exit code -9" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("executor", "retries", "what"),
    [
        (dict(type="in_process"), 2, "raise"),
        (LOCAL, 0, errno.EIO),
        pytest.param(dict(type="in_process"), 1, errno.EIO, marks=pytest.mark.slow),
        pytest.param(dict(type="ray", jobs=2), 1, errno.EIO, marks=[needs_ray, pytest.mark.slow]),
    ],
)
def test_what_fails_for_good_is_recorded_and_told_as_nan(tmp_path, executor, retries, what, monkeypatch):
    told, tell = [], Evolution.tell
    monkeypatch.setattr(Evolution, "tell", lambda self, a, score: (told.append(score), tell(self, a, score)))
    hooks = [dict(type="search.Fault", what=what, of=[1])]
    work_dir = tmp_path / "work"
    found = faults.search(work_dir, {**executor, "retries": retries}, hooks=hooks)
    rows = lines(work_dir)
    assert [math.isnan(score) for score in told] == [False, True, False, False]
    assert [row["score"]["validation"] is None for row in rows] == [False, True, False, False]
    assert rows[1]["attempts"] == len(faults.attempts(work_dir)[1]) == retries + 1
    assert "trial 1" in rows[1]["failed"] and "failed" not in rows[0]
    assert found.summary["failed"] == 1 and found.summary["best_trial"] != 1
    # it stays failed, and what was done isn't done again
    before = faults.attempts(work_dir)
    faults.search(work_dir, {**executor, "retries": retries}, hooks=hooks, resume=True)
    assert lines(work_dir) == rows and faults.attempts(work_dir) == before


def test_recorded_failures_are_tried_again_where_it_is_asked_for(tmp_path):
    random = dict(type="RandomSearch", trials=3)
    hooks = [dict(type="search.Fault", what="raise", of=[1], attempts=1)]
    work_dir, executor = tmp_path / "work", dict(type="in_process", retries=0)
    faults.search(work_dir, executor, hooks=hooks, strategy=random)
    assert [row["score"]["validation"] is None for row in lines(work_dir)] == [False, True, False]
    faults.search(work_dir, {**executor, "retry_failed": True}, hooks=hooks, strategy=random, resume=True)
    assert [row["score"]["validation"] is None for row in lines(work_dir)] == [False, False, False]
    assert {number: len(pids) for number, pids in faults.attempts(work_dir).items()} == {0: 1, 1: 2, 2: 1}
    with pytest.raises(UserError, match="what Evolution asked for later depends on what had failed before"):
        faults.search(work_dir, {**executor, "retry_failed": True}, resume=True)


def test_nothing_but_failures_is_no_result(tmp_path):
    hooks = [dict(type="search.Fault", what="raise", of=[0, 1, 2])]
    with pytest.raises(UserError, match=r"None of the 3 trials has a score, 3 failed: trial 0 failed with RuntimeError: CUDA"):
        faults.search(tmp_path, dict(type="in_process", retries=0), hooks=hooks, trials=3)


@pytest.mark.parametrize("kind", ["in_process", *KINDS])
def test_a_disk_that_fails_once_is_tried_again(alone, tmp_path, kind):
    hooks = [dict(type="search.Fault", what=errno.ESTALE, of=[0], attempts=1)]
    faults.search(tmp_path / "work", dict(type=kind), hooks=hooks, trials=3)
    assert scores(tmp_path / "work") == scores(alone[0])[:3]
    assert {number: len(pids) for number, pids in faults.attempts(tmp_path / "work").items()} == {0: 2, 1: 1, 2: 1}


@pytest.mark.parametrize(
    ("kind", "what", "says"),
    [
        ("local", "mistake", r"^trial 1: lr=-1 can't be\.$"),
        pytest.param("local", errno.ENOENT, r"^trial 1: /data/000\.jpg: No such file or directory$", marks=pytest.mark.slow),
        pytest.param("local", errno.ENOSPC, r"^trial 1: .*the disk is full", marks=pytest.mark.slow),
        pytest.param("ray", "mistake", r"^trial 1: lr=-1 can't be\.$", marks=[needs_ray, pytest.mark.slow]),
    ],
)
def test_a_users_mistake_stops_everything_at_once(tmp_path, kind, what, says):
    hooks = [dict(type="search.Fault", what=what, of=[1]), dict(type="search.Slow", seconds=600, of=[0])]
    begun = time.monotonic()
    with pytest.raises(UserError, match=says):
        faults.search(tmp_path, dict(type=kind, jobs=2), hooks=hooks)
    assert time.monotonic() - begun < 300
    assert len(faults.attempts(tmp_path)[1]) == 1
    assert not list(tmp_path.glob("trials/*/train/failed.json"))
    faults.wait_until(lambda: not any(faults.alive(pid) for pid in faults.attempts(tmp_path).get(0, [])))


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_search_leaves_no_worker_and_goes_on_without_repeating(alone, tmp_path, kind):
    """The first two trials end, the next two are at work when the search is killed."""
    hooks = [dict(type="search.Slow", seconds=60, of=[2, 3])]
    work_dir, executor = tmp_path / "work", dict(type=kind, jobs=2)
    process = faults.in_a_process(work_dir, executor, hooks=hooks)
    try:
        faults.wait_until(lambda: all(len(faults.attempts(work_dir).get(i, [])) == 1 for i in (2, 3)))
        orphans = faults.attempts(work_dir)[2] + faults.attempts(work_dir)[3]
        assert all(faults.alive(pid) for pid in orphans)
    finally:
        process.kill()
    faults.wait_until(lambda: not any(faults.alive(pid) for pid in orphans), seconds=30)
    assert not list(work_dir.glob("trials/0000[23]/train/result.json"))
    stamps = {path: path.stat().st_mtime_ns for path in work_dir.glob("trials/0000[01]/train/result.json")}
    assert len(stamps) == 2
    faults.search(work_dir, executor, hooks=hooks, resume=True)
    assert scores(work_dir) == scores(alone[0])
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    assert {number: len(pids) for number, pids in faults.attempts(work_dir).items()} == {0: 1, 1: 1, 2: 2, 3: 2}


def test_a_process_that_cannot_be_started_is_no_mistake(tmp_path, monkeypatch):
    """There are too many of them, or no memory for one: a trial is tried again, as after any failure."""
    from multiprocessing.context import ForkServerProcess

    from search.engine.errors import WorkFailed
    from search.engine.executors import Work

    def refuse(process):
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(ForkServerProcess, "start", refuse)
    with pytest.raises(WorkFailed, match="trial 1: no process can be started"):
        Local().execute(Work("trial 1", print, tmp_path, tmp_path / "log"))


def test_two_searches_never_train_in_one_folder(tmp_path, monkeypatch):
    """A worker waits for the one that has the folder, and says so when that doesn't end."""
    from search.engine import executors

    ready = os.pipe()
    child = os.fork()
    if child == 0:
        with executors.alone_in(tmp_path):
            os.write(ready[1], b"1")
            time.sleep(60)
    os.read(ready[0], 1)
    monkeypatch.setattr(executors, "_PATIENCE", 0.3)
    try:
        with pytest.raises(UserError, match="Another process is at work in"), executors.alone_in(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    with executors.alone_in(tmp_path):
        pass


def test_old_configs_say_what_they_said():
    assert isinstance(executor_of({}), Local) and executor_of({}).jobs == 1
    assert isinstance(executor_of(dict(jobs=2, threads=3)), Local) and executor_of(dict(jobs=2, threads=3)).threads == 3
    assert isinstance(executor_of(dict(jobs=0)), InProcess)
    check(dict(executor=dict(type="ray", jobs=2, threads=1, retries=2, retry_failed=True, address="auto", gpus=0.5)))


@pytest.mark.parametrize(
    ("executor", "says"),
    [
        (dict(type="cluster"), r"executor\.type='cluster' is unknown: known are 'in_process', 'local', 'ray'"),
        (dict(type="in_process", jobs=2), r"executor\.jobs=2: 'in_process' trains one after the other"),
        (dict(type="local", jobs=0), r"executor\.jobs=0 must be a whole number of at least 1"),
        (dict(type="local", address="auto"), r"executor\.address is of executor\.type='ray'"),
        (dict(retries=-1), r"executor\.retries=-1 must be a whole number of at least 0"),
        (dict(retry_failed="yes"), r"executor\.retry_failed='yes' must be True or False"),
        (dict(type="local", jobs=3), r"executor\.jobs=3: Evolution asks for strategy\.at_once=2 at a time"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path, executor, says):
    with pytest.raises(UserError, match=says):
        faults.search(tmp_path, executor)


def test_a_misspelt_key_names_the_nearest():
    with pytest.raises(UserError, match="unknown key 'retry', the nearest known one is 'retries'"):
        check(dict(executor=dict(retry=2)))


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(ray_executor.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs Ray, which isn't installed: make setup EXTRAS=ray"):
        executor_of(dict(type="ray", jobs=2))


@needs_ray
@pytest.mark.parametrize(("change", "says"), [(dict(gpus=-1), r"executor\.gpus=-1"), (dict(address=1), r"executor\.address=1")])
def test_rays_mistakes_are_one_sentence(change, says):
    with pytest.raises(UserError, match=says):
        executor_of(dict(type="ray", **change))
