import math
import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.space import Architecture, Argmax, OneOf, Order, Ordinal, SomeOf, Space, TopInputs, Walk

OPS = ("none", "skip_connect", "sep", "dil")


def node(inputs, k=2, prefix="normal/", ops=OPS):
    name = f"{prefix}n/inputs"
    edges = [
        OneOf(f"{prefix}n<-{i}", ops, when=((name, i),), relax_only=("none",) if "none" in ops else ()) for i in range(inputs)
    ]
    return [SomeOf(name, tuple(range(inputs)), k), *edges]


def rows(*values, prefix="normal/"):
    return {f"{prefix}n<-{i}": row for i, row in enumerate(values)}


def test_none_is_in_the_softmax_but_never_chosen_nor_renormalised():
    # edge 1 is the best only if none were renormalised away: 0.29/0.3 against 0.5, 0.4
    probs = rows([0.0, 0.5, 0.3, 0.2], [0.7, 0.0, 0.29, 0.01], [0.2, 0.2, 0.4, 0.2])
    found = TopInputs()(Space("s", node(3)), probs)
    assert found == Architecture({"normal/n/inputs": (0, 2), "normal/n<-0": "skip_connect", "normal/n<-2": "sep"})


def test_ties_go_to_the_lower_input_and_the_lower_operation():
    found = TopInputs()(Space("s", node(4)), rows(*[[0.25, 0.25, 0.25, 0.25]] * 4))
    assert found == Architecture({"normal/n/inputs": (0, 1), "normal/n<-0": "skip_connect", "normal/n<-1": "skip_connect"})


def test_edge_probabilities_multiply_the_strength_but_cannot_change_an_operation():
    probs = rows([0.1, 0.0, 0.9, 0.0], [0.1, 0.3, 0.35, 0.25], [0.2, 0.4, 0.2, 0.2])
    space = Space("s", node(3))
    assert TopInputs()(space, probs)["normal/n/inputs"] == (0, 2)
    # strengths 0.09, 0.14, 0.2
    found = TopInputs()(space, {**probs, "normal/n/inputs": [0.1, 0.4, 0.5]})
    assert found["normal/n/inputs"] == (1, 2)
    assert (found["normal/n<-1"], found["normal/n<-2"]) == ("sep", "skip_connect")


def test_darts_published_rule_on_a_whole_cell(darts):
    uniform = {choice.name: [1 / 8] * 8 for choice in darts if isinstance(choice, OneOf)}
    found = TopInputs()(darts, uniform)
    assert darts.contains(found)
    assert all(found[f"normal/n{n}/inputs"] == (0, 1) for n in range(2, 6))
    assert {found[name] for name in found if "<-" in name} == {"max_pool_3x3"}


def skips(found, scope="normal/"):
    return [name for name, value in found.items() if name.startswith(scope) and value == "skip_connect"]


def test_the_skip_limit_cuts_the_weakest_skip_and_chooses_edges_again():
    # without a limit: inputs 0, 1, both skips. Cutting the weaker one (edge 1) leaves it 0.2: input 2 (0.3) replaces it.
    probs = rows([0.0, 0.9, 0.05, 0.05], [0.0, 0.6, 0.2, 0.2], [0.2, 0.1, 0.3, 0.4])
    space = Space("s", node(3))
    assert len(skips(TopInputs()(space, probs))) == 2
    assert len(skips(TopInputs(skip_limit=2)(space, probs))) == 2
    found = TopInputs(skip_limit=1)(space, probs)
    assert dict(found) == {"normal/n/inputs": (0, 2), "normal/n<-0": "skip_connect", "normal/n<-2": "dil"}
    # the next cut (edge 0) leaves 0.05, 0.2, 0.4
    found = TopInputs(skip_limit=0)(space, probs)
    assert dict(found) == {"normal/n/inputs": (1, 2), "normal/n<-1": "sep", "normal/n<-2": "dil"}


