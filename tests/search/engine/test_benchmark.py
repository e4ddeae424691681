import json
import math
from pathlib import Path

import pytest
from mmengine.config import Config

from search.engine.benchmark import Protocol, _figures, _summarise, differences, ordered, require_same_test
from search.engine.benchmark_file import Entry
from search.engine.benchmark_parts import architecture_of, write
from search.engine.benchmark_table import markdown, origin
from search.engine.errors import UserError
from search.engine.history import finite
from search.space import load, save

ROOT = Path(__file__).resolve().parents[3]
ARCHS = ROOT / "backbones" / "archs"
DIGITS = ROOT / "configs" / "classification" / "cells_digits_cpu_retrain.py"


@pytest.mark.parametrize("lower, names", [(False, "cabd"), (True, "bacd")])
def test_the_best_score_is_first_and_what_is_no_number_last(lower, names):
    means = {"a": 2.0, "b": 1.0, "c": 3.0, "d": math.nan}
    rows = [{"name": name, "score": {"mean": mean}} for name, mean in means.items()]
    assert "".join(row["name"] for row in ordered(rows, lower)) == names


def test_recipes_differ_in_values_and_in_keys_that_one_lacks():
    found = differences({"a": {"lr": 0.1, "epochs": 3, "decay": None}, "b": {"lr": 0.2, "epochs": 3, "clip": 5}})
    assert found == {"lr": {"a": 0.1, "b": 0.2}, "clip": {"a": None, "b": 5}}


@pytest.mark.parametrize(
    "provenance, words",
    [
        ({"strategy": "random", "seed": 3}, "random, seed 3"),
        ({"file": str(ARCHS / "darts_v2.json"), "licence": "MIT"}, "published, darts_v2"),
        ({"file": "/home/me/archs/darts_v2.json", "genotype": {}}, "from archs/darts_v2.json"),
        ({"file": "mine.json"}, "from mine.json"),
        ({"file": "x/architecture.json", "strategy": "DARTS"}, "searched by DARTS"),
        ({"file": "x/architecture.json", "strategy": "DARTS", "seed": 1, "score": 0.5}, "searched by DARTS, seed 1"),
        (
            {"file": "a.json", "strategy": "PC-DARTS", "seed": 0, "task": "detection", "config": "configs/a_b.py"},
            "searched by PC-DARTS, detection, a_b, seed 0",
        ),
        # drawn by a search, not by a benchmark
        ({"file": "a.json", "strategy": "random", "seed": 0}, "searched by random, seed 0"),
    ],
)
def test_where_an_architecture_is_from_in_words(provenance, words):
    assert origin(provenance) == words


def test_the_page_has_every_entry_and_a_dash_for_a_score_that_is_none():
    row = {
        "name": "a|b",
        "config": "configs/x_retrain.py",
        "parts": [],
        "published": ["MobileNetV2 0.5 @160"],
        "runs": [{"test": None}, {"test": 0.25}],
        "score": {"mean": None, "std": None},
        "metrics": {"mAP": None, "mAP_50": 0.5},
        "params": 1_500_000,
        "macs": 2_000_000,
        "latency": {"median": 1.25, "iqr": 0.5},
        "train_seconds": 60.4,
        "peak_memory_mib": 512.0,
        "input_size": [3, 64, 48],
    }
    result = {
        "task": "detection",
        "score": {"key": "mAP", "rule": "greater"},
        "test": {"task": "detection", "test_dataloader.dataset.folder": "val"},
        "seeds": [0, 1, 2],
        "options": [],
        "entries": [row],
        "tests": [],
        "recipes": {},
        "counted": "multiply-adds",
        "hardware": [{"hardware": "2 CPU cores", "threads": 1}],
        "latency": {"batch_size": 1, "device": "cpu: x", "threads": 2, "clock": "wall"},
    }
    page = markdown(result, plot=False)
    cells = [r"a\|b", "–", "–, 0.25", "1.5", "2", "1.25 ± 0.25", "60", "512", "3×64×48", "published, MobileNetV2 0.5 @160"]
    assert f"| {' | '.join(cells)} |" in page.splitlines()
    assert "pareto.svg" not in page and "with 2 threads" in page and r"| a\|b | – | 0.5 |" in page
    assert "Pairs aren't tested for differences: that takes 4 seeds." in page
    assert "Pairs aren't tested" not in markdown(result | {"seeds": [0, 1, 2, 3]}, plot=False)
    # what is left out of a recipe isn't claimed to be equal
    assert "by the same schedule, data and augmentation." in page and "losses and their initial weights are each" in page


def trained(*scores):
    """Figures of trainings with these test scores."""
    result = {"metrics": {"top1": 0.0}, "validation": 1.0, "seconds": 1.0, "cpu_seconds": 1.0, "images": 8}
    summary = {"peak_memory_mib": 1.0, "epochs": 1, "hardware": "x", "threads": 1, "versions": {}}
    summary["derived"] = {"params": 1, "macs": 1, "activations": 1, "input_size": [3, 8, 8], "counted": "multiply-adds"}
    results = [{**result, "test": score, "metrics": {"top1": score}} for score in scores]
    return _figures(range(len(scores)), results, [summary] * len(scores)), [summary] * len(scores)


