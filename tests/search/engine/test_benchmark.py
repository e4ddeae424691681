import math

import pytest

from search.engine.benchmark import differences, ordered
from search.engine.benchmark_table import markdown, origin


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
        ({"file": "archs/darts_v2.json", "licence": "MIT"}, "published, darts_v2"),
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
        "seeds": [0, 1],
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
