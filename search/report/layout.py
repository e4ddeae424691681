"""Where the parts of a cell's drawing go: columns from left to right, no two parts in one place.

A layered drawing (Sugiyama, Tagawa and Toda 1981): every column stacks its nodes, each with the operations it
adds up as a block of fixed height, and one passage for every state whose lines cross the column. The order in
a column is improved by exchanging neighbours while that lessens crossings, then length; heights follow the
neighbours' mean (isotonic regression keeps the order and the distances).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from search.report.graph import Cell

OUTPUT = -1  # the state that stands for the cell's output
_BOX = 1.0  # height of one operation's slot
_PASS = 0.5  # height of a passage
_GAP = 0.3  # between items of a column


@dataclass(frozen=True)
class Item:
    """What stands in a column: state `state`'s block (`passing` False) or the passage of its lines."""

    state: int
    passing: bool


@dataclass(frozen=True)
class Layout:
    """Heights by column.

    columns: items from top to bottom; y: (column, item) -> height of the middle; ports: edge (source, node)
    -> height of the operation's middle; heights in slots, growing upwards.
    """

    columns: tuple[tuple[Item, ...], ...]
    y: Mapping[tuple[int, Item], float]
    ports: Mapping[tuple[int, int], float]


def lay_out(cell: Cell) -> Layout:
    """Place a cell; the same cell always gets the same places."""
    column = dict(cell.columns())
    last = max(column.values()) + 1
    column[OUTPUT] = last
    arrows = [(edge.source, edge.node) for edge in cell.edges] + [(node, OUTPUT) for node in cell.nodes]
    stacks: list[list[Item]] = [[] for _ in range(last + 1)]
    for state in (*cell.states, OUTPUT):
        stacks[column[state]].append(Item(state, False))
        reach = max((column[b] for a, b in arrows if a == state), default=0)
        for between in range(column[state] + 1, reach):
            stacks[between].append(Item(state, True))
    heights = {item: _height(item, cell) for stack in stacks for item in stack}
    links = _links(stacks, arrows, column)
    _improve(stacks, links, heights)
    y = _settle(stacks, links, heights)
    return Layout(tuple(tuple(stack) for stack in stacks), y, _ports(cell, column, y))


def _height(item: Item, cell: Cell) -> float:
    if item.passing:
        return _PASS
    return _BOX * max(1, sum(edge.node == item.state for edge in cell.edges))


def _links(
    stacks: Sequence[Sequence[Item]], arrows: Sequence[tuple[int, int]], column: Mapping[int, int]
) -> list[list[tuple[Item, Item]]]:
    """For each gap between two columns, the (left item, right item) pairs that a line joins."""
    links: list[list[tuple[Item, Item]]] = [[] for _ in stacks[1:]]
    for source, target in arrows:
        for gap in range(column[source], column[target]):
            left = Item(source, gap > column[source])
            right = Item(target, False) if gap + 1 == column[target] else Item(source, True)
            if (left, right) not in links[gap]:
                links[gap].append((left, right))
    return links


def _stacked(stack: Sequence[Item], heights: Mapping[Item, float]) -> dict[Item, float]:
    """Middles of the items of a column, top to bottom, the column's middle at 0."""
    total = sum(heights[item] for item in stack) + _GAP * (len(stack) - 1)
    top, middles = total / 2, {}
    for item in stack:
        middles[item] = top - heights[item] / 2
        top -= heights[item] + _GAP
    return middles


def _badness(
    stacks: Sequence[Sequence[Item]],
    links: Sequence[Sequence[tuple[Item, Item]]],
    heights: Mapping[Item, float],
) -> tuple[int, float]:
    """(crossings, summed vertical way) of an order."""
    crossings, way = 0, 0.0
    middles = [_stacked(stack, heights) for stack in stacks]
    for gap, pairs in enumerate(links):
        ends = [(middles[gap][a], middles[gap + 1][b]) for a, b in pairs]
        way += sum(abs(left - right) for left, right in ends)
        for i, (a, b) in enumerate(ends):
            crossings += sum((a - c) * (b - d) < 0 for c, d in ends[i + 1 :])
    return crossings, round(way, 9)


def _improve(stacks: list[list[Item]], links: Sequence[Sequence[tuple[Item, Item]]], heights: Mapping[Item, float]) -> None:
    """Exchange any two items of a column while that makes the drawing better; inputs keep their order."""
    best = _badness(stacks, links, heights)
    improved = True
    while improved:
        improved = False
        for stack in stacks[1:]:
            for i in range(len(stack)):
                for j in range(i + 1, len(stack)):
                    stack[i], stack[j] = stack[j], stack[i]
                    now = _badness(stacks, links, heights)
                    if now < best:
                        best, improved = now, True
                    else:
                        stack[i], stack[j] = stack[j], stack[i]


def _settle(
    stacks: Sequence[Sequence[Item]],
    links: Sequence[Sequence[tuple[Item, Item]]],
    heights: Mapping[Item, float],
) -> dict[tuple[int, Item], float]:
    """Heights that follow the neighbours' mean without touching each other."""
    y = {(c, item): at for c, stack in enumerate(stacks) for item, at in _stacked(stack, heights).items()}
    for _ in range(12):
        for c, stack in enumerate(stacks):
            wanted = []
            for item in stack:
                beside = [y[c - 1, a] for a, b in (links[c - 1] if c else ()) if b == item]
                beside += [y[c + 1, b] for a, b in (links[c] if c < len(links) else ()) if a == item]
                wanted.append(sum(beside) / len(beside) if beside else y[c, item])
            for item, at in zip(stack, _apart(wanted, [heights[item] for item in stack]), strict=True):
                y[c, item] = at
    return y


def _apart(wanted: Sequence[float], heights: Sequence[float]) -> list[float]:
    """Heights nearest to `wanted` (least squares) that keep order and distances, top to bottom."""
    offsets = [0.0]
    for above, below in itertools.pairwise(heights):
        offsets.append(offsets[-1] + (above + below) / 2 + _GAP)
    pools: list[list[float]] = []  # [mean, count], means must not grow on the way down
    for want, offset in zip(wanted, offsets, strict=True):
        pools.append([want + offset, 1])
        while len(pools) > 1 and pools[-2][0] < pools[-1][0]:
            mean, count = pools.pop()
            pools[-1] = [
                (pools[-1][0] * pools[-1][1] + mean * count) / (pools[-1][1] + count),
                pools[-1][1] + count,
            ]
    means = [mean for mean, count in pools for _ in range(int(count))]
    return [mean - offset for mean, offset in zip(means, offsets, strict=True)]


def _ports(cell: Cell, column: Mapping[int, int], y: Mapping[tuple[int, Item], float]) -> dict[tuple[int, int], float]:
    """Heights of the operations of each node, ordered as their lines arrive."""
    ports = {}
    for node in cell.nodes:
        edges = [edge for edge in cell.edges if edge.node == node]
        c = column[node]
        arrival = {e.source: y[c - 1, Item(e.source, column[e.source] < c - 1)] for e in edges}
        edges.sort(key=lambda edge: (-arrival[edge.source], edge.source))
        top = y[c, Item(node, False)] + _BOX * (len(edges) - 1) / 2
        for i, edge in enumerate(edges):
            ports[edge.source, node] = top - _BOX * i
    return ports
