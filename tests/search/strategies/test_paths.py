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


def test_what_depends_on_one_choice_has_its_turns_where_it_is_active():
    dependent = (
        OneOf("below", (1, 2, 3, 4), when=(("kind", "a"), ("kind", "c"))),
        OneOf("deeper", OPTIONS, when=(("below", 2),)),
        Ordinal("of an input", (1, 2, 3, 4, 5), when=(("inputs", 2),)),
        # of two others: turns in all steps
        OneOf("of two", (1, 2), when=(("kind", "a"), ("inputs", 0))),
    )
    space = Space("dependent", [CHOICES[0], CHOICES[2], *dependent])
    found = [fair_path(space, 3, step) for step in range(360)]
    assert all(space.contains(path) for path in found)
    for choice in dependent[:3]:
        values = [path[choice.name] for path in found if choice.name in path]
        assert len(values) == {"below": 240, "deeper": 60, "of an input": 180}[choice.name]
        rounds = [values[begin : begin + choice.count] for begin in range(0, len(values), choice.count)]
        assert all(len(set(one)) == choice.count for one in rounds)
    assert set(Counter(path["of two"] for path in found if "of two" in path)) == {1, 2}


def test_nas_fpn_has_every_ordered_pair_equally_often():
    """And every operation and level; every order of the outputs once in 5! steps, so each level at each place."""
    from backbones.nas_fpn import NASFPN
    from search.supernet import record

    space = record(lambda: NASFPN([4, 8, 16, 32, 64], channels=8, repeats=1)).space
    found = [fair_path(space, 0, step) for step in range(240)]
    assert all(space.contains(path) for path in found)
    for n in range(5, 12):
        pairs = [(path[f"nas_fpn/n{n}/a"], path[f"nas_fpn/n{n}/b|a={path[f'nas_fpn/n{n}/a']}"]) for path in found]
        for begin in range(0, 240 - n * (n - 1) + 1, n * (n - 1)):
            assert Counter(pairs[begin : begin + n * (n - 1)]) == {(a, b): 1 for a in range(n) for b in range(n) if a != b}
        assert set(Counter(path[f"nas_fpn/n{n}/op"] for path in found).values()) == {120}
    for n in (5, 6):
        assert Counter(path[f"nas_fpn/n{n}/level"] for path in found) == dict.fromkeys(range(3, 8), 48)
    for begin in (0, 120):
        orders = [path["nas_fpn/outputs"] for path in found[begin : begin + 120]]
        assert len(set(orders)) == 120
        assert all(Counter(order[place] for order in orders) == dict.fromkeys(range(3, 8), 24) for place in range(5))


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
