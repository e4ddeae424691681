import pytest

from search.report.graph import Cell, Edge, cell_names, cell_of, edge_of, node_of, other_choices
from search.space import Architecture, OneOf, Ordinal, SomeOf, Space


def test_names_of_edges_and_inputs():
    assert edge_of("normal/n5<-2") == ("normal", 5, 2)
    assert edge_of("neck/fusion/n3<-0") == ("neck/fusion", 3, 0)
    assert edge_of("n2<-1") == ("", 2, 1)
    assert edge_of("stage1/width") is None and edge_of("normal/n2/inputs") is None
    assert node_of("normal/n2/inputs") == ("normal", 2)
    assert node_of("normal/n2<-0") is None


def test_only_the_kept_edges_are_read(space, architecture):
    cell = cell_of(space, architecture, "normal")
    assert cell.nodes == (2, 3, 4, 5) and cell.inputs == (0, 1)
    assert len(cell.edges) == 8
    assert Edge(2, 5, "dil_conv_3x3") in cell.edges


def test_a_state_stands_right_of_all_it_reads(space, architecture):
    columns = cell_of(space, architecture, "reduce").columns()
    assert columns == {0: 0, 1: 0, 2: 1, 3: 2, 4: 2, 5: 2}


def test_a_node_that_reads_nothing_is_no_input():
    assert Cell("x", (0, 1, 2), (2,), ()).columns() == {0: 0, 1: 0, 2: 1}


def test_an_unknown_cell_is_refused_by_name(space, architecture):
    with pytest.raises(ValueError, match=r"no cell 'normall'; its cells: 'normal', 'reduce'"):
        cell_of(space, architecture, "normall")


def test_an_edge_to_an_earlier_node_is_refused():
    space = Space("loop", [OneOf("c/n2<-3", ("a",)), OneOf("c/n3<-2", ("a",))])
    with pytest.raises(ValueError, match="from state 3 to the earlier node 2"):
        cell_of(space, space.at(0), "c")


def test_choices_outside_cells_are_kept_for_the_table():
    choices = [
        SomeOf("c/n2/inputs", (0, 1), 1),
        OneOf("c/n2<-0", ("a", "b"), when=(("c/n2/inputs", 0),)),
        OneOf("c/n2<-1", ("a", "b"), when=(("c/n2/inputs", 1),)),
        Ordinal("width", (16, 32)),
    ]
    space = Space("mixed", choices)
    architecture = space.canonical({"c/n2/inputs": (1,), "c/n2<-1": "b", "width": 32})
    assert isinstance(architecture, Architecture)
    assert cell_names(choice.name for choice in space) == ("c",)
    assert other_choices(architecture) == {"width": 32}
