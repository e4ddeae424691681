"""Logits of walks: one for each move, weighed against the moves that leave the same state."""

import json
import math
import random

import pytest
import torch

from search.engine.diagnostics import describe_architecture
from search.space import Argmax, OneOf, Order, Space, Walk
from search.supernet import ArchParams, Softmax

MOVES = {4: (4, 8), 8: (4, 8, 16), 16: (8, 16, 32), 32: (16, 32)}


def made(layers, start=(4,), std=1.0, moves=MOVES):
    walk = Walk("path", layers, moves, start=start)
    return walk, ArchParams(Space("s", [walk, OneOf("op", ("a", "b"))]), std=std, seed=3)


def test_the_moves_of_twelve_layers():
    walk, params = made(12)
    # 2, 5 and 8 while the trellis opens, then 10 a layer
    assert len(walk.transitions) == 2 + 5 + 8 + 8 * 10 == params.logits["path"].numel()
    assert walk.transitions[:7] == ((1, 4, 4), (1, 4, 8), (2, 4, 4), (2, 4, 8), (2, 8, 4), (2, 8, 8), (2, 8, 16))


def test_moves_that_no_path_makes_have_no_logit():
    # "b" is a dead end before the last layer; "c" can't be reached
    walk = Walk("w", 3, {"a": ("a", "b"), "b": (), "c": ("a",)}, start=("a",))
    assert walk.transitions == ((1, "a", "a"), (2, "a", "a"), (2, "a", "b"))
    assert Walk("w", 1, {"a": ("a",)}, start=("a",)).transitions == ()


def test_several_first_states_are_weighed_too():
    walk, params = made(2, start=(8, 4))
    assert walk.transitions[:2] == ((0, None, 4), (0, None, 8))
    table = params.probabilities()["path"]
    assert table[0, None, 4] + table[0, None, 8] == pytest.approx(1)
    assert walk.transitions_of((8, 16)) == (1, walk.transitions.index((1, 8, 16)))


def test_the_gate_is_a_softmax_over_the_moves_that_leave_a_state():
    walk, params = made(5)
    values, active = Softmax()(params.space, params.logits)["path"]
    assert active == tuple(range(len(walk.transitions)))
    raw = dict(zip(walk.transitions, params.logits["path"].tolist(), strict=True))
    for (layer, a, b), weight in zip(walk.transitions, values.tolist(), strict=True):
        leaving = [math.exp(raw[layer, a, to]) for to in MOVES[a]]
        # at strides 4 and 32 two moves leave, and share the whole
        assert weight == pytest.approx(math.exp(raw[layer, a, b]) / sum(leaving), rel=1e-6)
    (gradient,) = torch.autograd.grad(values[walk.transitions.index((2, 8, 16))], params.logits["path"])
    reached = {walk.transitions[i] for i in gradient.nonzero().flatten().tolist()}
    assert reached == {(2, 8, 4), (2, 8, 8), (2, 8, 16)}


def test_a_mask_opens_the_moves_of_the_path_alone():
    walk, params = made(4)
    path = (4, 8, 16, 8)
    for dense in (False, True):
        with params.masked({"path": path, "op": "b"}, dense=dense):
            values, active = params.gates["path"]
        assert values is None
        assert [walk.transitions[i] for i in active] == [(1, 4, 8), (2, 8, 16), (3, 16, 8)]


def test_probabilities_decode_to_the_best_path_and_stand_in_files_by_name():
    walk, params = made(6)
    table = params.probabilities(Softmax())
    found = Argmax()(params.space, params.probabilities())
    assert found == Argmax()(params.space, table) and walk.contains(found["path"])
    line = json.loads(json.dumps(describe_architecture(params.space, table, found, frozen=False)))
    assert line["probabilities"]["path"] == {walk.transition_text(move): p for move, p in table["path"].items()}
    assert list(line["probabilities"]["path"])[:2] == ["1: 4 -> 4", "1: 4 -> 8"]
    assert len(line["probabilities"]["path"]) == len(walk.transitions)


def test_logits_of_a_walk_are_drawn_and_saved_like_the_others():
    _, params = made(5, std=1e-3)
    _, other = made(5)
    other.load_state_dict(params.state_dict())
    assert torch.equal(other.logits["path"], params.logits["path"])
    assert 0 < params.logits["path"].detach().abs().max() < 0.01


def test_an_order_has_a_logit_for_each_permutation():
    order = Order("o", (1, 2, 3))
    params = ArchParams(Space("s", [order]))
    values, active = Softmax()(params.space, params.logits)["o"]
    assert values.shape == (6,) and active == tuple(range(6)) and float(values.sum()) == pytest.approx(1)
    with params.masked({"o": (2, 3, 1)}):
        values, (index,) = params.gates["o"]
    assert values is None and order.at(index) == (2, 3, 1)
    with pytest.raises(ValueError, match="7 items have 5,040 orders"):
        ArchParams(Space("s", [Order("o", tuple(range(7)))]))


@pytest.mark.parametrize("seed", range(3))
def test_a_random_path_s_moves_are_found_again(seed):
    walk, _ = made(9)
    path = Space("s", [walk]).sample(random.Random(seed))["path"]
    moves = [walk.transitions[i] for i in walk.transitions_of(path)]
    assert moves == [(i, path[i - 1], path[i]) for i in range(1, 9)]
