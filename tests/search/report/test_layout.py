import itertools
import random

import pytest

from search.report.graph import cell_of
from search.report.layout import OUTPUT, Item, _apart, lay_out


def half(item, cell):
    return 0.25 if item.passing else max(1, sum(edge.node == item.state for edge in cell.edges)) / 2


@pytest.mark.parametrize("seed", range(40))
def test_nothing_in_a_column_overlaps(space, seed):
    architecture = space.sample(random.Random(seed))
    for name in ("normal", "reduce"):
        cell = cell_of(space, architecture, name)
        places = lay_out(cell)
        for column, items in enumerate(places.columns):
            spans = [(places.y[column, i] + half(i, cell), places.y[column, i] - half(i, cell)) for i in items]
            for (_, bottom), (top, _) in itertools.pairwise(spans):
                assert top < bottom - 0.29


@pytest.mark.parametrize("seed", range(10))
def test_every_operation_has_a_slot_of_its_own_beside_its_node(space, seed):
    cell = cell_of(space, space.sample(random.Random(seed)), "normal")
    places = lay_out(cell)
    columns = cell.columns()
    for node in cell.nodes:
        ports = sorted(y for (_, target), y in places.ports.items() if target == node)
        assert len(ports) == sum(edge.node == node for edge in cell.edges)
        assert all(above - below == pytest.approx(1) for below, above in itertools.pairwise(ports))
        assert sum(ports) / len(ports) == pytest.approx(places.y[columns[node], Item(node, False)])


def test_a_line_over_a_column_has_a_passage_there(space, architecture):
    places = lay_out(cell_of(space, architecture, "normal"))
    # state 0 feeds node 5, which stands behind the column of nodes 2, 3, 4
    assert Item(0, True) in places.columns[1]
    assert Item(5, True) not in places.columns[1]
    assert places.columns[-1] == (Item(OUTPUT, False),)


def test_the_same_cell_gets_the_same_places(space, architecture):
    cell = cell_of(space, architecture, "reduce")
    assert lay_out(cell) == lay_out(cell)


def test_heights_stay_where_wanted_when_there_is_room():
    assert _apart([5.0, 0.0], [1.0, 1.0]) == [5.0, 0.0]


def test_heights_share_the_move_when_there_is_none():
    assert _apart([0.0, 0.0], [1.0, 1.0]) == pytest.approx([0.65, -0.65])
