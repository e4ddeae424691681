"""A search that chooses a path: what it writes, and a killed one that goes on."""

import json
import signal

import pytest
import torch

from search.space import Walk, load
from tests.search.engine import tiny

MODEL = {"type": "search.TinyTrellis"}


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    folder = tmp_path_factory.mktemp("walk")
    assert tiny.in_children(folder, model=MODEL, epochs=2) == [0]
    return folder


def test_history_names_the_moves_and_the_architecture_holds_the_path(straight):
    rows = [json.loads(line) for line in (straight / "history.jsonl").read_text().splitlines()]
    part = load(straight / "architecture.json").parts["backbone"]
    (walk,) = (choice for choice in part.space if isinstance(choice, Walk))
    table = rows[-1]["probabilities"][walk.name]
    assert list(table) == [walk.transition_text(move) for move in walk.transitions]
    assert table["1: 4 -> 4"] + table["1: 4 -> 8"] == pytest.approx(1) and table != rows[0]["probabilities"][walk.name]
    assert walk.contains(part.architecture[walk.name])
    assert rows[-1]["architecture"][walk.name] == list(part.architecture[walk.name])
    assert any(torch.is_tensor(t) and t.shape == (len(table),) for t in tiny.state(straight).values())


def test_a_killed_search_of_a_path_goes_on_bit_for_bit(straight, tmp_path):
    kill = {"visualization": {"type": "search.Kill", "where": "epoch", "at": 1}}
    assert tiny.in_children(tmp_path, model=MODEL, epochs=2, default_hooks=kill) == [-signal.SIGKILL]
    assert tiny.in_children(tmp_path, model=MODEL, epochs=2, resume=True) == [0]
    assert tiny.differences(tiny.state(straight), tiny.state(tmp_path)) == []
