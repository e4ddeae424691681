import itertools
import math

import pytest

from search.space import Order, SomeOf, Walk


def test_subsets_are_counted_and_numbered_without_repeats():
    some = SomeOf("in", tuple(range(5)), (1, 3))
    values = list(some.values())
    assert some.count == math.comb(5, 1) + math.comb(5, 2) + math.comb(5, 3)
    assert len(set(values)) == some.count
    assert all(some.contains(value) for value in values)


def test_a_large_subset_is_counted_at_once():
    assert SomeOf("in", tuple(range(60)), 30).count == math.comb(60, 30)


def test_subset_steps_exchange_add_and_drop_within_the_bounds():
    assert SomeOf("in", (0, 1, 2), 2).neighbours((0, 1)) == [(1, 2), (0, 2)]
    assert set(SomeOf("in", (0, 1, 2), (1, 3)).neighbours((0,))) == {(1,), (2,), (0, 1), (0, 2)}


@pytest.mark.parametrize("value", [(1, 0), (0, 0), (0,), (0, 3), [0, 1], 0, (0, True)])
def test_what_is_no_subset_is_not_contained(value):
    assert not SomeOf("in", (0, 1, 2), 2).contains(value)


def test_orders_are_numbered_without_repeats():
    order = Order("o", ("p", "q", "r", "s"))
    assert len(set(order.values())) == order.count == 24
    assert not order.contains(("p", "q", "r", "r"))
    assert len(order.neighbours(("p", "q", "r", "s"))) == 6


@pytest.mark.parametrize("n", [1, 2, 4, 5])
def test_an_order_read_in_steps_is_numbered_as_it_is_whole(n):
    """Numbers are in files of seeds and results: orders by the place in `items` of what comes first, then second, ..."""
    order = Order("o", tuple("dbcae")[:n])
    assert list(order.values()) == list(itertools.permutations(order.items)) == list(order.arrangements)

    def read(step, local, tokens):
        if step == order.length:
            yield order.build(tokens)
        for token, after in order.follow(step, local) if step < order.length else ():
            assert order.step_of(token) == step
            yield from read(step + 1, after, [*tokens, token])

    assert list(read(0, None, [])) == list(order.values())
    assert order.tokens(order.items) == tuple(enumerate(order.items))
    for token in ("d", (n, "d"), (0, "x"), (-1, "d"), (True, "d"), (0, "d", 0)):
        assert order.step_of(token) is None


def test_walks_follow_the_moves():
    walk = Walk("w", 3, {4: (4, 8), 8: (4, 8, 16), 16: (8,)}, start=(4,))
    assert list(walk.values()) == [(4, 4, 4), (4, 4, 8), (4, 8, 4), (4, 8, 8), (4, 8, 16)]
    assert not walk.contains((4, 16, 8))
    assert not walk.contains((8, 8, 8))
    assert walk.neighbours((4, 8, 8)) == [(4, 4, 8), (4, 8, 4), (4, 8, 16)]


def test_a_walk_never_enters_a_dead_end():
    walk = Walk("w", 3, {"a": ("a", "end"), "end": ()}, start=("a",))
    assert list(walk.values()) == [("a", "a", "a"), ("a", "a", "end")]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SomeOf("a", (1, 2), 3), "k=3 must be"),
        (lambda: SomeOf("a", (1, 2), (2, 1)), r"k=\(2, 1\) must be"),
        (lambda: SomeOf("a", (1, 2), True), "k=True must be"),
        (lambda: Order("a", (1, 1)), "holds 1 twice"),
        (lambda: Walk("w", 0, {4: (4,)}, (4,)), "layers=0"),
        (lambda: Walk("w", 2, {4: (8,)}, (4,)), "state 8 is used"),
        (lambda: Walk("w", 2, {4: ()}, (4,)), "no path has 2 layers"),
        (lambda: Walk("w", 2, 5, (4,)), "moves must list"),
    ],
)
def test_a_choice_that_makes_no_sense_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
