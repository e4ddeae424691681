"""Scores with a one-shot supernet's weights beside those of trainings."""

import json
import shutil
import time
from pathlib import Path

import pytest
from mmengine.config import Config

from search.engine import UserError, search
from search.engine.config import load as load_config
from search.engine.correlation import rank_correlations
from search.engine.one_shot_ranks import _read_splits_of, ranks, supernet_scores
from search.engine.splits import save
from search.space import Architecture
from tests.search.engine import tiny
from tests.search.engine.test_one_shot import config, lines
from tools import rank

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    work_dir = tmp_path_factory.mktemp("ranks") / "work"
    search(config(work_dir, strategy=dict(type="SinglePath", trials=7, population=3, sample=2, batches=3)))
    return work_dir


def comparison(folder, scored, change=lambda score: score):
    rows = [
        {"group": "random architectures", "seed": i, "architecture": {"backbone": architecture}, "test": change(score)}
        for i, (architecture, score) in enumerate(scored)
    ]
    path = folder / "compare.json"
    path.write_text(json.dumps({"runs": rows}))
    return path


def scored_by(work_dir):
    return [(row["architecture"], row["score"]["validation"]) for row in lines(work_dir) if "trial" in row]


def test_scores_are_those_of_the_search_which_stays_as_it_is(searched):
    before = {path: path.stat().st_mtime_ns for path in searched.rglob("*")}
    rows = scored_by(searched)
    assert supernet_scores(searched, [Architecture.from_json(a) for a, _ in rows]) == [score for _, score in rows]
    assert {path: path.stat().st_mtime_ns for path in searched.rglob("*")} == before


def test_trainings_that_agree_and_that_disagree(searched, tmp_path, monkeypatch):
    # as if all were scored within one second
    monkeypatch.setattr(time, "strftime", lambda *args: "20260101_000000")
    rows = scored_by(searched)
    assert len({score for _, score in rows}) > 2
    same = ranks([searched], comparison(tmp_path, rows))
    assert same["searches"][0]["kendall"]["value"] == pytest.approx(1)
    assert [row["supernet"] for row in same["architectures"]] == [[score] for _, score in rows]
    contrary = ranks([searched, searched], comparison(tmp_path, rows, lambda score: 100 - score))
    assert [found["kendall"]["value"] for found in contrary["searches"]] == pytest.approx([-1, -1])


def test_a_search_that_was_killed_is_refused(searched, tmp_path):
    # killed while it scored, or trained: the checkpoint is there
    shutil.copytree(searched, tmp_path / "killed")
    (tmp_path / "killed" / "summary.json").unlink()
    with pytest.raises(UserError, match=r"killed isn't finished \(no summary.json\): go on with it"):
        supernet_scores(tmp_path / "killed", [Architecture.from_json(a) for a, _ in scored_by(searched)])


def test_a_search_is_scored_from_any_folder_and_after_it_was_moved(tmp_path, monkeypatch, capsys):
    options = [
        "train_cfg.type=search.SinglePathLoop",
        *("train_cfg.max_epochs=1", "splits.per_class=10"),
        *("model.backbone.channels=2", "model.backbone.layers=3", "model.backbone.nodes=2"),
    ]
    cfg = load_config(ROOT / "configs" / "classification" / "cells_digits_cpu_retrain.py", options)
    cfg.strategy = dict(type="SinglePath", trials=5, population=3, sample=2, batches=2)
    monkeypatch.chdir(tmp_path)
    # named from the folder that one is in
    cfg.work_dir, cfg.seed = "runs/work", 0
    search(cfg)
    rows = scored_by(tmp_path / "runs" / "work")
    good = comparison(tmp_path, rows)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    moved = (tmp_path / "runs" / "work").rename(tmp_path / "moved")
    assert rank.main(["../moved", "--trained", str(good), "--json", "ranks.json"]) == 0
    assert "kendall" in capsys.readouterr().out
    found = json.loads(Path("ranks.json").read_text())["architectures"]
    assert [row["supernet"] for row in found] == [[row["trained"]] for row in found] and len(found) == len(rows)

    # the lists are those of the search, or nothing is scored
    path = moved / "splits" / "validation.txt"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    assert rank.main([str(moved), "--trained", str(good)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "validation.txt was changed since it was made" in error


def test_lists_that_have_no_sha_in_the_config_have_it_in_the_folder(tmp_path):
    folder = tmp_path / "work" / "splits"
    save(folder, {"train": ["a", "b"], "validation": ["c"]}, {})
    # as tasks/segmentation writes them
    dataset = dict(type="search.Scenes", ann_file="/before/work/splits/train.txt")
    cfg = Config(dict(splits=dict(train=0.9), train_dataloader=dict(dataset=dict(type="RepeatDataset", dataset=dataset))))
    _read_splits_of(cfg, tmp_path / "work")
    assert cfg.train_dataloader.dataset.dataset.ann_file == str(folder / "train.txt")
    (folder / "train.txt").write_text("a\n")
    with pytest.raises(ValueError, match="was changed"):
        _read_splits_of(cfg, tmp_path / "work")
    (folder / "splits.json").unlink()
    with pytest.raises(UserError, match=r"splits\.json doesn't say"):
        _read_splits_of(cfg, tmp_path / "work")


def test_tau_by_hand():
    # five of six pairs in the same order
    found = rank_correlations([1, 2, 3, 4], [1, 3, 2, 4], 0)["kendall"]
    assert found["value"] == pytest.approx(4 / 6)
    assert -1 <= found["interval"][0] < found["value"] < found["interval"][1] <= 1


def test_mistakes_have_a_sentence(searched, tmp_path):
    rows = scored_by(searched)
    good = comparison(tmp_path, rows)
    with pytest.raises(UserError, match="holds no one-shot search"):
        ranks([tmp_path], good)
    with pytest.raises(UserError, match=r"0 trained in group 'found'.*'random architectures'"):
        ranks([searched], good, "found")
    with pytest.raises(UserError, match="isn't a comparison's"):
        ranks([searched], tmp_path / "absent.json")
    other = [({"elsewhere": "a", **architecture}, score) for architecture, score in rows]
    with pytest.raises(UserError, match="another space"):
        ranks([searched], comparison(tmp_path, other))
    tiny_search = tmp_path / "gradients"
    search(tiny.config(tiny_search))
    with pytest.raises(UserError, match="another kind"):
        ranks([tiny_search], comparison(tmp_path, rows))
