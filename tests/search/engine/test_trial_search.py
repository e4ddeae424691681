"""Random search from a config: trials are trainings, the best is kept, and none is done twice."""

import json
import shutil
import signal
import threading

import pytest

from search.engine import UserError, search, train
from search.engine.errors import BudgetError
from search.engine.trials import RESULT, Execution, Run
from search.report.budget import section
from search.space import load
from search.strategies import RandomSearch, RandomTrials
from tests.search.engine import tiny


def config(work_dir, trials=3, epochs=1, **more):
    cfg = tiny.config(work_dir, train=True, epochs=epochs, model={"dropout": 0.0}, **more)
    cfg.strategy = dict(type="RandomSearch", trials=trials)
    cfg.executor = dict(jobs=0)
    return cfg


def lines(work_dir):
    return [json.loads(line) for line in (work_dir / "history.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    work_dir = tmp_path_factory.mktemp("trials") / "work"
    return work_dir, search(config(work_dir))


def test_the_best_of_what_random_search_asks_for_is_kept(searched):
    work_dir, found = searched
    rows = lines(work_dir)
    space = load(found.path).parts["backbone"].space
    sampler = RandomSearch(space, seed=3)
    assert [row["architecture"] for row in rows] == [sampler.ask().to_json() for _ in range(3)]
    scores = [row["score"]["validation"] for row in rows]
    best = max(range(3), key=lambda i: (scores[i], -i))
    assert found.score == scores[best] == found.summary["validation"] and found.summary["best_trial"] == best
    assert [row["best"] for row in rows] == [max(scores[: i + 1]) for i in range(3)]
    assert load(found.path).parts["backbone"].architecture.to_json() == rows[best]["architecture"]
    assert found.summary["space"]["size"] == space.size and found.summary["strategy"] == "random search"
    assert (work_dir / "report.html").exists()


def test_a_trial_is_the_training_of_its_architecture(searched, tmp_path):
    """The tool that retrains gives the same score with the same seed."""
    work_dir, _ = searched
    cfg = tiny.config(tmp_path, train=True, epochs=1, model={"dropout": 0.0})
    cfg.model.arch = str(work_dir / "trials" / "00001" / "architecture.json")
    assert train(cfg).score == lines(work_dir)[1]["score"]["validation"]


def test_more_trials_continue_a_search_and_none_is_repeated(searched, monkeypatch):
    work_dir, _ = searched
    with pytest.raises(UserError, match=r"already holds a run \(history.jsonl\): give --resume"):
        search(config(work_dir))
    before = lines(work_dir)
    stamps = {path: path.stat().st_mtime_ns for path in work_dir.glob("trials/*/train/*.json")}
    cfg = config(work_dir, trials=4)
    cfg.resume = True
    found = search(cfg)
    after = lines(work_dir)
    assert after[:3] == before and len(after) == found.summary["trials"] == 4
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())


def test_a_killed_search_keeps_its_finished_trials(tmp_path, searched, monkeypatch):
    """Stopped in the second trial, it ends as the one that wasn't stopped."""
    from search.engine import trials

    perform, done = trials.perform, []

    def stopped(run, *settings):
        if len(done) == 1:
            raise KeyboardInterrupt
        perform(run, *settings)
        done.append(run.name)

    monkeypatch.setattr(trials, "perform", stopped)
    with pytest.raises(KeyboardInterrupt):
        search(config(tmp_path / "work"))
    monkeypatch.setattr(trials, "perform", perform)
    # what is finished stands in the history already
    assert [row["architecture"] for row in lines(tmp_path / "work")] == [lines(searched[0])[0]["architecture"]]
    with pytest.raises(UserError, match=r"already holds a run \(history\.jsonl\)"):
        search(config(tmp_path / "work"))
    cfg = config(tmp_path / "work")
    cfg.resume = True
    search(cfg)
    parts = ("trial", "score", "best", "architecture", "cost")
    whole = [{key: row[key] for key in parts} for row in lines(searched[0])[:3]]
    assert [{key: row[key] for key in parts} for row in lines(tmp_path / "work")] == whole


class Instant:
    """An executor of runs that are done at once, but for one that waits for the others; a run's score is its number.

    One by one where there is one job: `said` is to be called once a run's end is known.
    """

    threads, gpu_share = 1, 1.0

    def __init__(self, jobs, last, count):
        self.jobs, self.last, self.others = jobs, last, threading.Semaphore(0)
        self.count, self.known = count, threading.Semaphore(1)

    def said(self, text):
        self.known.release()

    def start(self):
        pass

    def execute(self, work):
        number = int(work.folder.name)
        assert self.jobs > 1 or self.known.acquire(timeout=60)
        for _ in range(self.count - 1 if number == self.last else 0):
            assert self.others.acquire(timeout=60)
        work.folder.mkdir()
        (work.folder / RESULT).write_text(json.dumps({"validation": number}))
        self.others.release()


@pytest.mark.parametrize(("jobs", "last"), [(1, 19), (4, 3)])
def test_results_so_far_are_told_by_tenths_in_the_order_of_the_trials(tmp_path, jobs, last):
    """Whichever of the 20 ends first: what comes after the fourth waits for it."""
    recipe, told = "configs/demo/digits_retrain.py", []
    runs = [Run("train", f"trial {i}", tmp_path / f"{i}", recipe, (), 0) for i in range(20)]
    instant = Instant(jobs, last, 20)
    execution = Execution(executor=instant, say=instant.said)
    results = execution.results(runs, lambda first: told.append([one["validation"] for one in first]))
    assert [one["validation"] for one in results] == list(range(20))
    if jobs == 1:
        assert told == [list(range(count)) for count in range(2, 20, 2)]
    else:
        assert all(first == list(range(len(first))) and len(first) < 20 for first in told)
        assert [len(first) for first in told] == sorted({len(first) for first in told})


def test_a_search_goes_on_with_its_own_settings_only(searched, tmp_path):
    """Nothing is written before that is found out; how many trials there are and where they run may change."""
    work_dir = tmp_path / "work"
    shutil.copytree(searched[0], work_dir)
    before = {path: path.read_bytes() for path in work_dir.rglob("*") if path.is_file()}
    evolution = dict(type="Evolution", trials=4, population=2, sample=2, at_once=1)
    for change, says in (
        (dict(strategy=evolution), r"run\.json is of another config \(strategy\.at_once is missing there and 1 here\)"),
        (dict(seed=4), r"run\.json is of another config \(seed is 3 there and 4 here\)"),
        (dict(budget=dict(params=1e9)), r"run\.json is of another config \(budget is missing there"),
    ):
        cfg = config(work_dir, trials=4)
        cfg.merge_from_dict(dict(resume=True, **{key: value for key, value in change.items() if key != "strategy"}))
        if "strategy" in change:
            cfg.strategy = change["strategy"]
        with pytest.raises(UserError, match=says):
            search(cfg)
    assert {path: path.read_bytes() for path in work_dir.rglob("*") if path.is_file()} == before
    cfg = config(work_dir, trials=4, resume=True)
    cfg.executor = dict(jobs=0, threads=1, retries=3)
    assert search(cfg).summary["trials"] == 4


def test_no_search_takes_the_place_of_another(searched, tmp_path):
    """A search by gradients or by paths in the folder of one by trials, and the other way round."""
    work_dir = tmp_path / "work"
    shutil.copytree(searched[0], work_dir)
    before = (work_dir / "history.jsonl").read_bytes()
    with pytest.raises(UserError, match=r"run\.json is of a trials run, this is a search run"):
        search(tiny.config(work_dir, resume=True))
    paths = dict(strategy=dict(type="SinglePath", trials=4, population=2, sample=2, batches=1))
    paths |= dict(arch_dataloader=None, arch_optimizer=None, train_cfg=dict(type="search.SinglePathLoop", max_epochs=1))
    with pytest.raises(UserError, match=r"run\.json is of a trials run, this is a one-shot run"):
        search(tiny.config(work_dir, resume=True, **paths))
    (work_dir / "run.json").unlink()
    for cfg in (tiny.config(work_dir, resume=True), config(work_dir, resume=True)):
        with pytest.raises(UserError, match=r"traces of a run \(history\.jsonl\), but neither checkpoint\.pth nor run\.json"):
            search(cfg)
    assert (work_dir / "history.jsonl").read_bytes() == before
    # killed before its first checkpoint
    kill = {"visualization": {"type": "search.Kill", "where": "write", "at": 1}}
    loop = {"save_epochs": 2}
    assert tiny.in_children(tmp_path / "killed", epochs=2, default_hooks=kill, loop=loop) == [-signal.SIGKILL]
    assert (tmp_path / "killed" / "history.jsonl").exists() and not (tmp_path / "killed" / "checkpoint.pth").exists()
    with pytest.raises(UserError, match=r"run\.json is of a search run, this is a trials run"):
        search(config(tmp_path / "killed", resume=True))
    with pytest.raises(UserError, match=r"run\.json is of another config \(param_scheduler\.T_max is 2 there and 3 here\)"):
        search(tiny.config(tmp_path / "killed", epochs=3, loop=loop, resume=True))
    assert tiny.in_children(tmp_path / "killed", epochs=2, loop=loop, resume=True) == [0]


def test_a_small_space_ends_when_it_is_exhausted(tmp_path, monkeypatch):
    from search.engine import trial_search

    monkeypatch.setattr(trial_search.Execution, "results", lambda self, runs, so_far: [fake(run) for run in runs])
    monkeypatch.setattr(
        trial_search, "_finish", lambda cfg, strategy, seed, recorded, tried, budget, work_dir: (recorded, tried)
    )
    recorded, tried = search(config(tmp_path, trials=10**6))
    assert len({trial.architecture for trial in tried}) == len(tried) == recorded.space.size < 10**6


def fake(run):
    return {"params": 1, "macs": 1, "seconds": 1.0, "images": 1, "validation": float("nan")}


def test_a_lower_score_is_better_where_the_config_says_so(tmp_path, monkeypatch):
    from search.engine import trial_search

    scores = iter([3.0, 1.0, 2.0])
    monkeypatch.setattr(
        trial_search.Execution,
        "results",
        lambda self, runs, so_far: [{**fake(run), "validation": next(scores)} for run in runs],
    )
    told = []
    monkeypatch.setattr(RandomSearch, "tell", lambda self, architecture, score: told.append(score))
    monkeypatch.setattr(trial_search, "_finish", lambda *args: args[4])
    cfg = config(tmp_path)
    cfg.score = dict(key="top1", rule="less")
    search(cfg)
    assert told == [-3.0, -1.0, -2.0] and [row["best"] for row in lines(tmp_path)] == [3.0, 1.0, 1.0]


def test_only_networks_within_a_budget_are_tried(tmp_path, searched):
    costs = sorted(row["cost"]["params"] for row in lines(searched[0])[:3])
    cfg = config(tmp_path / "a", trials=2)
    cfg.budget = dict(params=costs[0])
    found = search(cfg)
    assert all(row["cost"]["params"] <= costs[0] for row in lines(tmp_path / "a"))
    derived, said = found.summary["derived"], found.summary["budget"]
    assert derived["params"] <= costs[0]
    assert said == {
        "limits": {"params": {"limit": costs[0], "derived": derived["params"]}},
        "input_size": [3, 6, 6],
        "table": None,
    }
    assert load(found.path).provenance["cost"]["activations"] == derived["activations"]
    shown = section(found.summary)
    assert shown["head"] == ("", "limit", "derived") and shown["text"].startswith(
        "Only networks within the budget were scored."
    )
    assert "Budget of the whole network" in (tmp_path / "a" / "report.html").read_text()
    for budget, says in (
        (dict(params=1), r"budget\.params=1 parameters can't be met by drawing"),
        (dict(activations="4B"), r"budget\.activations=1 activations \(0\.0 MB in float32\) can't be met by drawing"),
    ):
        cfg = config(tmp_path / next(iter(budget)), trials=2)
        cfg.budget = budget
        with pytest.raises(BudgetError, match=says):
            search(cfg)
    cfg = config(tmp_path / "b", trials=1)
    cfg.budget = dict(activations=found.summary["derived"]["activations"])
    assert search(cfg).summary["derived"]["activations"] <= cfg.budget.activations


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            dict(arch_optimizer=dict(type="Adam", lr=0.1)),
            "trains architectures one by one and has no use for arch_optimizer",
        ),
        (dict(launcher="pytorch"), "starts a process for each training: leave out --launcher"),
        (dict(val_dataloader=None), "give splits.validation a share"),
        (dict(executor=dict(jobs=-1)), r"executor\.jobs=-1 must be a whole number of at least 0"),
        (dict(executor=dict(threads=0)), r"executor\.threads=0"),
        (dict(strategy=dict(type="RandomSearch", trials=0)), "trials=0: give a number of architectures"),
        (dict(budget=dict(params=1e9, rate=0.2)), r"budget\.rate is of the penalty in a search by gradients"),
        (
            dict(train_cfg=dict(type="search.BilevelLoop", max_epochs=1)),
            r"train_cfg\.type must be 'search\.TrainLoop' for the trainings of RandomSearch",
        ),
    ],
)
def test_mistakes_are_one_sentence(tmp_path, change, says):
    cfg = config(tmp_path, trials=1)
    for key, value in change.items():
        cfg[key] = value
    with pytest.raises((UserError, ValueError), match=says):
        search(cfg)


def test_a_memory_plan_is_for_supernets(tmp_path):
    with pytest.raises(UserError, match="--max-memory is for supernets, and RandomSearch trains single networks"):
        search(config(tmp_path), max_memory=10**9)


def test_strategies_say_how_many():
    with pytest.raises(ValueError, match="trials=True"):
        RandomTrials(trials=True)
    assert RandomTrials(trials=3).at_once is None