def test_skips_of_equal_probability_are_cut_from_the_first():
    probs = rows([0.0, 0.8, 0.2, 0.0], [0.0, 0.8, 0.2, 0.0])
    found = TopInputs(skip_limit=1)(Space("s", node(2)), probs)
    assert skips(found) == ["normal/n<-1"]


def test_the_skip_limit_leaves_other_cells_alone():
    space = Space("s", node(2) + node(2, prefix="reduce/"))
    row = [0.0, 0.8, 0.2, 0.0]
    found = TopInputs(skip_limit=0)(space, rows(row, row) | rows(row, row, prefix="reduce/"))
    assert skips(found) == []
    assert len(skips(found, "reduce/")) == 2


def test_a_skip_limit_that_cannot_be_met_is_refused():
    space = Space("s", node(2, ops=("none", "skip_connect")))
    with pytest.raises(ValueError, match="skip_limit=0 cannot be met"):
        TopInputs(skip_limit=0)(space, rows([0.5, 0.5], [0.5, 0.5]))
    with pytest.raises(ValueError, match="skip_limit=-1 must be"):
        TopInputs(skip_limit=-1)


def test_probabilities_are_not_changed():
    row = [0.0, 0.8, 0.2, 0.0]
    TopInputs(skip_limit=0)(Space("s", node(2)), rows(row, row))
    assert row == [0.0, 0.8, 0.2, 0.0]


def test_argmax_reads_active_choices_only():
    space = Space(
        "s",
        [
            OneOf("op", ("none", "a", "b"), relax_only=("none",)),
            Ordinal("width", (16, 32)),
            OneOf("under_a", ("x", "y"), when=(("op", "a"),)),
            SomeOf("in", (0, 1, 2), 2),
        ],
    )
    probs = {"op": [0.8, 0.1, 0.1], "width": [0.4, 0.6], "under_a": [0.2, 0.8], "in": [0.3, 0.2, 0.3]}
    assert dict(Argmax()(space, probs)) == {"op": "a", "width": 32, "under_a": "y", "in": (0, 2)}
    del probs["under_a"]
    assert dict(Argmax()(space, probs | {"op": [0.8, 0.05, 0.1]})) == {"op": "b", "width": 32, "in": (0, 2)}


def test_a_walk_decodes_to_the_path_of_largest_product():
    walk = Walk("w", 3, {4: (4, 8), 8: (4, 8)}, start=(4,))
    # greedy would stay at 4 (0.6), then 0.5; by way of 8: 0.4 * 0.9
    table = {(1, 4, 4): 0.6, (1, 4, 8): 0.4, (2, 4, 4): 0.5, (2, 4, 8): 0.5, (2, 8, 4): 0.1, (2, 8, 8): 0.9}
    space = Space("s", [walk])
    assert Argmax()(space, {"w": table})["w"] == (4, 8, 8)
    tie = dict.fromkeys(table, 0.5)
    assert Argmax()(space, {"w": tie})["w"] == (4, 4, 4)
    best = max(walk.values(), key=lambda p: table[1, p[0], p[1]] * table[2, p[1], p[2]])
    assert best == (4, 8, 8)
    free = Space("s", [Walk("w", 3, {4: (4, 8), 8: (4, 8)}, start=(4, 8))])
    start = {(0, None, 4): 0.1, (0, None, 8): 0.9, (1, 8, 4): 0.2, (1, 8, 8): 0.8}
    assert Argmax()(free, {"w": table | start})["w"] == (8, 8, 8)
    with pytest.raises(ValueError, match="has probability None for the move"):
        Argmax()(free, {"w": {}})


