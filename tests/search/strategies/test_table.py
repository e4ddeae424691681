"""A table-backed space of one's own, and NAS-Bench-Macro (6,561 trained networks)."""

import itertools
import os
from pathlib import Path

import pytest

from search.space import Architecture, OneOf, Ordinal, Space
from search.strategies import RandomSearch, Table, nas_bench_macro, regret_curve

DATA = Path(os.environ.get("VISNAS_DATA", Path(__file__).resolve().parents[4] / "shared" / "data"))
MACRO = DATA / "nas-bench-macro_cifar10.json"
needs_macro = pytest.mark.skipif(not MACRO.exists(), reason=f"{MACRO} is absent (set VISNAS_DATA)")


def own_table():
    """accuracy = width + 10 for a convolution: 8 architectures, optimum 14."""
    space = Space("own", [OneOf("op", ("conv", "pool")), Ordinal("width", (1, 2, 3, 4))])
    rows = {a: {"acc": a["width"] + 10.0 * (a["op"] == "conv"), "macs": a["width"]} for a in space.enumerate()}
    return Table(space, rows)


class Enumerating:
    """A strategy of one's own: anything that has ask and tell."""

    def __init__(self, space):
        self.left = list(space.enumerate())
        self.told = []

    def ask(self):
        return self.left.pop(0)

    def tell(self, architecture, score):
        self.told.append(score)


def test_own_table_and_own_strategy():
    table = own_table()
    strategy = Enumerating(table.space)
    curve = regret_curve(strategy, table, "acc", 8)
    expected, best = [], 0.0
    for score in strategy.told:
        best = max(best, score)
        expected.append(14.0 - best)
    assert sorted(strategy.told) == [1, 2, 3, 4, 11, 12, 13, 14]
    assert curve == expected
    assert table.best("macs") == 4


def test_curve_ends_when_the_space_does():
    table = own_table()
    curve = regret_curve(RandomSearch(table.space, 0), table, "acc", 20)
    assert len(curve) == 8
    assert curve[-1] == 0.0
    assert all(a >= b for a, b in itertools.pairwise(curve))


def test_expected_regret_of_random_search_has_a_closed_form():
    table = own_table()
    # without replacement: the mean of the first draw over all architectures is 15/2, so the mean regret is
    # 6.5
    n = 2000
    first = sum(regret_curve(RandomSearch(table.space, s), table, "acc", 1)[0] for s in range(n)) / n
    # standard deviation 5.12 -> standard error 0.115
    assert first == pytest.approx(6.5, abs=0.46)


def test_users_mistakes_are_named(tmp_path):
    table = own_table()
    some = next(iter(table.rows))
    with pytest.raises(ValueError, match="latency"):
        table.score(some, "latency")
    with pytest.raises(ValueError, match="no row"):
        table.score(Architecture({"op": "other", "width": 1}), "acc")
    with pytest.raises(ValueError, match="no rows"):
        Table(table.space, {})
    with pytest.raises(ValueError):
        Table(table.space, {Architecture({"op": "conv", "width": 9}): {"acc": 1.0}})
    with pytest.raises(ValueError, match="evaluations=0"):
        regret_curve(RandomSearch(table.space, 0), table, "acc", 0)
    with pytest.raises(ValueError, match=r"absent\.json"):
        nas_bench_macro(tmp_path / "absent.json")
    (tmp_path / "torn.json").write_text("{")
    with pytest.raises(ValueError, match=r"torn\.json"):
        nas_bench_macro(tmp_path / "torn.json")


@pytest.mark.realdata
@needs_macro
def test_random_search_on_nas_bench_macro():
    table = nas_bench_macro(MACRO)
    assert table.space.size == len(table.rows) == 3**8
    assert table.best("mean_acc") == pytest.approx(93.12666, abs=1e-4)
    curves = [regret_curve(RandomSearch(table.space, seed), table, "mean_acc", 200) for seed in range(10)]
    ranked = sorted((table.score(a, "mean_acc") for a in table.rows), reverse=True)
    for n in (1, 10, 100, 200):
        mean = sum(curve[n - 1] for curve in curves) / 10
        expected, deviation = expected_regret(ranked, n)
        assert abs(mean - expected) < 4 * deviation / 10**0.5, n


def expected_regret(ranked, n):
    """Mean and standard deviation of the regret after n draws without replacement from the ranked values."""
    total, mean, square, none_better = len(ranked), 0.0, 0.0, 1.0
    for place, value in enumerate(ranked):
        # the best of n is at ``place``: none of the better ones were drawn, this one was
        left = total - place
        if left < n:
            break
        chance = none_better * n / left
        regret = ranked[0] - value
        mean, square = mean + chance * regret, square + chance * regret**2
        none_better *= 1 - n / left
    return mean, (square - mean**2) ** 0.5
