"""A search and a training in this process: what they write, mmengine's hooks and backends, what they refuse."""

import json
import re
import shutil

import pytest
import torch

from search import report
from search.engine import SearchRunner, UserError, checkpoint, config, evaluate, search, train
from search.engine.run import without_test
from search.registry import STRATEGIES
from search.space import TopInputs, load
from search.strategies import FirstOrder
from search.strategies.gradient import GradientStrategy
from search.supernet import Softmax
from tests.search.engine import tiny


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(report, "write", lambda work_dir: None)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A work directory of a finished search with EMA and all visualisation backends, with its report."""
    folder = tmp_path_factory.mktemp("searched")
    backends = [{"type": "LocalVisBackend"}, {"type": "TensorboardVisBackend"}]
    cfg = tiny.config(
        folder,
        custom_hooks=[{"type": "EMAHook", "momentum": 0.1}],
        visualizer={"type": "Visualizer", "vis_backends": backends},
        test_dataloader=tiny.scored(9, 200),
    )
    return folder, search(cfg)


def lines(folder):
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def test_a_search_writes_its_work_directory(searched):
    folder, result = searched
    for name in ("config.py", "history.jsonl", "checkpoint.pth", "architecture.json", "summary.json", "report.html"):
        assert (folder / name).exists(), name
    assert load(folder / "architecture.json").parts["backbone"].architecture == result.architecture
    summary = json.loads((folder / "summary.json").read_text())
    assert len(summary["random"]) == 6 and summary["space"]["size"] == 54
    assert summary["derived"]["params"] < summary["supernet"]["params"]
    assert summary["derived"]["score_supernet"] == result.score


def test_history_has_a_line_for_each_epoch(searched):
    folder, result = searched
    rows = lines(folder)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert [row["phase"] for row in rows] == ["freeze", "search", "search"]
    assert rows[0]["arch_loss"] is None and rows[1]["arch_loss"] > 0
    for row in rows:
        assert row["gap"] == pytest.approx(row["score"]["supernet"] - row["score"]["derived"])
    assert rows[-1]["architecture"] == result.architecture.to_json()
    assert rows[-1]["cost"] == {key: result.summary["derived"][key] for key in ("params", "macs")}
    # also with averaged weights, which both are scored with
    assert rows[-1]["score"]["derived"] == result.score


def test_logits_stay_frozen_in_the_first_epoch_only(searched):
    rows = lines(searched[0])
    start = rows[0]["probabilities"]["normal/n2<-0"]
    assert all(abs(p - 0.25) < 2e-3 for p in start)
    assert rows[1]["probabilities"]["normal/n2<-0"] != start


def test_visualisation_backends_get_losses_and_scores(searched):
    folder, _ = searched
    scalars = [json.loads(r) for f in folder.glob("*/vis_data/scalars.json") for r in f.read_text().splitlines()]
    names = {name for row in scalars for name in row}
    assert {"epoch/train_loss", "epoch/gap", "epoch/supernet", "top1", "derived/top1", "loss"} <= names
    (events,) = folder.glob("*/vis_data/events.out.tfevents.*")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(events))
    read.Reload()
    assert len(read.Scalars("epoch/train_loss")) == 3


def test_ema_weights_are_what_the_checkpoint_serves(searched):
    saved = checkpoint.read_own(searched[0] / "checkpoint.pth")
    raw = {k.removeprefix("module."): v for k, v in saved["ema_state_dict"].items() if k != "steps"}
    assert int(saved["ema_state_dict"]["steps"]) == 18
    assert not torch.equal(saved["state_dict"]["head.weight"], raw["head.weight"])


def test_the_gap_is_the_supernets_score_less_that_of_the_masked_network(tmp_path):
    cfg = tiny.config(tmp_path, epochs=2)
    result = search(cfg)
    last = lines(tmp_path)[-1]
    assert last["score"]["derived"] == result.score
    assert last["gap"] == pytest.approx(last["score"]["supernet"] - result.score)


def test_scoring_moves_no_statistics(tmp_path):
    cfg = without_test(tiny.config(tmp_path))
    cfg.update({"randomness": {"seed": 0}, "val_cfg": {"type": "search.SupernetValLoop"}})
    runner = SearchRunner.from_cfg(cfg)
    before = {k: v.clone() for k, v in runner.model.state_dict().items()}
    assert runner.train_loop is not None
    metrics = runner.val_loop.run()
    assert set(metrics) == {"top1", "derived/top1"}
    assert all(torch.equal(v, before[k]) for k, v in runner.model.state_dict().items())


def test_a_derived_network_trains_inherits_and_is_tested(searched, tmp_path):
    folder, _ = searched
    arch = str(folder / "architecture.json")
    settings = {"train": True, "epochs": 2, "model": {"arch": arch}, "test_dataloader": tiny.scored(9, 200)}
    trained = train(tiny.config(tmp_path / "scratch", **settings))
    assert lines(tmp_path / "scratch")[-1]["score"] == {"validation": trained.score}
    train(tiny.config(tmp_path / "inherited", **settings, log_level="INFO"), inherit=str(folder / "checkpoint.pth"))
    (log,) = (tmp_path / "inherited").glob("*/*.log")
    assert re.search(r"inherited \d+ parameters and buffers", log.read_text())
    first = [lines(tmp_path / name)[0]["train_loss"] for name in ("scratch", "inherited")]
    assert first[1] < first[0]
    # the architecture comes from the checkpoint
    metrics = evaluate(tiny.config(tmp_path / "test", **{**settings, "model": {}}), str(trained.checkpoint))
    assert set(metrics) == {"top1"}


def test_the_written_config_tests_its_checkpoint_on_the_same_classes_only(tmp_path):
    settings = {"train": True, "epochs": 1, "model": {"arch": tiny.ARCH}, "experiment_name": "named"}
    trained = train(tiny.config(tmp_path / "w", **settings, test_dataloader=tiny.scored(9, 200)))
    written = config.load(tmp_path / "w" / "config.py")
    assert written.experiment_name == "named"
    written.work_dir = str(tmp_path / "test")
    assert set(evaluate(written, str(trained.checkpoint))) == {"top1"}
    written.test_dataloader.dataset.classes = ["a", "x", "c"]
    with pytest.raises(UserError, match="number 1 is 'b' there and 'x' in the test data"):
        evaluate(written, str(trained.checkpoint))
    written.test_dataloader.dataset.classes = ["a", "b"]
    with pytest.raises(UserError, match="number 2 is 'c' there and missing in the test data"):
        evaluate(written, str(trained.checkpoint))


def test_what_is_decoded_and_shown_is_what_the_gate_gives(tmp_path):
    seen = []

    @STRATEGIES.register_module(name="SharpDARTS", force=True)
    def sharp():
        def decode(space, probabilities):
            seen.append(probabilities)
            return TopInputs()(space, probabilities)

        return GradientStrategy(name="sharp", gate=Softmax(0.01), update=FirstOrder(), decode=decode)

    search(tiny.config(tmp_path, epochs=1, strategy={"type": "SharpDARTS"}))
    logits = checkpoint.read_own(tmp_path / "checkpoint.pth")["visnas"]["loop"]["arch_params"]
    shown = lines(tmp_path)[-1]["probabilities"]
    assert shown == seen[-1]
    name = "normal/n2<-0"
    (logit,) = (value for key, value in logits.items() if key.endswith(name))
    assert shown[name] == pytest.approx(torch.softmax(logit / 0.01, 0).tolist())
    assert shown[name] != pytest.approx(torch.softmax(logit, 0).tolist(), abs=0.01)


def test_a_score_that_no_metric_gives_is_refused_before_training(tmp_path):
    with pytest.raises(UserError, match=r"score\.key='top7' isn't among the evaluator's metrics \(top1\)"):
        search(tiny.config(tmp_path, score={"key": "top7"}))
    assert not (tmp_path / "history.jsonl").exists()


def test_sync_bn_without_gpus_is_said(tmp_path):
    search(tiny.config(tmp_path, epochs=1, sync_bn="torch"))
    (log,) = tmp_path.glob("*/*.log")
    assert "sync_bn='torch'" in log.read_text()


@pytest.mark.parametrize("train_too", [False, True])
def test_autocast(tmp_path, train_too):
    wrapper = {"type": "AutocastOptimWrapper", "optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.9}}
    cfg = tiny.config(tmp_path, train=train_too, epochs=2, optim_wrapper=wrapper)
    if train_too:
        cfg.model.arch = tiny.ARCH
    (train if train_too else search)(cfg)
    saved = checkpoint.read_own(tmp_path / "checkpoint.pth")
    assert all(v.dtype != torch.bfloat16 for v in saved["state_dict"].values())
    assert lines(tmp_path)[-1]["train_loss"] < 1.2


@pytest.mark.parametrize("train_too", [False, True])
def test_compiled_forwards_give_the_same_numbers(tmp_path, train_too):
    """backend 'eager' traces without generating code: tracing is what closures and gates could break."""
    for name, more in (("eager", {}), ("compiled", {"compile": {"backend": "eager"}})):
        cfg = tiny.config(tmp_path / name, train=train_too, epochs=2, **more)
        if train_too:
            cfg.model.arch = tiny.ARCH
            train(cfg)
        else:
            cfg.strategy = {"type": "DARTS", "order": 2}
            search(cfg)
    eager, compiled = (checkpoint.read_own(tmp_path / n / "checkpoint.pth") for n in ("eager", "compiled"))
    pairs = [(v, compiled["state_dict"][k]) for k, v in eager["state_dict"].items()]
    if not train_too:
        logits = compiled["visnas"]["loop"]["arch_params"]
        pairs += [(v, logits[k]) for k, v in eager["visnas"]["loop"]["arch_params"].items()]
    assert all(torch.allclose(a.float(), b.float(), atol=1e-4) for a, b in pairs)


def test_hooks_get_their_state_back(tmp_path):
    stopping = {"type": "EarlyStoppingHook", "monitor": "top1", "rule": "greater", "patience": 99}
    search(tiny.config(tmp_path, epochs=2, custom_hooks=[stopping]))
    saved = checkpoint.read_own(tmp_path / "checkpoint.pth")["visnas"]
    cfg = tiny.config(tmp_path, epochs=2, custom_hooks=[stopping], resume=True)
    cfg.update({"randomness": {"seed": 3}, "val_cfg": {"type": "search.SupernetValLoop"}})
    runner = SearchRunner.from_cfg(cfg)
    runner.run_config = saved["config"]
    runner.train()
    (hook,) = (h for h in runner.hooks if type(h).__name__ == "EarlyStoppingHook")
    (state,) = (v for k, v in saved["hooks"].items() if k.startswith("EarlyStoppingHook"))
    assert state["best_score"] > 0
    assert {"best_score": hook.best_score, "wait_count": hook.wait_count} == state


def test_mmengines_own_checkpoint_hook_works_besides(tmp_path):
    hook = {"type": "CheckpointHook", "interval": 1, "save_best": "top1", "rule": "greater"}
    search(tiny.config(tmp_path, epochs=2, default_hooks={"checkpoint": hook}))
    names = sorted(p.name for p in tmp_path.glob("*.pth"))
    assert {"checkpoint.pth", "epoch_1.pth", "epoch_2.pth"} < set(names)
    assert all("state_dict" in checkpoint.read(tmp_path / name) for name in names)


def test_resuming_before_the_first_checkpoint_starts_again(tmp_path):
    search(tiny.config(tmp_path / "straight", epochs=2))
    (tmp_path / "killed").mkdir()
    shutil.copy(tmp_path / "straight" / "run.json", tmp_path / "killed")
    (tmp_path / "killed" / "history.jsonl").write_text("{}\nhalf a li")
    search(tiny.config(tmp_path / "killed", epochs=2, resume=True))
    assert tiny.differences(tiny.state(tmp_path / "straight"), tiny.state(tmp_path / "killed")) == []
    assert len(lines(tmp_path / "killed")) == 2


def test_a_work_directory_of_another_run_is_left_alone(searched):
    folder, _ = searched
    before = {p: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    with pytest.raises(UserError, match="already holds a run"):
        search(tiny.config(folder))
    with pytest.raises(UserError, match=r"another config \(arch_optimizer\.lr is 0\.01 there and 1\.0 here\)"):
        search(tiny.config(folder, custom_hooks=[{"type": "EMAHook", "momentum": 0.1}], **_other(), resume=True))
    with pytest.raises(UserError, match="of a search run, this is a train run"):
        train(tiny.config(folder, train=True, model={"arch": tiny.ARCH}, resume=True))
    assert before == {p: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def _other():
    backends = [{"type": "LocalVisBackend"}, {"type": "TensorboardVisBackend"}]
    return {
        "arch_optimizer": {"type": "Adam", "lr": 1.0, "betas": (0.5, 0.999), "weight_decay": 1e-3},
        "visualizer": {"type": "Visualizer", "vis_backends": backends},
        "test_dataloader": tiny.scored(9, 200),
    }


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"strategy": {"type": "PCDART"}}, "strategy.type"),
        ({"score": {"key": "top7"}}, "score.key='top7' isn't among"),
        ({"score": {"key": "top1", "rule": "more"}}, "score.rule='more'"),
        ({"optim_wrapper": {"optimizer": {"type": "Adam", "lr": 0.1}}, "strategy": {"type": "DARTS", "order": 2}}, "Adam"),
        ({"train_cfg": {"type": "search.BilevelLoop", "max_epochs": 0}}, "max_epochs=0"),
        ({"train_cfg": {"type": "search.TrainLoop", "max_epochs": 1}}, "must be 'search.BilevelLoop'"),
        ({"task": "tinny"}, "no task 'tinny'"),
        ({"train_cfg": {"type": "search.BilevelLoop", "max_epochs": "abc"}}, "max_epochs='abc'"),
        ({"train_cfg": {"type": "search.BilevelLoop", "max_epochs": 1, "save_steps": -3}}, "save_steps=-3"),
        ({"train_dataloader": tiny.loader(24, 0, 0, "abc")}, "batch_size of the train data='abc'"),
        ({"train_dataloader": {**tiny.loader(24, 0, 0), "num_batch_per_epoch": 0}}, "num_batch_per_epoch of the train data=0"),
        ({"val_dataloader": {**tiny.scored(12, 100), "batch_size": "abc"}}, "batch_size of the data that are scored='abc'"),
        ({"val_dataloader": {**tiny.scored(12, 100), "batch_size": 11}}, "batch_size=11 leaves a batch of one"),
        ({"val_dataloader": {**tiny.scored(12, 100), "batch_size": 1}}, "batch_size=1 leaves a batch of one"),
        ({"val_cfg": {"type": "ValLoop"}}, "val_cfg.type='ValLoop'"),
        ({"optim_wrapper": {"optimizer": {"type": "SGD", "lr": -1}}}, "optim_wrapper can't be built: .*learning rate"),
        ({"arch_optimizer": {"type": "Adam", "lr": -1}}, "arch_optimizer can't be built: .*learning rate"),
        ({"seed": None}, "seed=None"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 2**32}, "seed=4294967296"),
        ({"seed": True}, "seed=True"),
        ({"randomness": {"seed": 1, "diff_rank_seed": True}}, "diff_rank_seed"),
    ],
)
def test_mistakes_are_said_before_or_when_they_matter(tmp_path, change, words):
    with pytest.raises(ValueError, match=words):
        search(tiny.config(tmp_path, epochs=1, **change))
