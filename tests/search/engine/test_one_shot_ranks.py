"""Scores with a one-shot supernet's weights beside those of trainings."""

import json

import pytest

from search.engine import UserError, search
from search.engine.correlation import rank_correlations
from search.engine.one_shot_ranks import ranks, supernet_scores
from search.space import Architecture
from tests.search.engine import tiny
from tests.search.engine.test_one_shot import config, lines


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


def test_trainings_that_agree_and_that_disagree(searched, tmp_path):
    rows = scored_by(searched)
    assert len({score for _, score in rows}) > 2
    same = ranks([searched], comparison(tmp_path, rows))
    assert same["searches"][0]["kendall"]["value"] == pytest.approx(1)
    assert [row["supernet"] for row in same["architectures"]] == [[score] for _, score in rows]
    contrary = ranks([searched, searched], comparison(tmp_path, rows, lambda score: 100 - score))
    assert [found["kendall"]["value"] for found in contrary["searches"]] == pytest.approx([-1, -1])


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
