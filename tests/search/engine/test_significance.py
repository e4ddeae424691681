import math
import random

import pytest
from scipy.stats import mannwhitneyu

from search.engine.benchmark_table import SEEDS_OF_TESTS
from search.engine.significance import LEVEL, all_pairs, compare, describe, mann_whitney


def test_by_hand():
    # 3 against 3, completely apart: one of C(6, 3) = 20 divisions on each side
    assert mann_whitney([4, 5, 6], [1, 2, 3]) == (9.0, pytest.approx(0.1))
    assert mann_whitney([1, 2, 3], [4, 5, 6]) == (0.0, pytest.approx(0.1))
    # 3 against 6: 2 / C(9, 3) = 2 / 84
    assert mann_whitney([7, 8, 9], [1, 2, 3, 4, 5, 6])[1] == pytest.approx(2 / 84)


def test_ties_by_hand():
    # pooled 1, 1, 2: the midranks are 1.5, 1.5, 3; a = {2} is one of the three equal draws, and the only one
    # so far out
    assert mann_whitney([2], [1, 1]) == (2.0, pytest.approx(2 / 3))
    # everything equal: every division is as far out as this one
    assert mann_whitney([1, 1, 1], [1, 1]) == (3.0, 1.0)


def test_enumeration_equals_scipy_where_both_hold():
    rng = random.Random(0)
    for n, m in ((1, 5), (3, 6), (4, 4)):
        a, b = [rng.random() for _ in range(n)], [rng.random() for _ in range(m)]
        exact = mannwhitneyu(a, b, alternative="two-sided", method="exact")
        assert mann_whitney(a, b) == (exact.statistic, pytest.approx(exact.pvalue))
        # a tie far below moves no other rank: p must stay what enumerating gives, between its neighbours
        tied = mann_whitney([*a, -1.0], [*b, -1.0])[1]
        low = mann_whitney([*a, -1.0], [*b, -2.0])[1]
        high = mann_whitney([*a, -2.0], [*b, -1.0])[1]
        assert min(low, high) - 0.1 <= tied <= max(low, high) + 0.1


def test_level_holds_under_the_null():
    rng = random.Random(1)
    # integers, so that there are ties: an exact test is wrong in at most 5 % of 2,000 (+ 3 standard
    # deviations)
    wrong = sum(
        mann_whitney([rng.randrange(6) for _ in range(3)], [rng.randrange(6) for _ in range(6)])[1] < 0.05 for _ in range(2000)
    )
    assert wrong / 2000 < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 2000)


def test_verdicts():
    six = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert compare("a", [7, 8, 9], "b", six).verdict == "better (p=0.0238)"
    assert compare("a", [-1, -2, -3], "b", six).verdict == "worse (p=0.0238)"
    assert compare("a", [2.5, 3.5, 9], "b", six).verdict.startswith("no difference shown (p=")
    # three against three can't reach 0.05 however far apart: that must be said
    verdict = compare("a", [7, 8, 9], "b", [1, 2, 3]).verdict
    assert verdict.startswith("no difference shown (p=0.1)") and "cannot show" in verdict


def test_groups():
    assert describe([1.0, 2.0, 3.0]) == {"n": 3, "mean": 2.0, "std": 1.0}
    assert describe([4.0]) == {"n": 1, "mean": 4.0, "std": None}
    assert describe([]) == {"n": 0, "mean": None, "std": None}
    for values in ([1.0, math.nan], [math.nan, math.nan, 2.0], [math.inf, 1.0], [math.inf, -math.inf]):
        found = describe(values)
        assert found["n"] == len(values) and math.isnan(found["mean"]) and math.isnan(found["std"])
    assert math.isnan(describe([math.nan])["mean"]) and describe([math.nan])["std"] is None
    pairs = all_pairs({"a": [1.0], "b": [], "c": [2.0], "d": [3.0]})
    assert [(pair["a"], pair["b"]) for pair in pairs] == [("a", "c"), ("a", "d"), ("c", "d")]
    pairs = all_pairs({"a": [1.0], "c": [2.0], "d": [3.0]}, apart=["c", "d"])
    assert [(pair["a"], pair["b"]) for pair in pairs] == [("a", "c"), ("a", "d")]


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="at least one"):
        mann_whitney([], [1.0])
    with pytest.raises(ValueError, match="nan"):
        mann_whitney([math.nan], [1.0])


def test_large_groups_with_ties():
    # 20 against 20: C(40, 20) divisions, far too many to list; all below all, so one division on each side
    u, p = mann_whitney([1.0] * 20, [0.0] * 20)
    assert (u, p) == (400.0, pytest.approx(2 / math.comb(40, 20)))
    assert mann_whitney([1.0] * 20, [1.0] * 20) == (200.0, 1.0)


def test_a_test_that_cannot_be_computed_says_why():
    found = compare("a", [math.nan, 1.0], "b", [2.0])
    assert found.p is found.u is None
    assert found.verdict.startswith("not computed: ") and "nan" in found.verdict


def test_pairs_with_a_value_that_is_no_number_beside_pairs_without():
    found = all_pairs({"a": [1.0, 2.0], "b": [math.nan, 3.0], "c": [5.0, 6.0]})
    assert [pair["p"] is None for pair in found] == [True, False, True]
    assert all(("one of the values is nan" in pair["verdict"]) == (pair["p"] is None) for pair in found)


def test_a_benchmark_is_tested_from_the_number_of_seeds_on_that_can_show_a_difference():
    for seeds, shown in ((SEEDS_OF_TESTS - 1, False), (SEEDS_OF_TESTS, True)):
        low = list(range(seeds))
        assert (mann_whitney([value + 100 for value in low], low)[1] < LEVEL) == shown


def test_p_is_never_below_the_least_that_the_verdict_states():
    # seen in use: one value above three, two of which tie
    verdict = compare("a", [99.2], "b", [98.6, 98.6, 98.9]).verdict
    assert verdict.startswith("no difference shown (p=0.5)") and "at least 0.5" in verdict
