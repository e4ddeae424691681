"""Probabilities of the architecture over time: one small chart for every choice, placed as the cell's edges
are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from search.report.cell import operations
from search.report.charts import epochs, shade_warm_up
from search.report.figure import COLOURS, INK, MUTED, colour_of, new_figure, readable, style, to_svg
from search.report.graph import edge_of, node_of
from search.report.read import probabilities
from search.space import Space

_WIDE, _HIGH = 1.72, 1.18  # inches of one small chart
_POINTS = 240  # a line needs no more
MOST = 60  # small charts of choices outside cells

History = Sequence[Mapping[str, Any]]


def over_time(space: Space, history: History, cell: str) -> str | None:
    """The probabilities of a cell's choices by epoch; None when the history has none of them.

    Rows are the nodes, columns the states an edge comes from; a last column holds the weights of the edges
    where the strategy learns them.
    """
    edges, nodes = {}, {}
    for choice in space:
        edge, node = edge_of(choice.name), node_of(choice.name)
        if edge and edge[0] == cell and probabilities(history, choice.name)[0]:
            edges[edge[1], edge[2]] = choice
        if node and node[0] == cell and probabilities(history, choice.name)[0]:
            nodes[node[1]] = choice
    if not edges:
        return None
    rows = sorted({node for node, _ in edges} | set(nodes))
    columns = sorted({source for _, source in edges})
    options = operations(space, cell)
    every = [value for c in edges.values() for row in probabilities(history, c.name)[1] for value in row]
    limits = (min(every), max(every))
    with style():
        count = len(columns) + bool(nodes)
        # where colours repeat, only the name of the strongest option tells what a line is
        legend = len(options) <= len(COLOURS)
        figure, axes_at = _grid(len(rows), count, legend)
        for (node, source), choice in edges.items():
            axes = axes_at(rows.index(node), columns.index(source))
            colours = [colour_of(option, options) for option in choice.options]
            best = _plot(axes, history, choice.name, colours, limits)
            _title(axes, f"{source} → {node}", readable(choice.options[best]))
        for node, choice in nodes.items():
            axes = axes_at(rows.index(node), len(columns))
            _plot(axes, history, choice.name, [INK] * len(choice.options), None)
            _ends(axes, history, choice)
            _title(axes, f"edge weights into {node}", "")
        if legend:
            _legend(figure, options)
        return to_svg(figure, f"Probabilities of {cell or space.name}")


def others_over_time(space: Space, history: History) -> tuple[str | None, int]:
    """(chart of the choices that no cell shows, how many more there are than it shows)."""
    names = [choice for choice in space if not edge_of(choice.name) and not node_of(choice.name)]
    found = [choice for choice in names if probabilities(history, choice.name)[0] and hasattr(choice, "options")]
    if not found:
        return None, 0
    shown = found[:MOST]
    columns = min(5, len(shown))
    with style():
        figure, axes_at = _grid(-(-len(shown) // columns), columns, legend=False)
        for i, choice in enumerate(shown):
            axes = axes_at(i // columns, i % columns)
            colours = [COLOURS[j % len(COLOURS)] for j in range(len(choice.options))]
            best = _plot(axes, history, choice.name, colours, None)
            _title(axes, choice.name, readable(choice.options[best]))
        return to_svg(figure, f"Probabilities of {space.name}"), len(found) - len(shown)


def _grid(rows: int, columns: int, legend: bool = True) -> tuple[Figure, Any]:
    foot, head = 0.3, 0.55 if legend else 0.1
    width, height = columns * _WIDE + 0.3, rows * _HIGH + foot + head
    figure = new_figure(width, height)

    def axes_at(row: int, column: int) -> Axes:
        left, bottom = column * _WIDE + 0.38, foot + (rows - 1 - row) * _HIGH + 0.12
        axes = figure.add_axes((left / width, bottom / height, (_WIDE - 0.5) / width, (_HIGH - 0.44) / height))
        axes.tick_params(labelsize=6.5, length=0, pad=2)
        return axes

    return figure, axes_at


def _plot(axes: Axes, history: History, name: str, colours: Sequence[str], limits: tuple[float, float] | None) -> int:
    """Draw a choice's lines, the strongest at the end in full colour; returns its index."""
    xs, values = probabilities(history, name)
    step = -(-len(xs) // _POINTS)
    keep = sorted({*range(0, len(xs), step), len(xs) - 1})
    best = max(range(len(values[-1])), key=values[-1].__getitem__)
    shade_warm_up(axes, history)
    for i, colour in enumerate(colours[: len(values[-1])]):
        axes.plot(
            [xs[k] for k in keep],
            [values[k][i] for k in keep],
            color=colour,
            zorder=3 if i == best else 2,
            linewidth=1.9 if i == best else 0.9,
            alpha=1 if i == best else 0.75,
            marker="o" if len(xs) == 1 else None,
            markersize=3,
        )
    epochs(axes, history)
    low, high = limits or (min(map(min, values)), max(map(max, values)))
    margin = (high - low) * 0.07 or 0.05
    axes.set_ylim(low - margin, high + margin)
    axes.locator_params(axis="y", nbins=3)
    axes.locator_params(axis="x", nbins=3)
    return best


def _title(axes: Axes, left: str, right: str) -> None:
    axes.text(0, 1.05, left, transform=axes.transAxes, size=7.5, weight="bold")
    # a long name takes two lines
    axes.text(1, 1.05, fill(right, 16), transform=axes.transAxes, size=7, color=MUTED, ha="right", linespacing=1.0)


def _ends(axes: Axes, history: History, choice: Any) -> None:
    """Name the edges beside the ends of their lines, apart from each other."""
    xs, values = probabilities(history, choice.name)
    low, high = axes.get_ylim()
    apart = (high - low) * 0.15
    order = sorted(range(len(values[-1])), key=values[-1].__getitem__)
    places: list[float] = []
    for i in order:
        places.append(max(values[-1][i], places[-1] + apart) if places else values[-1][i])
    lower = sum(places) / len(places) - sum(values[-1]) / len(places)
    for i, at in zip(order, places, strict=True):
        axes.annotate(
            str(choice.options[i]),
            (xs[-1], at - lower),
            xytext=(6, 0),
            textcoords="offset points",
            size=6.5,
            color=INK,
            va="center",
            annotation_clip=False,
        )


def _legend(figure: Figure, options: Sequence[object]) -> None:
    handles = [Line2D([], [], color=colour_of(option, options), linewidth=2) for option in options]
    figure.legend(
        handles,
        [readable(option) for option in options],
        loc="upper left",
        ncols=min(4, len(options)),
        bbox_to_anchor=(0.01, 1.0),
        handlelength=1.4,
        columnspacing=1.2,
        labelspacing=0.25,
    )
