"""One-shot search: a supernet trained path by path, paths scored with its weights; killed and resumed."""

import json
import random
import shutil
import signal
from collections import Counter

import pytest
import torch

from search import report
from search.engine import OneShotRunner, PathValLoop, SinglePathLoop, UserError, search
from search.engine.errors import BudgetError
from search.engine.run import prepared
from search.registry import MODELS
from search.space import Architecture, load
from search.strategies.evolution import Evolution
from search.strategies.one_shot import SinglePath
from search.strategies.paths import fair_path, uniform_path
from search.supernet import ArchParams, Fix, building, inherit, record
from search.supernet.recalibrate import recalibrate
from tests.search.engine import tiny

TRIALS, BATCHES = 5, 3


def settings(trials=TRIALS, epochs=2, **more):
    return dict(
        strategy=dict(type="SinglePath", trials=trials, population=3, sample=2, batches=BATCHES),
        arch_dataloader=None,
        arch_optimizer=None,
        train_cfg=dict(type="search.SinglePathLoop", max_epochs=epochs, save_steps=2),
        model=dict(double=True),
        train_dataloader=tiny.loader(24, 0, 0, augment=True, double=True),
        val_dataloader=tiny.scored(12, 100, double=True),
        **more,
    )


def config(work_dir, **more):
    cfg = tiny.config(work_dir, **{**settings(), **more})
    cfg.model.type = "search.TinyNet"
    return cfg


def runner_of(work_dir, **more):
    """As a search makes it."""
    cfg = prepared(config(work_dir, **more), work_dir)
    cfg.val_cfg = dict(type="search.PathValLoop")
    runner = OneShotRunner.from_cfg(cfg)
    # built when they are first asked for
    assert runner.train_loop is not None and runner.val_loop is not None
    return runner


def lines(work_dir):
    return [json.loads(line) for line in (work_dir / "history.jsonl").read_text().splitlines()]


def without_times(rows):
    return [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second", "peak_memory_mib")} for row in rows]


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    work_dir = tmp_path_factory.mktemp("one_shot") / "work"
    return work_dir, search(config(work_dir))


def space_of(work_dir):
    return load(work_dir / "architecture.json").parts["backbone"].space


def test_uniform_paths_are_a_function_of_seed_and_step(searched):
    space = space_of(searched[0])
    # those of searches made before there were others
    assert uniform_path(space, 3, 7) == space.sample(random.Random("path 3 7")) and SinglePath().path is uniform_path
    assert len({uniform_path(space, 3, step) for step in range(40)} | {uniform_path(space, 4, step) for step in range(40)}) > 40
    counts = Counter(uniform_path(space, 0, step) for step in range(50 * space.size))
    # 2 x 3 inputs and 3 x 3 operations; 99.99 % of a chi-square of 53 degrees of freedom
    assert len(counts) == space.size == 54
    assert sum((n - 50) ** 2 / 50 for n in counts.values()) < 99


def test_evolution_asks_and_the_best_path_is_kept(searched):
    work_dir, found = searched
    rows = lines(work_dir)
    assert [row.get("epoch") for row in rows[:2]] == [1, 2] and [row["trial"] for row in rows[2:]] == list(range(TRIALS))
    scores = [row["score"]["validation"] for row in rows[2:]]
    sampler = Evolution(space_of(work_dir), 3, population=3, sample=2)
    for row, score in zip(rows[2:], scores, strict=True):
        assert row["architecture"] == sampler.ask().to_json()
        sampler.tell(Architecture.from_json(row["architecture"]), score)
    best = max(range(TRIALS), key=lambda i: (scores[i], -i))
    assert found.summary["best_trial"] == best and found.score == found.summary["validation"] == scores[best]
    assert [row["best"] for row in rows[2:]] == [max(scores[: i + 1]) for i in range(TRIALS)]
    assert found.architecture.to_json() == rows[2 + best]["architecture"]
    assert [row["score_supernet"] for row in found.summary["random"]] == scores[:6]
    assert (work_dir / "report.html").exists() and found.summary["strategy"] == "single path one-shot"


def test_a_score_is_that_of_the_derived_network_on_recalibrated_norms(searched, tmp_path):
    """With inherited weights, built apart from the supernet."""
    work_dir, _ = searched
    runner = runner_of(tmp_path)
    batches = runner.train_loop.recalibration()
    assert len(batches) == BATCHES
    weights = torch.load(work_dir / "checkpoint.pth", weights_only=True)["state_dict"]
    for row in lines(work_dir)[2:]:
        with building(Fix(Architecture.from_json(row["architecture"]))):
            narrow = MODELS.build(dict(type="search.TinyNet", double=True))
        inherit(narrow, weights)
        recalibrate(narrow, batches, lambda data, net=narrow: net(**data, mode="tensor"))
        narrow.eval()
        right = 0
        for batch in runner.val_dataloader:
            right += int((narrow(**batch, mode="tensor").argmax(1) == batch["label"]).sum())
        assert row["score"]["validation"] == pytest.approx(100 * right / 12)


def test_scoring_leaves_the_supernet_as_it_was(tmp_path):
    runner = runner_of(tmp_path)
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    before = {name: value.clone() for name, value in runner.model.state_dict().items()}
    state = torch.random.get_rng_state()
    scores = [runner.val_loop.score(runner.probe) for _ in range(2)]
    assert scores[0] == scores[1] and torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in runner.model.state_dict().items())


