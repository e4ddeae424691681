"""The protocol, on searches and trainings that only look up numbers: a network's worth is known."""

import io
import json
import math
from types import SimpleNamespace

import pytest
from rich.console import Console

from search.engine.comparison import RANDOM, Protocol, compare
from search.engine.comparison_table import show
from search.engine.errors import UserError
from search.engine.spent import gpu_hours, gpu_seconds
from search.engine.trials import Execution, Steps, images_of, perform
from search.space import Architecture, OneOf, Space, load, save

SPACE = Space("digits of a number", [OneOf(name, tuple(range(10))) for name in "abc"])
# by --search-options and --retrain-options, both of which the checks of configs know
SEARCH, RECIPE = "configs/demo/digits_search.py", "configs/demo/digits_retrain.py"


def worth(choices):
    return 100.0 * choices["a"] + 10.0 * choices["b"] + choices["c"]


@pytest.fixture(autouse=True)
def no_time_passes(monkeypatch):
    """Two comparisons are equal in all else."""
    monkeypatch.setattr("search.engine.spent._here", lambda: 0.0)


class Stopped(Exception):
    """The power failed."""


class Fakes:
    """A search that finds (9, 9, seed); a training whose validation is the number and whose test is its negative."""

    def __init__(self, stop_after=None, space=SPACE, nan=(), seconds=lambda cfg: 10.0):
        self.searched, self.trained, self.tested = [], [], []
        self.stop_after, self.space, self.nan, self.seconds = stop_after, space, nan, seconds
        self.steps = Steps(self.search, self.train, self.evaluate)

    def _work(self, cfg, epochs):
        if self.stop_after is not None:
            self.stop_after -= 1
            if self.stop_after < 0:
                raise Stopped
        from pathlib import Path

        folder = Path(cfg.work_dir)
        folder.mkdir(parents=True, exist_ok=True)
        lines = [{"epoch": i, "phase": phase, "images_per_second": 64.0, "seconds": 2.0} for i, phase in enumerate(epochs)]
        (folder / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return folder

    def search(self, cfg):
        folder = self._work(cfg, ["freeze", "search", "search"])
        self.searched.append(cfg.seed)
        found = Architecture({"a": 9, "b": 9, "c": cfg.seed})
        origin = {"strategy": "PC-DARTS", "seed": cfg.seed, "task": cfg.task, "config": SEARCH, "score": 9.0, "commit": None}
        save(folder / "architecture.json", {"backbone": (self.space, found)}, origin)
        batches = {"weights": 32, "architecture": 32}
        return SimpleNamespace(
            summary={"seconds": 50.0, "batch_sizes": batches, "cpu_hours": 0.5, **gpu_hours(gpu_seconds(50.0))}
        )

    def train(self, cfg):
        folder = self._work(cfg, ["train"] * cfg.train_cfg.max_epochs)
        choices = load(cfg.model.backbone.arch).require("backbone", self.space)
        self.trained.append((worth(choices), cfg.seed))
        (folder / "checkpoint.pth").write_text(json.dumps(worth(choices) + cfg.seed / 1000))
        cost = {"params": 1000 + worth(choices), "macs": 2000}
        score = math.nan if worth(choices) in self.nan else worth(choices)
        return SimpleNamespace(score=score, summary={"seconds": self.seconds(cfg), "derived": cost})

    def evaluate(self, cfg, path):
        with open(path) as file:
            value = json.load(file)
        self.tested.append(value)
        return {"accuracy/top1": -value, "accuracy/top5": 0.0}


def protocol(tmp_path, **changes):
    settings = dict(
        searches=(SEARCH,),
        retrain=RECIPE,
        work_dir=tmp_path,
        retrain_options=("train_cfg.max_epochs=1",),
    )
    return Protocol(**{**settings, **changes})


def run(protocol, fakes):
    return compare(protocol, Execution(jobs=0, steps=fakes.steps, say=lambda text: None))


def of(result, group):
    return [row for row in result["runs"] if row["group"].startswith(group)]


def test_groups_costs_and_tests(tmp_path):
    fakes = Fakes()
    result = run(protocol(tmp_path), fakes)
    assert fakes.searched == [0, 1, 2]
    assert [row["test"] for row in of(result, "digits_search")] == [-990.0, -991.0, -992.0]
    assert result["groups"]["digits_search"]["mean"] == -991.0
    assert result["groups"]["digits_search"]["std"] == 1.0
    assert result["groups"][RANDOM]["n"] == 6 == len({str(r["architecture"]) for r in of(result, RANDOM)})
    row = of(result, "digits_search")[2]
    assert row["architecture"] == {"backbone": {"a": 9, "b": 9, "c": 2}}
    assert (row["params"], row["macs"], row["validation"]) == (1992, 2000, 992.0)
    assert (row["search_seconds"], row["train_seconds"]) == (50.0, 10.0)
    assert result["groups"]["digits_search"]["search_cpu_hours"] == pytest.approx(0.5)
    assert result["groups"][RANDOM]["search_cpu_hours"] == 0
    # 128 images an epoch; in the two epochs that search, as many for the logits again
    assert (row["search_images"], row["train_images"]) == (128 * 5, 128)
    tests = {(test["a"], test["b"]): test for test in result["tests"]}
    # all random architectures are below 990, so their (negative) test scores are above: 3 against 6, wholly apart
    assert tests["digits_search", RANDOM]["verdict"] == "worse (p=0.0238)"
    assert json.loads((tmp_path / "compare.json").read_text()) == result
    assert "Comparison" in (tmp_path / "report.html").read_text()


def test_copies_of_architectures_say_where_they_are_from(tmp_path):
    run(protocol(tmp_path, random=2, random_search_seeds=(4,)), Fakes())
    folder = tmp_path / "architectures"
    for seed in range(3):
        found = load(folder / "digits_search" / f"{seed}.json").provenance
        assert found == load(tmp_path / "search" / "digits_search" / f"seed{seed}" / "architecture.json").provenance
        assert (found["task"], found["config"], found["seed"]) == ("classification", SEARCH, seed)
    assert load(folder / "random" / "1.json").provenance == {"strategy": "random", "seed": 1}
    trial = dict(strategy="random search", seed=4, trial=5, task="classification", config=RECIPE)
    assert load(folder / "random_search4" / "5.json").provenance == trial


def test_random_search_gets_the_same_cost_and_selects_on_validation(tmp_path):
    fakes = Fakes()
    result = run(protocol(tmp_path), fakes)
    rows = of(result, "random search")
    # a search of 640 images and a training of 128 pay for 6 trainings
    assert len(fakes.trained) == 3 + 6 + 3 * 6
    for seed, row in enumerate(rows):
        trials = [
            worth(load(path).require("backbone", SPACE))
            for path in (tmp_path / "architectures" / f"random_search{seed}").iterdir()
        ]
        assert len(trials) == 6
        assert row["validation"] == max(trials)
        assert row["test"] == -max(trials)
        assert row["search_images"] + row["train_images"] == 6 * 128
    # the test data are read once for every final network, never for a trial that lost
    assert len(fakes.tested) == 3 + 6 + 3 == len(set(fakes.tested))


def test_equal_seconds(tmp_path):
    fakes = Fakes()
    result = run(protocol(tmp_path, cost="seconds", random_search_seeds=(4,)), fakes)
    # 50 s of search and 10 s of training pay for 6 trainings of 10 s
    assert [r["search_seconds"] + r["train_seconds"] for r in of(result, "random search")] == [60.0]


def test_short_trials_pay_for_the_full_training_of_their_best(tmp_path):
    fakes = Fakes()
    options = dict(retrain_options=("train_cfg.max_epochs=2",), short=("train_cfg.max_epochs=1",))
    result = run(protocol(tmp_path, **options, random_search_seeds=(0,)), fakes)
    # 640 + 256 images in all; 256 for the final training leave 640 for trials of 128
    row = of(result, "random search")[0]
    assert (row["search_images"], row["train_images"]) == (640, 256)
    trials = list((tmp_path / "train").glob("random_search0-*/short0/result.json"))
    assert len(trials) == 5
    assert len(list((tmp_path / "train").glob("random_search0-*/seed0/result.json"))) == 1


def test_two_searches_share_the_trials(tmp_path):
    fakes = Fakes()
    other = "configs/classification/cells_darts_digits_cpu.py"
    said = []
    execution = Execution(jobs=0, steps=fakes.steps, say=said.append)
    result = compare(protocol(tmp_path, searches=(SEARCH, other), seeds=(0,)), execution)
    # both keep the same three networks; at two jobs, a run asked for twice would be two processes in one folder
    assert [line for line in said if line.startswith("[")][-1].startswith("[3/3] ")
    assert len(of(result, "random search")) == 6
    # 1 + 1 searched, 6 random, and 3 times 6 trials that serve both
    assert len(fakes.trained) == 2 + 6 + 18
    groups = {test["a"] for test in result["tests"]} | {test["b"] for test in result["tests"]}
    assert len([group for group in groups if group.startswith("random search")]) == 2
    assert not [t for t in result["tests"] if t["a"].startswith("random search")]


def test_no_run_is_executed_twice(tmp_path):
    """Two configs' random searches keep the same trials' best where their budgets are equal: one retraining of it."""
    fakes = Fakes()
    other = "configs/classification/cells_darts_digits_cpu.py"
    settings = protocol(tmp_path, searches=(SEARCH, other), seeds=(0,), random=1, short=("train_cfg.max_epochs=1",))
    asked = []

    class Counting(Execution):
        # in threads of this process, two at a time
        def _execute(self, run):
            asked.append(run.work_dir)
            perform(run, self.steps)

    result = compare(settings, Counting(jobs=2, steps=fakes.steps, say=lambda text: None))
    assert len(of(result, "random search")) == 6
    assert len(asked) == len(set(asked))


def test_a_score_that_is_no_number_still_leaves_the_file(tmp_path):
    fakes = Fakes()
    fakes.steps = Steps(fakes.search, fakes.train, lambda cfg, path: {"accuracy/top1": math.nan})
    result = run(protocol(tmp_path, seeds=(0,), random=1, random_search_seeds=()), fakes)
    assert json.loads((tmp_path / "compare.json").read_text()) == result
    assert result["tests"][0]["verdict"].startswith("not computed")
    show(result, Console(file=io.StringIO()))


def test_the_hours_of_a_gpu_count_where_one_was_used(tmp_path, monkeypatch):
    console = Console(file=io.StringIO(), width=200)
    show(run(protocol(tmp_path / "cpu"), Fakes()), console)
    assert "search CPU-h" in console.file.getvalue() and "0.5 (1.00)" in console.file.getvalue()
    monkeypatch.setattr("search.engine.spent.get_device", lambda: "cuda")
    console = Console(file=io.StringIO(), width=200)
    show(run(protocol(tmp_path / "gpu"), Fakes()), console)
    # a search of 50 seconds
    assert "search GPU-h" in console.file.getvalue() and "0.0139 (1.00)" in console.file.getvalue()


def test_scores_of_which_one_is_no_number_still_leave_the_file(tmp_path):
    fakes = Fakes()

    def evaluate(cfg, path):
        value = fakes.evaluate(cfg, path)["accuracy/top1"]
        return {"accuracy/top1": math.nan if value == -991.0 else value}

    fakes.steps = Steps(fakes.search, fakes.train, evaluate)
    result = run(protocol(tmp_path, random_search_seeds=()), fakes)
    assert json.loads((tmp_path / "compare.json").read_text()) == result
    assert [row["test"] for row in of(result, "digits_search")] == [-990.0, None, -992.0]
    group = result["groups"]["digits_search"]
    assert (group["n"], group["mean"], group["std"]) == (3, None, None) and result["groups"][RANDOM]["std"] > 0
    (test,) = result["tests"]
    assert test["p"] is None and "one of the values is nan" in test["verdict"]
    show(result, Console(file=io.StringIO()))


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seeds_that_generators_refuse_are_refused_first(tmp_path, seed):
    for what in ("seeds", "random_search_seeds", "retrain_seeds"):
        with pytest.raises(UserError, match=str(seed)):
            protocol(tmp_path, **{what: (seed,)})


def test_retraining_seeds_are_averaged_before_the_test(tmp_path):
    result = run(protocol(tmp_path, retrain_seeds=(0, 1), random_search_seeds=()), Fakes())
    assert len(of(result, "digits_search")) == 6
    assert result["groups"]["digits_search"]["n"] == 3
    assert result["groups"]["digits_search"]["mean"] == pytest.approx(-991.0005)


@pytest.mark.parametrize("stop_after", [0, 1, 4, 11, 14])
def test_goes_on_where_it_was_stopped(tmp_path, stop_after):
    whole = run(protocol(tmp_path / "whole"), Fakes())
    first, second, third = Fakes(stop_after=stop_after), Fakes(), Fakes()
    with pytest.raises(Stopped):
        run(protocol(tmp_path / "stopped"), first)
    assert run(protocol(tmp_path / "stopped"), second) == whole
    for kind in ("searched", "trained", "tested"):
        assert not set(getattr(first, kind)) & set(getattr(second, kind)), kind
    assert len(first.searched) + len(second.searched) == 3
    assert len(first.trained) + len(second.trained) == 3 + 6 + 18
    assert run(protocol(tmp_path / "stopped"), third) == whole
    assert third.searched == third.trained == third.tested == []


def test_more_seeds_can_be_added_but_settings_not_changed(tmp_path):
    run(protocol(tmp_path, seeds=(0,), random_search_seeds=()), Fakes())
    fakes = Fakes()
    run(protocol(tmp_path, seeds=(0, 1), random_search_seeds=()), fakes)
    assert fakes.searched == [1] and len(fakes.trained) == 1
    with pytest.raises(UserError, match="other settings"):
        run(protocol(tmp_path, retrain_options=("train_cfg.max_epochs=3",)), Fakes())


def test_a_diverged_trial_never_wins_and_is_null_in_the_file(tmp_path):
    values = [row["validation"] for row in of(run(protocol(tmp_path / "a"), Fakes()), "random search")]
    fakes = Fakes(nan=values)
    result = run(protocol(tmp_path / "b"), fakes)
    assert all(row["validation"] < best for row, best in zip(of(result, "random search"), values, strict=True))
    lost = run(protocol(tmp_path / "c", random_search_seeds=()), Fakes(nan=[990.0]))
    assert of(lost, "digits_search")[0]["validation"] is None
    assert lost["groups"]["digits_search"]["selected"]["validation"] == 992.0
    assert "NaN" not in (tmp_path / "c" / "compare.json").read_text()


def test_searches_of_different_spaces_are_refused(tmp_path):
    run(protocol(tmp_path, random_search_seeds=(), seeds=(0,)), Fakes())
    wider = Space("digits of a number", [OneOf(name, tuple(range(11))) for name in "abc"])
    with pytest.raises(UserError, match="different spaces"):
        run(protocol(tmp_path, seeds=(0, 1)), Fakes(space=wider))


@pytest.mark.parametrize(
    "changes, word",
    [
        (dict(seeds=()), "seeds"),
        (dict(cost="hours"), "hours"),
        (dict(random=-1), "-1"),
        (dict(searches=("a/x.py", "b/x.py")), "'x'"),
    ],
)
def test_mistakes_are_named(tmp_path, changes, word):
    with pytest.raises(UserError, match=word):
        protocol(tmp_path, **changes)


def test_images_of_second_order(tmp_path):
    lines = [{"phase": phase, "images_per_second": 50.0, "seconds": 2.0} for phase in ("freeze", "search")]
    (tmp_path / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    cfg, batches = {"strategy": {"order": 2}}, {"weights": 100, "architecture": 50}
    # 100 for the weights in each epoch; in the second also 50 for the logits, and 3 more passes of the weights' batch
    assert images_of(tmp_path / "history.jsonl", cfg, batches) == 100 + 100 + 50 + 300
    assert images_of(tmp_path / "history.jsonl", {"strategy": {"order": 1}}, batches) == 250