@pytest.mark.parametrize(
    ("choice", "probs", "message"),
    [
        (OneOf("a", (1, 2)), {}, "choice 'a' has no probabilities"),
        (OneOf("a", (1, 2)), {"a": [1.0]}, "has 2 options, but 1 probabilities"),
        (OneOf("a", (1, 2)), {"a": [math.nan, 1.0]}, "the search has diverged"),
        (OneOf("a", (1, 2)), {"a": [0.5, 0.5], "b": [1.0]}, "probabilities for 'b', but space 's' has no such"),
        (SomeOf("a", (1, 2), 1), {}, "use TopInputs"),
        (SomeOf("a", (1, 2), (1, 2)), {"a": [0.5, 0.5]}, "restrict it to one number first"),
        (Order("a", (1, 2, 3)), {"a": [0.5, 0.5]}, "has 6 options, but 2 probabilities"),
        (Order("a", tuple(range(7))), {"a": [1.0]}, "7 items have 5,040 orders, too many to be weighed"),
    ],
)
def test_probabilities_that_cannot_be_decoded_are_refused(choice, probs, message):
    with pytest.raises(ValueError, match=message):
        Argmax()(Space("s", [choice]), probs)


def test_the_likeliest_order_wins():
    order = Order("o", ("p", "q", "r"))
    for index, value in enumerate(order.values()):
        probs = [0.1] * 6
        probs[index] = 0.5
        for rule in (Argmax(), TopInputs()):
            assert rule(Space("s", [order]), {"o": probs})["o"] == value == order.arrangements[index]


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), layers=st.integers(1, 5))
def test_viterbi_equals_trying_every_path(seed, layers):
    rng = random.Random(seed)
    moves = {4: (4, 8), 8: (4, 8, 16), 16: (8, 16, 32), 32: (16, 32)}
    walk = Walk("w", layers, moves, start=(8, 4))
    # few distinct probabilities, powers of two: ties are common and exact
    table = {
        (layer, a, b): rng.choice((0.0, 0.25, 0.5))
        for layer in range(1, layers)
        for a, following in moves.items()
        for b in following
    }

    def product(path):
        return math.prod(table[(layer, *pair)] for layer, pair in enumerate(pairwise(path), 1))

    paths = sorted(walk.values())  # ties: the first path by the order of states
    expected = max(paths, key=product)
    found = Argmax()(Space("s", [walk]), {"w": table})["w"]
    assert found == expected


def test_paths_of_probability_zero_tie():
    walk = Walk("w", 4, {4: (4, 8), 8: (4, 8)}, start=(4,))
    table = {(n, a, b): 0.25 if b == 8 else 0.0 for n in (1, 2, 3) for a in (4, 8) for b in (4, 8)}
    table |= {(1, 4, 8): 0.0}
    assert Argmax()(Space("s", [walk]), {"w": table})["w"] == (4, 4, 4, 4)


def test_a_skip_limit_with_nothing_to_bound_is_refused():
    space = Space("plain", [OneOf("layer0", ("conv", "skip_connect"))])
    with pytest.raises(ValueError, match="nothing to bound"):
        TopInputs(skip_limit=0)(space, {"layer0": [0.1, 0.9]})
    assert TopInputs()(space, {"layer0": [0.1, 0.9]})["layer0"] == "skip_connect"


TRELLIS = {4: (4, 8), 8: (4, 8, 16), 16: (8, 16, 32), 32: (16, 32)}


def best_of_all(walk, table):
    """The first path, in the order of states, among those whose probabilities multiply to the most, in floats from the left."""
    best, score = None, -1.0
    for path in sorted(walk.values()):
        product = math.prod(table[layer, a, b] for layer, (a, b) in enumerate(pairwise(path), 1))
        if product > score:
            best, score = path, product
    return best


@pytest.mark.parametrize("layers", range(1, 9))
@pytest.mark.parametrize("start", [(4,), (4, 8)])
def test_viterbi_equals_brute_force_over_all_paths(layers, start):
    walk = Walk("path", layers, TRELLIS, start=start)
    space = Space("s", [walk])
    rng = random.Random(layers)
    for draw in range(12):
        # powers of two tie exactly, and often
        table = {
            move: rng.random() if draw < 6 else rng.choice([0.5, 0.25, 0.125, 0.0]) for move in walk.transitions if move[0]
        }
        assert Argmax()(space, {"path": table})["path"] == best_of_all(walk, table)
    ties = dict.fromkeys(table, 1 / 3)
    assert Argmax()(space, {"path": ties})["path"] == (4,) * layers