def test_scores_of_which_one_is_no_number_still_leave_the_table(tmp_path):
    found, _ = trained(0.5, math.nan, 0.7)
    assert math.isnan(found["score"]["mean"]) and math.isnan(found["score"]["std"]) and found["score"]["n"] == 3
    text = json.dumps(finite(found), allow_nan=False)
    assert json.loads(text)["score"] == {"n": 3, "mean": None, "std": None}


@pytest.mark.parametrize("seeds", [3, 4])
def test_pairs_are_tested_from_four_seeds_on(tmp_path, seeds):
    entries = tuple(Entry(name=name, config=str(DIGITS)) for name in "abc")
    protocol = Protocol(entries=entries, work_dir=tmp_path, seeds=tuple(range(seeds)))
    rows, summaries = [], {}
    for name, scores in (("a", range(seeds)), ("b", range(10, 10 + seeds)), ("c", [math.nan, *range(seeds - 1)])):
        figures, summaries[name] = trained(*map(float, scores))
        rows.append({"name": name} | figures)
    configs = {entry.name: protocol.run(entry, 0, None).load() for entry in entries}
    result = finite(_summarise(protocol, configs, rows, summaries))
    assert [row["name"] for row in result["entries"]] == ["b", "a", "c"]
    verdicts = {(test["a"], test["b"]): test["verdict"] for test in result["tests"]}
    if seeds == 3:
        assert verdicts == {}
    else:
        # 2 of C(8, 4) = 70 divisions
        assert verdicts["b", "a"] == "better (p=0.0286)" and "one of the values is nan" in verdicts["b", "c"]


def test_the_command_lines_options_win_over_an_entrys(tmp_path):
    own = ("train_cfg.max_epochs=7", "model.backbone.channels=4")
    entry = Entry(name="a", config=str(DIGITS), options=own)
    protocol = Protocol(entries=(entry,), work_dir=tmp_path, options=("train_cfg.max_epochs=1",))
    cfg = protocol.run(entry, 0, None).load()
    assert cfg.train_cfg.max_epochs == 1 and cfg.model.backbone.channels == 4


def test_a_benchmarks_own_file_says_where_its_parts_were_from(tmp_path):
    entry = Entry(name="a", config=str(DIGITS), arch=(str(ARCHS / "darts_v2.json"),))
    drawn = Entry(name="b", config=str(DIGITS), random=3)
    cfg = Config.fromfile(DIGITS)
    for first, words in ((entry, "published, darts_v2"), (drawn, "random, seed 3")):
        file = write(tmp_path / f"{first.name}.json", architecture_of(first, cfg))
        again = Entry(name="c", config=str(DIGITS), arch=(str(file),))
        # and again, of a benchmark of that benchmark's file
        twice = write(tmp_path / "twice.json", architecture_of(again, cfg))
        for path in (file, twice):
            ((_, _, provenance),) = architecture_of(Entry(name="d", config=str(DIGITS), arch=(str(path),)), cfg).values()
            assert origin(provenance) == words


def test_a_genotype_of_ones_own_is_not_called_published(tmp_path):
    part = load(ARCHS / "darts_v2.json").parts["backbone"]
    # as tools/genotype.py writes it
    save(tmp_path / "mine.json", {"backbone": (part.space, part.architecture)}, {"genotype": {}})
    entry = Entry(name="a", config=str(DIGITS), arch=(str(tmp_path / "mine.json"),))
    ((_, _, provenance),) = architecture_of(entry, Config.fromfile(DIGITS)).values()
    assert origin(provenance) == f"from {tmp_path.name}/mine.json"


LOAD, PACK = dict(type="LoadAnnotations"), dict(type="mmseg.PackSegInputs")
PIPELINE = [dict(type="LoadImageFromFile"), dict(type="mmseg.Resize", scale=(256, 256)), LOAD, PACK]


def with_pipeline(pipeline):
    dataset = dict(type="RepeatDataset", dataset=dict(type="search.Scenes", pipeline=pipeline))
    return Config(dict(task="segmentation", default_scope="mmseg", test_dataloader=dict(dataset=dataset)))


@pytest.mark.parametrize(
    "pipeline, words",
    [
        # the image alone is changed, before its labels are read
        ([PIPELINE[0], dict(type="mmseg.Resize", scale=(64, 64)), LOAD, PACK], None),
        ([PIPELINE[0], LOAD, PACK], None),
        # another way to say the same
        ([*PIPELINE[:2], dict(type="mmseg.LoadAnnotations"), dict(type="PackSegInputs", meta_keys=("img_path",))], None),
        ([*PIPELINE[:3], dict(type="mmseg.Resize", scale=(64, 64)), PACK], r"Resize\(scale=\[64, 64\]\)"),
        ([*PIPELINE[:2], dict(type="LoadAnnotations", reduce_zero_label=True), PACK], "reduce_zero_label=True"),
        ([dict(type="LoadImageFromFile"), LOAD, PIPELINE[1], PACK], r"Resize\(scale=\[256, 256\]\)"),
        ([*PIPELINE[:2], dict(type="Compose", transforms=[LOAD, dict(type="mmseg.Rerange")]), PACK], "Rerange"),
    ],
)
def test_what_is_done_to_labels_belongs_to_the_test(pipeline, words):
    configs = {"a": with_pipeline(PIPELINE), "b": with_pipeline(pipeline)}
    if words is None:
        require_same_test(configs)
    else:
        with pytest.raises(UserError, match=rf"'a' and 'b' have no test in common: .*dataset\.labels is .*{words}"):
            require_same_test(configs)
