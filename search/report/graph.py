"""A cell as a directed graph, read from an architecture's choices.

The convention (search/supernet/mixed_dag.py): `<cell>/n<j><-<i>` is the operation on the edge from state i to
node j, and `<cell>/n<j>/inputs` is the set of states node j keeps. States that are no node are the cell's
inputs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import networkx as nx

from search.space import Space

_EDGE = re.compile(r"^(?:(?P<cell>.+)/)?n(?P<node>\d+)<-(?P<source>\d+)$")
_INPUTS = re.compile(r"^(?:(?P<cell>.+)/)?n(?P<node>\d+)/inputs$")


@dataclass(frozen=True)
class Edge:
    """`operation` on the edge from state `source` to node `node`."""

    source: int
    node: int
    operation: str


@dataclass(frozen=True)
class Cell:
    """The kept edges of one cell.

    states: numbers of all states in order, inputs first; nodes: those that are computed; edges: by node, then
    source.
    """

    name: str
    states: tuple[int, ...]
    nodes: tuple[int, ...]
    edges: tuple[Edge, ...]

    @property
    def inputs(self) -> tuple[int, ...]:
        """The states that come from outside the cell."""
        return tuple(s for s in self.states if s not in self.nodes)

    def columns(self) -> dict[int, int]:
        """State -> number of its column: 0 for inputs, else one more than the last column it reads."""
        graph = nx.DiGraph()
        graph.add_nodes_from(self.states)
        graph.add_edges_from((edge.source, edge.node) for edge in self.edges)
        column = {}
        for state in nx.lexicographical_topological_sort(graph):
            sources = [column[source] + 1 for source in graph.predecessors(state)]
            column[state] = max(sources, default=1 if state in self.nodes else 0)
        return column


def edge_of(name: str) -> tuple[str, int, int] | None:
    """(cell, node, source) of a choice that names an edge, else None."""
    match = _EDGE.match(name)
    return (match["cell"] or "", int(match["node"]), int(match["source"])) if match else None


def node_of(name: str) -> tuple[str, int] | None:
    """(cell, node) of a choice that names a node's inputs, else None."""
    match = _INPUTS.match(name)
    return (match["cell"] or "", int(match["node"])) if match else None


def cell_names(names: Iterable[str]) -> tuple[str, ...]:
    """The cells that the choices `names` describe, in order of first appearance."""
    found = (edge_of(name) for name in names)
    return tuple(dict.fromkeys(edge[0] for edge in found if edge))


def cell_of(space: Space, architecture: Mapping[str, object], cell: str) -> Cell:
    """The cell named `cell` of an architecture of `space`; ValueError when the space has no such cell."""
    every = [edge for edge in (edge_of(choice.name) for choice in space) if edge and edge[0] == cell]
    if not every:
        known = ", ".join(repr(name) for name in cell_names(choice.name for choice in space)) or "none"
        raise ValueError(f"space {space.name!r} has no cell {cell!r}; its cells: {known}")
    backward = next(((node, source) for _, node, source in every if source >= node), None)
    if backward:
        raise ValueError(f"cell {cell!r} has an edge from state {backward[1]} to the earlier node {backward[0]}")
    nodes = sorted({node for _, node, _ in every})
    states = sorted({source for _, _, source in every} | set(nodes))
    kept = []
    for name, operation in architecture.items():
        edge = edge_of(name)
        if edge and edge[0] == cell:
            kept.append(Edge(edge[2], edge[1], str(operation)))
    kept.sort(key=lambda edge: (edge.node, edge.source))
    return Cell(cell, tuple(states), tuple(nodes), tuple(kept))


def other_choices(architecture: Mapping[str, object]) -> dict[str, object]:
    """The choices that no cell's drawing shows."""
    return {name: value for name, value in architecture.items() if not edge_of(name) and not node_of(name)}
