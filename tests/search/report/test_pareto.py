import random

import pytest

from search.report.pareto import front, pareto


def dominates(a, b, lower):
    """Whether point a (cost, score) is at least as good as b in both, and better in one."""
    sign = -1 if lower else 1
    return a != b and a[0] <= b[0] and sign * a[1] >= sign * b[1]


@pytest.mark.parametrize("lower", [False, True])
def test_the_front_is_what_no_point_dominates(lower):
    draw = random.Random(0)
    for _ in range(300):
        points = [(draw.randrange(6), draw.randrange(6)) for _ in range(draw.randrange(1, 12))]
        found = front(points, lower)
        assert set(found) == {i for i, p in enumerate(points) if not any(dominates(q, p, lower) for q in points)}
        assert [points[i][0] for i in found] == sorted(points[i][0] for i in found)


def row(name, score, macs, std=None):
    return {"name": name, "score": {"mean": score, "std": std}, "macs": macs}


PANELS = ((("macs",), 1e6, "multiply-adds, M"), (("latency", "median"), 1.0, "latency, ms"))


def test_every_entry_is_named_and_the_same_rows_give_the_same_file():
    rows = [row("a & b", 90.0, 1e6, 1.5), row("c", 95.0, 5e7)]
    svg = pareto(rows, PANELS, "top1", lower=False)
    assert svg.startswith("<?xml") and "a &amp; b" in svg and ">c<" in svg
    # one panel: nothing has a latency
    assert "multiply-adds, M" in svg and "latency, ms" not in svg
    assert pareto(rows, PANELS, "top1", lower=False) == svg


def test_without_a_score_there_is_no_plot():
    assert pareto([row("a", None, 1e6)], PANELS, "top1", lower=False) is None
