import random
import re
import xml.etree.ElementTree as ElementTree

import pytest

from search.report import draw_cell, draw_file
from search.space import OneOf, Ordinal, Space

SVG = "{http://www.w3.org/2000/svg}"


def labels(svg):
    return [text.text for text in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_every_operation_is_written_as_text(space, architecture):
    found = labels(draw_cell(space, architecture, "normal"))
    assert found.count("sep conv 3×3") == 5
    assert found.count("skip connect") == 2
    assert found.count("dil conv 3×3") == 1
    assert {"cell k−2", "cell k−1", "concat", "2", "3", "4", "5"} <= set(found)


@pytest.mark.parametrize("seed", range(12))
def test_labels_lie_apart(space, seed):
    svg = draw_cell(space, space.sample(random.Random(seed)), "normal")
    texts = ElementTree.fromstring(svg).iter(f"{SVG}text")
    places = [(float(text.get("x")), float(text.get("y")), len(text.text or "")) for text in texts]
    assert len(places) == 15
    for i, (x, y, length) in enumerate(places):
        for other_x, other_y, other_length in places[i + 1 :]:
            # in points: DejaVu Sans at 8.5 is about 5 wide a letter and 9 high
            apart_x = abs(x - other_x) - (length + other_length) * 5 / 2
            assert apart_x > 0 or abs(y - other_y) > 9


def test_a_drawing_is_the_same_bytes_each_time(space, architecture):
    assert draw_cell(space, architecture, "normal") == draw_cell(space, architecture, "normal")
    assert draw_file(space, architecture) == draw_file(space, architecture)


def test_two_drawings_share_no_id(space, architecture):
    ids = [set(re.findall(r'\bid="([^"]+)"', draw_cell(space, architecture, c))) for c in ("normal", "reduce")]
    assert ids[0] and not ids[0] & ids[1]


def test_every_reference_in_a_drawing_is_to_its_own_id(space, architecture):
    svg = draw_cell(space, architecture, "normal")
    used = set(re.findall(r"url\(#([^)]+)\)", svg)) | set(re.findall(r'href="#([^"]+)"', svg))
    assert used <= set(re.findall(r'\bid="([^"]+)"', svg))


def test_the_page_gets_variables_and_the_file_gets_colours(space, architecture):
    assert "var(--ink" in draw_cell(space, architecture, "normal")
    file = draw_file(space, architecture)
    assert "var(" not in file and file.startswith("<?xml")
    assert labels(file).count("concat") == 2


def test_a_space_without_cells_is_refused():
    space = Space("widths", [Ordinal("width", (1, 2))])
    with pytest.raises(ValueError, match="has no cell to draw"):
        draw_file(space, space.at(0))


def test_a_cell_with_one_input_and_a_strange_operation():
    space = Space("odd", [OneOf("c/n1<-0", ("a<b>&c", "none"), relax_only=("none",))])
    assert "a<b>&c" in labels(draw_cell(space, space.at(0), "c"))
