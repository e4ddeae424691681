import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from mmengine.config import Config

from search.cost.planner import Need, Reserve, Setting
from search.engine import memory_plan
from search.engine.command import guarded
from search.engine.errors import BudgetError, UserError
from search.engine.memory_plan import Planner, reserve_here, stored, with_options
from search.engine.memory_report import parts
from search.engine.run import adapter_of
from search.engine.searchable import modules_with
from tests.search.engine import tiny
from tests.search.engine.test_fake_step import ROOT, Adapter, settings

ONE_CELL = {"model.backbone.layers": 1, "model.backbone.reductions": (), "model.backbone.nodes": 1}


def planner(name="cells_pc_darts_cifar10", **options):
    cfg = settings(name, **options)
    return Planner(cfg, adapter_of(cfg), Reserve())


def test_ladders_hold_what_the_network_accepts():
    found = planner(**{"model.backbone.channels": 12}).ladders
    # 8 doesn't divide 12 channels
    assert found.partial == (4,)
    assert found.execution == ("reference", "batched/fast", "batched/balanced", "batched/small")
    assert found.precision == ("float32", "bfloat16")
    assert (found.batch, found.parts) == (4, (1, 2))
    assert found.crop == (16, 12, 8)
    later = {"model.backbone.partial": 1, "model.backbone.plan": "batched", "model.backbone.memory": "balanced"}
    found = planner(**later, **{"optim_wrapper.type": "AutocastOptimWrapper"}).ladders
    assert found.partial == (1, 2, 4, 8)
    assert found.execution == ("batched/balanced", "batched/small")
    assert found.precision == ("bfloat16",)
    # the smaller of both batches has to be parted
    batches = {"train_dataloader.batch_size": 64, "arch_dataloader.batch_size": 9}
    assert planner(**batches, **{"train_cfg.batch_parts": 2}).ladders.parts == (2, 4)


def test_bfloat16_is_not_offered_where_it_is_emulated(monkeypatch):
    def supported(including_emulation=True):
        return including_emulation

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert planner().ladders.precision == ("float32",)


def test_a_schedule_of_k_is_planned_at_its_last_stage():
    plan = planner(**{**ONE_CELL, "train_cfg.stages": [dict(begin=25, partial=2)]})
    assert plan.ladders.partial == (2,)
    assert plan.options(plan.ladders.first) == {}
    needs = plan.needs().exact(plan.ladders.first)
    last = planner(**{**ONE_CELL, "model.backbone.partial": 2})
    assert needs == last.needs().exact(last.ladders.first)
    with pytest.raises(UserError, match="begin=50 comes after the last of 50 epochs"):
        planner(**{"train_cfg.stages": [dict(begin=50, partial=2)]})


def test_another_plan_of_the_config_is_kept():
    plan = planner(**{**ONE_CELL, "model.backbone.plan": "auto", "model.backbone.memory": "balanced"})
    assert plan.ladders.execution == ("auto/balanced", "auto/small")
    # without CUDA it is the batched plan, and is counted so
    batched = planner(**{**ONE_CELL, "model.backbone.plan": "batched", "model.backbone.memory": "balanced"})
    assert plan.needs().exact(plan.ladders.first) == batched.needs().exact(batched.ladders.first)
    cfg = settings("cells_pc_darts_cifar10")
    table = Planner(cfg, adapter_of(cfg), Reserve(), plans=("batched", "triton"))
    assert table.ladders.execution[1:] == tuple(
        f"{p}/{m}" for p in ("batched", "triton") for m in ("fast", "balanced", "small")
    )


def test_exact_second_order_keeps_the_reference():
    exact = {"strategy.order": 2, "strategy.exact": True}

    def found(plan, memory="fast"):
        execution = {"model.backbone.plan": plan, "model.backbone.memory": memory}
        return planner("cells_darts_cifar10", **ONE_CELL, **exact, **execution)

    # "auto", the configs' own, is the reference then, in the search as here
    plans = [found("reference"), found("auto")]
    assert [plan.ladders.execution for plan in plans] == [("reference",), ("auto/fast",)]
    reference, auto = [plan.needs().exact(plan.ladders.first) for plan in plans]
    assert auto == reference
    first_order = planner("cells_darts_cifar10", **ONE_CELL, **{"strategy.order": 1})
    assert reference.peak > first_order.needs().exact(first_order.ladders.first).peak
    for refused, why in (
        (found("batched"), "plan='batched' can't be differentiated"),
        (found("auto", "small"), "memory='small'"),
    ):
        with pytest.raises(UserError, match=why):
            refused.needs().exact(refused.ladders.first)


WITHOUT_TRITON = """
import sys
sys.modules["triton"] = None
from tests.search.engine.test_memory_plan import needs_of_the_triton_plan
print(needs_of_the_triton_plan())
"""


def needs_of_the_triton_plan():
    # two cells of stride 1 and 2
    cfg = settings("cells_pc_darts_cifar10", **{"model.backbone.nodes": 1})
    plan = Planner(cfg, adapter_of(cfg), Reserve(), plans=("triton",))
    first = plan.ladders.first
    return [plan.needs().exact(replace(first, execution=f"triton/{memory}")).peak for memory in ("fast", "balanced")]


