import json
import random
import runpy
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from search.report import draw_trellis, write
from search.report.read import last_moves
from search.space import Architecture, OneOf, Space, Walk, save

SVG = "{http://www.w3.org/2000/svg}"
MOVES = {4: (4, 8), 8: (4, 8, 16), 16: (8, 16, 32), 32: (16, 32)}
WALK = Walk("path", 6, MOVES, start=(4,))
PATH = (4, 8, 16, 8, 8, 4)


def labels(svg):
    return [text.text for text in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def uniform(walk):
    """Each move as likely as the others that leave its state."""
    leaving = {}
    for layer, a, _ in walk.transitions:
        leaving[layer, a] = leaving.get((layer, a), 0) + 1
    return {walk.transition_text(move): 1 / leaving[move[0], move[1]] for move in walk.transitions}


def test_states_layers_and_the_path_s_probabilities_are_written():
    found = labels(draw_trellis(WALK, PATH, uniform(WALK)))
    # 4 -> 8 and 8 -> 16, 16 -> 8, 8 -> 8, 8 -> 4
    assert sorted(found) == sorted(["4", "8", "16", "32", *map(str, range(1, 7)), "50", "33", "33", "33", "33"])
    assert sorted(labels(draw_trellis(WALK, PATH))) == sorted(["4", "8", "16", "32", *map(str, range(1, 7))])


def test_lines_are_the_moves_and_circles_the_nodes():
    tree = ElementTree.fromstring(draw_trellis(WALK, PATH))
    groups = [group.get("id", "") for group in tree.iter(f"{SVG}g")]
    lines = [group for group in groups if "line2d" in group]
    circles = [group for group in groups if "patch" in group]
    nodes = {(layer, path[layer]) for path in WALK.values() for layer in range(6)}
    assert len(lines) == len(WALK.transitions)
    assert len(circles) >= len(nodes) == 1 + 2 + 3 + 4 + 4 + 4


@pytest.mark.parametrize("walk", [Walk("w", 1, MOVES, (4,)), Walk("w", 3, {"a": ("a", "b"), "b": ("a",)}, ("a", "b"))])
def test_small_walks_are_drawn(walk):
    svg = draw_trellis(walk, next(iter(walk.values())), uniform(walk))
    assert svg == draw_trellis(walk, next(iter(walk.values())), uniform(walk)) and svg.startswith("<svg")


def test_a_path_of_another_walk_is_refused():
    with pytest.raises(ValueError, match="is no path of choice 'path'"):
        draw_trellis(WALK, (4, 16, 4, 4, 4, 4))


def test_the_page_shows_the_trellis_of_a_work_directory(tmp_path):
    space = Space("trellis", [WALK, OneOf("op", ("a", "b"))])
    save(tmp_path / "architecture.json", {"backbone": (space, Architecture({"path": PATH, "op": "b"}))}, {})
    rng = random.Random(0)
    rows = [
        {"epoch": epoch, "probabilities": {"op": [0.5, 0.5], "path": {move: rng.random() for move in uniform(WALK)}}}
        for epoch in (1, 2)
    ]
    (tmp_path / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = write(tmp_path).read_text()
    expected = draw_trellis(WALK, PATH, rows[-1]["probabilities"]["path"])
    assert expected in page and "per cent" in page
    # the choice is drawn, not listed again
    assert "(4, 8, 16, 8, 8, 4)" not in page


def test_the_tool_draws_a_path_to_a_file(tmp_path, capsys):
    tool = runpy.run_path(str(Path(__file__).resolve().parents[3] / "tools" / "draw.py"))
    save(tmp_path / "a.json", {"backbone": (Space("s", [WALK]), Architecture({"path": PATH}))}, {})
    assert tool["main"]([str(tmp_path / "a.json"), "-o", str(tmp_path / "f.svg"), "--walk", "path"]) == 0
    drawn = (tmp_path / "f.svg").read_text()
    assert drawn == draw_trellis(WALK, PATH, themed=False) and "var(" not in drawn
    assert tool["main"]([str(tmp_path / "a.json"), "-o", str(tmp_path / "f.svg"), "--walk", "way"]) == 2
    assert "--walk 'way' is no path of" in capsys.readouterr().err


def test_moves_of_a_damaged_history_are_left_out():
    rows = [
        {"epoch": 1, "probabilities": {"path": {"1: 4 -> 4": 0.25, "1: 4 -> 8": None}}},
        {"epoch": 2, "probabilities": {"path": [0.5]}},
        {"epoch": 3, "probabilities": None},
    ]
    assert last_moves(rows, "path") == {"1: 4 -> 4": 0.25}
    assert last_moves(rows, "other") == {}
