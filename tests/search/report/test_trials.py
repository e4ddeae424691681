"""The page of a search by trials, made from its files alone."""

import json
import random

import pytest

from search.report import charts, trials, write
from search.report.read import read
from search.space import OneOf, Space, save
from tests.search.report.test_page import read_page

SPACE = Space("neck", [OneOf("dpc/n1<-0", tuple(f"op{i}" for i in range(15)))])


def line(number, score, best):
    cost = {"params": 1000 + number, "macs": 2_000_000}
    return {"trial": number, "phase": "trial", "score": {"validation": score}, "best": best, "cost": cost, "seconds": 3.0,
            "images_per_second": 10.0, "architecture": {"dpc/n1<-0": "op3"}}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    scores = [50.0, None, 70.0, 60.0]
    rows = [line(i, score, best) for i, (score, best) in enumerate(zip(scores, [50.0, 50.0, 70.0, 70.0], strict=True))]
    (tmp_path / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    derived = {"params": 1002, "macs": 2_000_000, "input_size": [3, 8, 8], "convention": "macs", "counted": "macs"}
    summary = {"task": "segmentation", "strategy": "random search", "seconds": 12.0, "best_trial": 2, "validation": 70.0,
               "derived": derived, "space": {"size": 15}}  # fmt: skip
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    save(tmp_path / "architecture.json", {"neck": (SPACE, SPACE.sample(random.Random(0)))}, {"strategy": "random search"})
    return tmp_path


def test_trials_are_listed_from_the_best_on(folder):
    found = trials.section(read(folder))
    assert [row[0] for row in found["table"]] == ["2", "3", "0", "1"]
    assert found["table"][0][1:] == ("1,002", "2.00 M", "70.00", "3.0 s") and found["table"][-1][3] == "–"
    _page, text = read_page(write(folder))
    assert "Trials" in text and "4 trials" in text and "validation, best trial" in text
    assert "history.jsonl is missing" not in text and "can't be read" not in text and "beside random" not in text


def test_while_it_runs_the_order_is_that_of_the_trials(folder):
    (folder / "summary.json").unlink()
    assert [row[0] for row in trials.section(read(folder))["table"]] == ["0", "1", "2", "3"]


def test_without_a_score_there_is_no_chart():
    assert charts.trials([line(0, None, None)]) is None
    assert "best so far" in charts.trials([line(0, 1.0, 1.0), line(1, 2.0, 2.0)])


def test_many_trials_are_counted(folder):
    rows = [line(i, float(i), float(i)) for i in range(60)]
    (folder / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = trials.section(read(folder))
    assert len(found["table"]) == trials.MOST == 50 and found["more"] == 10
