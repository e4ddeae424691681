"""`--max-memory` and the table of plan_memory.py on segmentors and detectors, on embedded scenes."""

import json
from dataclasses import replace
from functools import partial

import pytest

pytest.importorskip("mmseg")
pytest.importorskip("mmdet")

from search.cost.planner import Reserve
from search.engine import config, memory_plan
from search.engine.fake_step import need_of
from search.engine.memory_plan import Planner, with_options
from search.engine.run import adapter_of
from search.engine.searchable import modules_with
from tests.tasks.real_batches import RealBatches
from tests.tools import test_auto_deeplab, test_detection, test_segmentation
from tests.tools.test_auto_fpn import RETINANET

CELLS = "cells_pc_darts_scenes_cpu"
SEARCHED = {
    "segmentation": partial(test_segmentation.write, base=CELLS, only=test_segmentation.ONLY_SEARCH),
    "detection": partial(test_detection.write, base=CELLS, more=test_detection.CELLS + test_detection.ONLY_SEARCH),
}
LISTED = {
    "auto_deeplab": test_auto_deeplab.write,
    "auto_fpn": partial(test_detection.write, base="auto_fpn_pc_darts_scenes_cpu", more=RETINANET + test_detection.ONLY_SEARCH),
}


@pytest.mark.slow
@pytest.mark.parametrize("task", SEARCHED)
def test_a_search_is_made_to_fit(tool, task, tmp_path, cache, one_thread, monkeypatch, capsys):
    monkeypatch.setattr(memory_plan, "reserve_here", lambda: Reserve(fixed=10**6))
    path = SEARCHED[task](tmp_path)
    # steps that need more than validation
    batches = [f"{name}_dataloader.batch_size={size}" for name, size in (("train", 4), ("arch", 4), ("val", 3))]
    options = [*batches, "model.backbone.partial=1", "model.backbone.nodes=3"]
    cfg = config.load(path, options)
    adapter = adapter_of(cfg)
    prepared = adapter.prepare(cfg, tmp_path / "p")
    planner = Planner(prepared, adapter, Reserve(fixed=10**6))
    needs, first = planner.needs(), planner.ladders.first
    limit = needs.exact_bytes(replace(first, execution=planner.ladders.execution[-1]))
    assert limit < needs.exact_bytes(first)
    limits = ("--max-memory", f"{limit}B")
    assert tool("search")(path, "--work-dir", tmp_path / "w", *limits, "--cfg-options", *options) == 0
    assert "Memory plan for" in capsys.readouterr().out
    plan = json.loads((tmp_path / "w" / memory_plan.NAME).read_text())
    assert plan["total"] <= limit and plan["options"]
    # only time is given up
    assert plan["setting"]["execution"] != plan["own"]["execution"]
    assert {**plan["setting"], "execution": None} == {**plan["own"], "execution": None}
    real = need_of(with_options(prepared, plan["options"]), RealBatches(), fake=False)
    # the pipelines' photometric distortion gives float32 images, which are counted as bytes: of both batches, 4 images each
    images = 2 * 4 * (3 * 64 * 48) * (4 - 1)
    assert plan["need"]["peaks"]["architecture"] == pytest.approx(real.peaks["architecture"], rel=0.01, abs=images)
    assert (tmp_path / "w" / "architecture.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", LISTED)
def test_the_table_needs_no_images(tool, name, tmp_path, cache, one_thread, monkeypatch, capsys):
    path = LISTED[name](tmp_path)
    with monkeypatch.context() as nowhere:
        # a file is no folder: scenes can't be drawn
        (tmp_path / "file").write_text("")
        nowhere.setenv("VISNAS_CACHE", str(tmp_path / "file"))
        only = ("--precision", "float32", "--execution", "reference", "batched/small", "--limits", "700MB", "--json")
        assert tool("plan_memory")(path, *only) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["execution"] for row in rows] == ["reference", "batched/small"]
    assert rows[0]["peak"] > rows[1]["peak"]
    cfg = config.load(path)
    prepared = adapter_of(cfg).prepare(cfg, tmp_path / "p")
    reference = with_options(prepared, {key: "reference" for key, _ in modules_with(prepared.model, "plan")})
    # of the classes that the data have
    assert rows[0]["peak"] == need_of(reference, adapter_of(cfg)).peak