@pytest.mark.skipif(torch.cuda.is_available(), reason="the child process has no triton")
def test_the_triton_plan_is_counted_without_triton():
    done = subprocess.run([sys.executable, "-c", WITHOUT_TRITON], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == needs_of_the_triton_plan()


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
    options = plan.options(Setting("batched/small", "bfloat16", 2, 12, 4, 4))
    assert options == {
        "model.backbone.plan": "batched",
        "model.backbone.memory": "small",
        "model.backbone.partial": 4,
        "optim_wrapper.type": "AutocastOptimWrapper",
        # batches and learning rates stay
        "train_cfg.batch_parts": 2,
        # validation, which isn't parted, has at least 2 images
        "val_dataloader.batch_size": 2,
        "train_dataloader.dataset.pipeline.0.size": 12,
        "arch_dataloader.dataset.pipeline.0.size": 12,
    }
    cfg = with_options(plan.cfg, options)
    assert cfg.model.backbone.plan == "batched" and cfg.train_cfg.batch_parts == 2
    assert dict(modules_with(cfg.model, "memory")) == {"model.backbone.memory": "small"}
    # the config itself is left alone, and the other settings of its groups stay
    assert plan.cfg.model.backbone.partial == 2 and "batch_parts" not in plan.cfg.train_cfg
    assert cfg.train_cfg.max_epochs == 50 and cfg.optim_wrapper.clip_grad == dict(max_norm=5)
    # another batch, which a table looks at, is whole
    assert plan.options(Setting("reference", "float32", 1, 16, 2, 6)) == {
        "train_dataloader.batch_size": 6,
        "arch_dataloader.batch_size": 12,
        "val_dataloader.batch_size": 3,
    }


def faked(monkeypatch, peak):
    """Needs by a formula in place of a measured step."""

    def need_of(cfg, adapter):
        return Need(10, 1, 10, 20, {"weights": 5, "architecture": 10}, {"architecture": peak(cfg)})

    monkeypatch.setattr(memory_plan, "need_of", need_of)


def test_a_plan_is_written_and_read_back(monkeypatch, tmp_path):
    faked(monkeypatch, lambda cfg: 4000 // cfg.train_cfg.get("batch_parts", 1) // cfg.model.partial)
    monkeypatch.setattr(memory_plan, "reserve_here", lambda: Reserve(fixed=500, share=0.5))
    cfg = tiny.config(tmp_path, model={"partial": 1})
    assert stored(tmp_path, 5000) is None
    told = []
    plan = memory_plan.make(cfg, Adapter(), tmp_path, 5000, told.append)
    assert plan.setting == Setting(None, "float32", 2, None, 1, 4) == told[-1]
    assert plan.total == 3500 == sum(size for _, size in parts(plan))
    assert plan.options["train_cfg.batch_parts"] == 2
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


def test_a_batch_that_has_no_parts_takes_a_smaller_crop(monkeypatch):
    def pixels(cfg):
        images = -(-cfg.train_dataloader.batch_size // cfg.train_cfg.get("batch_parts", 1))
        return images * cfg.train_dataloader.dataset.pipeline[0].size ** 2

    faked(monkeypatch, pixels)

    def chosen(batch, limit):
        plan = planner("cells_pc_darts_cifar10", **{"train_dataloader.batch_size": batch})
        setting = plan.plan(limit).setting
        return setting.parts, setting.crop, setting.partial, setting.batch

    # 7 images in 2 parts hold 4 at most, and 3 parts aren't offered, nor parts of 1 image
    assert chosen(7, 4 * 16**2) == (2, 16, 4, 7)
    assert chosen(7, 4 * 16**2 - 1) == (1, 12, 4, 7)
    assert chosen(3, 3 * 16**2 - 1) == (1, 12, 4, 3)
    with pytest.raises(BudgetError, match=r"batch 3, crop 8"):
        chosen(3, 3 * 8**2 - 1)


def test_the_smallest_need_fits(monkeypatch, tmp_path, capsys):
    faked(monkeypatch, lambda cfg: 4 * 10**6 // cfg.train_cfg.get("batch_parts", 1) // cfg.model.get("partial", 1))
    cfg = tiny.config(tmp_path)
    plan = Planner(cfg, Adapter(), Reserve(fixed=10**6))
    with pytest.raises(BudgetError, match=r"smallest need is 1\.5 MB"):
        plan.plan(1_499_999)
    # precision changes nothing in this formula
    assert plan.plan(1_500_000).setting == Setting(None, "float32", 2, None, 4, 4)
    assert guarded(lambda: plan.plan(1)) == 3
    assert capsys.readouterr().err.startswith("error: --max-memory: nothing fits in")


def test_a_process_on_the_cpu_counts_what_it_holds_already():
    reserve = reserve_here()
    assert reserve.with_peak(10**9) > 1.05 * 10**9 + 50 * 2**20