def test_what_no_path_reached_is_as_it_was_built(tmp_path):
    """Momentum and weight decay don't move it either."""
    runner = runner_of(tmp_path, train_cfg=dict(type="search.SinglePathLoop", max_epochs=1))
    runner._init_model_weights()
    before = {name: p.detach().clone() for name, p in runner.model.named_parameters()}
    runner._init_model_weights = lambda: None
    runner.train()
    reached = set()
    for step in range(6):
        with building(Fix(uniform_path(runner.space, 3, step))):
            reached |= {name for name, _ in MODELS.build(dict(type="search.TinyNet", double=True)).named_parameters()}
    moved = {name for name, p in runner.model.named_parameters() if not torch.equal(p, before[name])}
    # in 6 steps of 54 paths; a parameter-free path has no gradient for the stem alone
    assert moved == reached & set(before) and moved < set(before)


@pytest.mark.parametrize("stopped", [0, 2])
def test_a_search_stopped_among_its_paths_scores_none_twice(searched, tmp_path, monkeypatch, stopped):
    work_dir, straight = searched
    scored, true_score = [], PathValLoop.score

    def score(loop, architecture):
        # twice while training
        if len(scored) == 2 + stopped and not resuming:
            raise KeyboardInterrupt
        scored.append(architecture)
        return true_score(loop, architecture)

    resuming = False
    # drawing takes longer than the rest
    monkeypatch.setattr(report, "write", lambda work_dir: None)
    monkeypatch.setattr(PathValLoop, "score", score)
    with pytest.raises(KeyboardInterrupt):
        search(config(tmp_path))
    resuming, scored[:] = True, []
    cfg = config(tmp_path)
    cfg.resume = True
    found = search(cfg)
    assert len(scored) == TRIALS - stopped and found.architecture == straight.architecture
    assert without_times(lines(tmp_path)) == without_times(lines(work_dir))


def test_a_kill_before_known_paths_are_told_loses_none(searched, tmp_path, monkeypatch):
    """A resumed search that is killed before it asks for its first path has kept the scores."""
    monkeypatch.setattr(report, "write", lambda work_dir: None)
    shutil.copytree(searched[0], tmp_path / "work")
    history = tmp_path / "work" / "history.jsonl"
    whole = history.read_text()
    # the last path's line is half written
    history.write_text(whole[:-20])

    def stop(sampler):
        raise KeyboardInterrupt

    cfg = config(tmp_path / "work")
    cfg.resume = True
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Evolution, "ask", stop)
        search(cfg)
    assert history.read_text() == "".join(whole.splitlines(keepends=True)[:-1])
    search(cfg)
    assert without_times(lines(tmp_path / "work")) == without_times(lines(searched[0]))


def test_scores_of_paths_that_werent_asked_for_are_left_out(searched, tmp_path, monkeypatch):
    """And those after them, which were asked for because of them."""
    monkeypatch.setattr(report, "write", lambda work_dir: None)
    shutil.copytree(searched[0], tmp_path / "work")
    history = tmp_path / "work" / "history.jsonl"
    rows = lines(tmp_path / "work")
    rows[3]["architecture"] = rows[2]["architecture"]
    history.write_text("".join(json.dumps(row) + "\n" for row in rows))
    cfg = config(tmp_path / "work")
    cfg.resume = True
    search(cfg)
    assert lines(tmp_path / "work")[:3] == rows[:3]
    assert without_times(lines(tmp_path / "work")) == without_times(lines(searched[0]))


