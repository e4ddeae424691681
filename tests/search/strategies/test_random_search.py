import json
import math
import random
from collections import Counter

import pytest

from search.space import OneOf, SomeOf, Space
from search.strategies import Exhausted, RandomSearch, random_architectures


def small():
    """12 architectures: the kernel size matters to a convolution only."""
    return Space(
        "small",
        [
            OneOf("op", ("conv", "pool", "skip")),
            OneOf("kernel", (3, 5), when=(("op", "conv"),)),
            SomeOf("inputs", ("a", "b", "c"), k=2),
        ],
    )


def huge():
    return Space("huge", [OneOf(f"c{i}", tuple(range(10))) for i in range(30)])


def test_asks_for_every_architecture_once_and_then_stops():
    space = small()
    search = RandomSearch(space, seed=0)
    asked = [search.ask() for _ in range(space.size)]
    assert space.size == 12
    assert set(asked) == set(space.enumerate())
    assert len(set(asked)) == 12
    with pytest.raises(Exhausted, match="12"):
        search.ask()


def test_every_position_of_the_sequence_is_uniform():
    space, n = small(), 3000
    places = [Counter() for _ in range(3)]
    for seed in range(n):
        search = RandomSearch(space, seed)
        for place in places:
            place[search.ask()] += 1
    for place in places:
        chi2 = sum((place[a] - n / 12) ** 2 / (n / 12) for a in space.enumerate())
        # 99.99 % of a chi-square of 11 degrees of freedom
        assert chi2 < 37.4


def test_a_space_of_1e30_costs_nothing():
    space = huge()
    found = random_architectures(space, 50, seed=1)
    assert space.size == 10**30
    assert len(set(found)) == 50
    assert all(space.contains(a) for a in found)


def test_depends_on_the_seed_only():
    space = small()
    assert random_architectures(space, 12, seed=3) == random_architectures(space, 12, seed=3)
    assert random_architectures(space, 12, seed=3) != random_architectures(space, 12, seed=4)
    random.seed(0)
    before = random.getstate()
    random_architectures(space, 12, seed=3)
    assert random.getstate() == before


def test_best_is_the_first_of_the_highest_and_ignores_diverged_ones():
    search = RandomSearch(small(), seed=0)
    assert search.best is None
    a, b, c, d = (search.ask() for _ in range(4))
    search.tell(a, math.nan)
    assert search.best is None
    for architecture, score in ((b, 1.0), (c, 2.0), (d, 2.0)):
        search.tell(architecture, score)
    assert search.best == (c, 2.0)
    assert [trial.architecture for trial in search.history] == [a, b, c, d]


def test_goes_on_from_its_state_as_if_never_stopped():
    space = small()
    whole, first = RandomSearch(space, seed=5), RandomSearch(space, seed=5)
    for search in (whole, first):
        for _ in range(4):
            search.tell(search.ask(), search._asked / 2)
    state = json.loads(json.dumps(first.state_dict()))
    second = RandomSearch(space, seed=99)
    second.load_state_dict(state)
    assert second.history == whole.history
    assert second.best == whole.best
    assert [second.ask() for _ in range(8)] == [whole.ask() for _ in range(8)]
    assert second.state_dict() == whole.state_dict()


def test_refuses_foreign_states_and_architectures():
    search = RandomSearch(small(), seed=0)
    with pytest.raises(ValueError, match="another space"):
        search.load_state_dict(RandomSearch(huge(), seed=0).state_dict())
    with pytest.raises(ValueError):
        search.tell(RandomSearch(huge(), seed=0).ask(), 1.0)
    with pytest.raises(ValueError, match="13 different"):
        random_architectures(small(), 13, seed=0)
