import random
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from backbones import nas_fpn
from backbones.merging_cell import Attention, wire
from search.report import draw_cell, draw_pyramid, pyramid_names
from search.report.pyramid import Cell, cells_of, pyramid_of
from search.space import load
from tools import draw

FILE = Path(__file__).resolve().parents[3] / "backbones" / "archs" / "nas_fpn_cells.json"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def part():
    return load(FILE).parts["neck"]


def test_the_published_pyramid(part):
    levels, cells = cells_of(part.architecture, "nas_fpn")
    assert levels == (3, 4, 5, 6, 7)
    # the authors' code: two cells inside, then P3, P4, P5, P7, P6; P5 is added to the third output, P7 to the fourth
    assert cells == (
        Cell(4, "attention", (1, 3), ()),
        Cell(4, "sum", (1, 5), ()),
        Cell(3, "sum", (0, 6), ()),
        Cell(4, "sum", (6, 7), ()),
        Cell(5, "attention", (7, 8), (2,)),
        Cell(7, "attention", (6, 9), (4,)),
        Cell(6, "attention", (9, 10), ()),
    )


def test_random_pyramids_are_wired_as_the_neck_wires_them(part):
    rng = random.Random(0)
    for _ in range(40):
        architecture = part.space.sample(rng)
        levels, cells = cells_of(architecture, "nas_fpn")
        steps = wire(nas_fpn.cells_of(architecture), levels, Attention())
        assert [(c.level, c.op, set(c.inputs), c.added) for c in cells] == [
            (s.level, s.op, set(s.inputs), s.added) for s in steps
        ]


def test_every_feature_and_line_is_drawn(part):
    tree = ElementTree.fromstring(draw_pyramid(part.space, part.architecture, "nas_fpn"))
    found = [text.text for text in tree.iter(f"{SVG}text")]
    assert set(map(str, range(12))) | {f"P{level}" for level in range(3, 8)} <= set(found)
    groups = [group.get("id", "").split("-")[-1] for group in tree.iter(f"{SVG}g")]
    # 12 circles, 16 lines with their heads, and the legend's three
    assert sum(name.startswith("patch_") for name in groups) >= 12 + 16


def test_names(part):
    assert pyramid_names(choice.name for choice in part.space) == ("nas_fpn",)
    assert pyramid_names(["fusion_p3/n4/inputs", "a/n5/a"]) == ()
    assert pyramid_of("nas_fpn/n5/b|a=1") == pyramid_of("nas_fpn/outputs") == "nas_fpn" and pyramid_of("path") is None
    with pytest.raises(ValueError, match="no pyramid 'fpn'; it has nas_fpn"):
        draw_pyramid(part.space, part.architecture, "fpn")
    with pytest.raises(ValueError, match="no cell"):
        draw_cell(part.space, part.architecture, "nas_fpn")


def test_the_tool_draws_it(tmp_path, capsys):
    assert draw.main([str(FILE), "-o", str(tmp_path / "p.svg")]) == 0
    assert ElementTree.parse(tmp_path / "p.svg").getroot().find(f"{SVG}title").text == "Pyramid nas_fpn"
    assert draw.main([str(FILE), "-o", str(tmp_path / "c.svg"), "--cell", "nas_fpn"]) == 2
    assert "no cell" in capsys.readouterr().err
