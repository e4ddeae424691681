"""Fair paths: every option has its turn, each path is a function of seed and step, and no choice follows another."""

from collections import Counter
from math import factorial

import pytest

from search.space import OneOf, Order, Ordinal, SomeOf, Space, Walk
from search.strategies import paths
from search.strategies.paths import fair_path

OPTIONS = ("a", "b", "c")
CHOICES = (
    OneOf("kind", ("none", *OPTIONS), relax_only=("none",)),
    Ordinal("width", (8, 16)),
    SomeOf("inputs", (0, 1, 2, 3), k=2),
    Order("order", ("x", "y", "z")),
    OneOf("same", OPTIONS),
    OneOf("below", (1, 2, 3, 4, 5), when=(("kind", "a"),)),
    Walk("walk", 3, {1: (1, 2), 2: (1, 2)}, (1,)),
)
SPACE = Space("every kind", CHOICES)
COUNTS = {"kind": 3, "width": 2, "inputs": 6, "order": factorial(3), "same": 3}
# 99.99 % of a chi-square, by degrees of freedom
BOUNDS = {2: 18.5, 3: 21.2, 4: 23.6, 8: 31.9}


def chi_square(counts, of):
    expected = counts.total() / of
    return sum((n - expected) ** 2 / expected for n in counts.values()) + (of - len(counts)) * expected


def test_every_round_has_every_value_once():
    found = [fair_path(SPACE, 3, step) for step in range(60)]
    assert all(SPACE.contains(path) for path in found)
    for name, count in COUNTS.items():
        rounds = [found[begin : begin + count] for begin in range(0, 60, count)]
        assert all(len({path[name] for path in one}) == count for one in rounds)
        assert set(Counter(path[name] for path in found).values()) == {60 // count}
    # of two inputs out of four every one is in half of the steps
    assert Counter(i for path in found for i in path["inputs"]) == dict.fromkeys(range(4), 30)


def test_a_path_is_a_function_of_seed_and_step():
    late = fair_path(SPACE, 3, 10_007)
    paths._permutation.cache_clear()
    assert fair_path(SPACE, 3, 10_007) == late
    assert len({str([fair_path(SPACE, seed, step) for step in range(6)]) for seed in range(20)}) == 20


def test_values_are_equally_likely_at_every_step_and_independent():
    steps, seeds = range(6), range(1500)
    drawn = [[fair_path(SPACE, seed, step) for seed in seeds] for step in steps]
    for at in drawn:
        assert chi_square(Counter(path["kind"] for path in at), 3) < BOUNDS[2]
        assert chi_square(Counter((path["kind"], path["same"]) for path in at), 9) < BOUNDS[8]
        # where it is active, whatever its turn
        assert chi_square(Counter(path["below"] for path in at if "below" in path), 5) < BOUNDS[4]
        assert chi_square(Counter(path["walk"] for path in at), 4) < BOUNDS[3]
    assert all(("below" in path) == (path["kind"] == "a") for at in drawn for path in at)


def test_what_has_too_many_values_is_drawn(monkeypatch):
    monkeypatch.setattr(paths, "MOST", 2)
    found = [fair_path(SPACE, 3, step) for step in range(600)]
    assert set(Counter(path["width"] for path in found).values()) == {300}
    # six draws are rarely six different subsets
    rounds = [found[begin : begin + 6] for begin in range(0, 600, 6)]
    assert sum(len({path["inputs"] for path in one}) == 6 for one in rounds) < 20
    assert chi_square(Counter(path["kind"] for path in found), 3) < BOUNDS[2]


@pytest.mark.parametrize("steps", [1, 7, 8, 23])
def test_counts_never_differ_by_more_than_one(steps):
    for name, count in COUNTS.items():
        counts = Counter(fair_path(SPACE, 5, step)[name] for step in range(steps))
        assert {*counts.values()} <= {steps // count, -(-steps // count)} and counts.total() == steps