@pytest.mark.slow
@pytest.mark.parametrize("sampling", ["uniform", "fair"])
def test_a_killed_training_goes_on_bit_for_bit(searched, tmp_path, sampling):
    work_dir, _ = searched
    more = settings()
    more["strategy"]["sampling"] = sampling
    assert tiny.in_children(tmp_path / "straight", **more) == [0]
    kill = {"visualization": {"type": "search.Kill", "where": "step", "at": 9}}
    assert tiny.in_children(tmp_path / "killed", **more, default_hooks=kill) == [-signal.SIGKILL]
    assert tiny.in_children(tmp_path / "killed", **more, resume=True) == [0]
    assert tiny.differences(tiny.state(tmp_path / "straight"), tiny.state(tmp_path / "killed")) == []
    straight, killed = (without_times(lines(tmp_path / name)) for name in ("straight", "killed"))
    assert straight == killed
    assert (straight == without_times(lines(work_dir))) == (sampling == "uniform")


def test_a_step_trains_the_path_that_the_strategy_says(tmp_path, monkeypatch):
    """Fair ones: of two inputs of a node each is trained in one of two steps."""
    monkeypatch.setattr(report, "write", lambda work_dir: None)
    trained, masked = [], ArchParams.masked

    def seen(params, path):
        if params.training_step:
            trained.append(path)
        return masked(params, path)

    true_step = SinglePathLoop.step

    def step(loop, batch):
        loop.runner.arch_params.training_step = True
        outputs = true_step(loop, batch)
        loop.runner.arch_params.training_step = False
        return outputs

    monkeypatch.setattr(ArchParams, "training_step", False, raising=False)
    monkeypatch.setattr(ArchParams, "masked", seen)
    monkeypatch.setattr(SinglePathLoop, "step", step)
    cfg = config(tmp_path)
    cfg.strategy.sampling = "fair"
    search(cfg)
    space = space_of(tmp_path)
    assert trained == [fair_path(space, 3, step) for step in range(12)]
    assert Counter(path["normal/n2/inputs"] for path in trained) == {(0,): 6, (1,): 6}


def test_processes_train_the_same_path(tmp_path):
    more = settings(custom_hooks=[dict(type="search.Dump")])
    assert tiny.in_children(tmp_path, world=2, launcher="pytorch", **more) == [0, 0]
    one, two = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    norms = ("running_mean", "running_var")
    assert all(torch.equal(value, two[name]) for name, value in one.items() if not name.endswith(norms))


def test_a_budget_bounds_what_is_scored(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "write", lambda work_dir: None)
    space = record(lambda: MODELS.build(dict(type="search.TinyNet"))).space
    assert space.size == 54
    found = search(config(tmp_path / "within", budget=dict(params=500)))
    assert all(row["cost"]["params"] <= 500 for row in lines(tmp_path / "within")[2:]) and found.summary["trials"] == TRIALS
    # the stem's 144 and the classifier's 3 numbers, and those of a convolution
    found = search(config(tmp_path / "activations", budget=dict(activations=2 * 144 + 3)))
    rows = lines(tmp_path / "activations")[2:]
    assert all(list(row["architecture"].values()).count("conv") <= 1 for row in rows) and found.summary["trials"] == TRIALS
    derived, budget = found.summary["derived"], found.summary["budget"]
    assert derived["activations"] in (147, 291)
    assert budget["limits"] == {"activations": {"limit": 291.0, "derived": derived["activations"]}}
    assert budget["input_size"] == derived["input_size"] == [3, 6, 6] and budget["table"] is None
    provenance = load(found.path).provenance
    assert provenance["cost"] == {key: derived[key] for key in ("params", "macs", "activations", "input_size", "convention")}
    with pytest.raises(BudgetError, match="can't be met by drawing"):
        search(config(tmp_path / "none", budget=dict(params=1)))
    # no supernet was trained for that
    assert not [path for path in (tmp_path / "none").iterdir() if path.suffix in (".jsonl", ".pth")]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (dict(arch_optimizer=dict(type="Adam", lr=0.1)), "SinglePath trains no logits and has no use for arch_optimizer"),
        (dict(train_cfg=dict(type="search.TrainLoop", max_epochs=1)), "train_cfg.type of a one-shot search is"),
        (dict(val_dataloader=None, val_evaluator=None), "give splits.validation a share"),
        (dict(val_cfg=dict(type="search.SupernetValLoop")), "paths are scored by 'search.PathValLoop'"),
    ],
)
def test_configs_that_cannot_be(tmp_path, more, says):
    with pytest.raises(UserError, match=says):
        search(config(tmp_path, **more))


def test_settings_that_cannot_be():
    with pytest.raises(ValueError, match="batches=0"):
        SinglePath(batches=0)
    with pytest.raises(ValueError, match="population=50 with trials=50 is random search"):
        SinglePath(trials=50)
    with pytest.raises(ValueError, match="sample=0"):
        SinglePath(sample=0)
    with pytest.raises(ValueError, match="sampling='strict' is unknown: paths are drawn 'uniform' or 'fair'"):
        SinglePath(sampling="strict")
