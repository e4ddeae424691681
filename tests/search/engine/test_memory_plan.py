import json

import pytest
from mmengine.config import Config

from search.cost.planner import Need, Reserve, Setting
from search.engine import memory_plan
from search.engine.command import guarded
from search.engine.errors import BudgetError, UserError
from search.engine.memory_plan import Planner, modules_with, reserve_here, stored, with_options
from search.engine.memory_report import parts
from search.engine.run import adapter_of
from tests.search.engine import tiny
from tests.search.engine.test_fake_step import Adapter, settings


def planner(name="cells_pc_darts_cifar10", **options):
    cfg = settings(name, **options)
    return Planner(cfg, adapter_of(cfg), Reserve())


def test_ladders_hold_what_the_network_accepts():
    found = planner(**{"model.backbone.channels": 12}).ladders
    # 8 doesn't divide 12 channels
    assert found.partial == (4,)
    assert found.execution == ("reference", "batched/fast", "batched/balanced", "batched/small")
    assert found.precision == ("float32", "bfloat16")
    assert found.batch == (4, 3, 2)
    assert found.crop == (16, 12, 8)
    later = {"model.backbone.partial": 1, "model.backbone.plan": "batched", "model.backbone.memory": "balanced"}
    found = planner(**later, **{"optim_wrapper.type": "AutocastOptimWrapper"}).ladders
    assert found.partial == (1, 2, 4, 8)
    assert found.execution == ("batched/balanced", "batched/small")
    assert found.precision == ("bfloat16",)


def test_exact_second_order_keeps_the_reference():
    assert planner("cells_darts_cifar10", **{"strategy.exact": True}).ladders.execution == ("reference",)


def test_a_network_and_a_task_without_any_of_it(tmp_path):
    cfg = tiny.config(tmp_path)
    found = Planner(cfg, Adapter(), Reserve()).ladders
    assert (found.execution, found.crop) == ((None,), (None,))
    assert found.partial == (1, 2, 4)
    with pytest.raises(UserError, match="no memory_batch"):
        Planner(cfg, tiny.TinyTask(), Reserve())
    with pytest.raises(UserError, match="no arch_optimizer"):
        Planner(Config({k: v for k, v in cfg.items() if k != "arch_optimizer"}), Adapter(), Reserve())


def test_options_of_a_setting():
    plan = planner("cells_darts_cifar10", **{"model.backbone.partial": 2, "arch_dataloader.batch_size": 8})
    assert plan.options(plan.ladders.first) == {}
    options = plan.options(Setting("batched/small", "bfloat16", 3, 12, 4))
    assert options == {
        "model.backbone.plan": "batched",
        "model.backbone.memory": "small",
        "model.backbone.partial": 4,
        "optim_wrapper.type": "AutocastOptimWrapper",
        "train_dataloader.batch_size": 3,
        "arch_dataloader.batch_size": 6,
        "val_dataloader.batch_size": 2,
        # 0.025 and its floor 0.001, times 3 / 4
        "optim_wrapper.optimizer.lr": pytest.approx(0.01875),
        "param_scheduler.0.eta_min": pytest.approx(0.00075),
        "train_dataloader.dataset.pipeline.0.size": 12,
        "arch_dataloader.dataset.pipeline.0.size": 12,
    }
    cfg = with_options(plan.cfg, options)
    assert cfg.model.backbone.plan == "batched" and cfg.param_scheduler[0].eta_min == pytest.approx(0.00075)
    assert dict(modules_with(cfg.model, "memory")) == {"model.backbone.memory": "small"}
    # the config itself is left alone, and the other settings of its groups stay
    assert plan.cfg.model.backbone.partial == 2 and plan.cfg.param_scheduler[0].eta_min == 0.001
    assert cfg.param_scheduler[0].T_max == 50 and cfg.optim_wrapper.clip_grad == dict(max_norm=5)


def test_rates_that_mmengine_scales_are_left_to_it():
    scaled = {"auto_scale_lr": dict(enable=True, base_batch_size=64)}
    plan = planner(**scaled)
    options = plan.options(Setting("reference", "float32", 2, 16, 4))
    assert {key for key in options if not key.endswith("batch_size")} == set()


def faked(monkeypatch, peak):
    """Needs by a formula in place of a measured step."""

    def need_of(cfg, adapter):
        return Need(10, 1, 10, 20, {"weights": 5, "architecture": 10}, {"architecture": peak(cfg)})

    monkeypatch.setattr(memory_plan, "need_of", need_of)


def test_a_plan_is_written_and_read_back(monkeypatch, tmp_path):
    faked(monkeypatch, lambda cfg: 1000 * cfg.train_dataloader.batch_size // cfg.model.partial)
    monkeypatch.setattr(memory_plan, "reserve_here", lambda: Reserve(fixed=500, share=0.5))
    cfg = tiny.config(tmp_path, model={"partial": 1})
    assert stored(tmp_path, 5000) is None
    plan = memory_plan.make(cfg, Adapter(), tmp_path, 5000)
    assert plan.setting == Setting(None, "float32", 3, None, 1)
    assert plan.total == 5000 == sum(size for _, size in parts(plan))
    assert plan.options["train_dataloader.batch_size"] == 3
    assert stored(tmp_path, 5000) == stored(tmp_path, None) == plan.options
    written = json.loads((tmp_path / memory_plan.NAME).read_text())
    assert written["need"]["kept"] == {"weights": 5, "architecture": 10} and written["own"]["batch"] == 4
    with pytest.raises(UserError, match="was made for"):
        stored(tmp_path, 6000)
    (tmp_path / memory_plan.NAME).write_text("{}")
    with pytest.raises(UserError, match="damaged"):
        stored(tmp_path, None)
    memory_plan.forget(tmp_path)
    assert stored(tmp_path, None) is None


def test_the_smallest_need_fits(monkeypatch, tmp_path, capsys):
    faked(monkeypatch, lambda cfg: 10**6 * cfg.train_dataloader.batch_size // cfg.model.get("partial", 1))
    cfg = tiny.config(tmp_path)
    plan = Planner(cfg, Adapter(), Reserve(fixed=10**6))
    with pytest.raises(BudgetError, match=r"smallest need is 1\.5 MB"):
        plan.plan(1_499_999)
    # precision changes nothing in this formula
    assert plan.plan(1_500_000).setting == Setting(None, "float32", 2, None, 4)
    assert guarded(lambda: plan.plan(1)) == 3
    assert capsys.readouterr().err.startswith("error: --max-memory: nothing fits in")


def test_a_process_on_the_cpu_counts_what_it_holds_already():
    reserve = reserve_here()
    assert reserve.with_peak(10**9) > 1.05 * 10**9 + 50 * 2**20
