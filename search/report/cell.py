"""A cell's graph: states left to right, each node beside the operations it adds up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.patches import Circle, FancyBboxPatch, PathPatch
from matplotlib.path import Path

from search.report.figure import INK, MUTED, PAPER, colour_of, new_figure, plain_axes, readable, style, to_svg
from search.report.graph import Cell, cell_names, cell_of, edge_of
from search.report.layout import OUTPUT, Item, Layout, lay_out
from search.space import Space

_SLOT = 0.34  # inches per slot: the drawing's unit
_PILL_HEIGHT = 0.72
_RADIUS = 0.42
_LEAD = 2.6  # between two columns, where lines change height
_STEM = 0.5  # between an operation and its node
_LETTER = 0.205  # width of a letter of the labels


def draw_cell(space: Space, architecture: Mapping[str, object], cell: str) -> str:
    """The cell `cell` of an architecture as SVG for the report's page (see `to_svg`).

    ValueError when the space has no such cell.
    """
    return _draw(space, architecture, (cell,), themed=True)


def draw_file(space: Space, architecture: Mapping[str, object], cells: Sequence[str] = ()) -> str:
    """The named cells (by default all), one below the other, as an SVG file of its own on white.

    ValueError when the space has no cell, or not one of those named.
    """
    every = cell_names(choice.name for choice in space)
    if not every:
        raise ValueError(f"space {space.name!r} has no cell to draw: none of its choices is an edge")
    return _draw(space, architecture, tuple(cells) or every, themed=False)


def _draw(space: Space, architecture: Mapping[str, object], cells: Sequence[str], themed: bool) -> str:
    with style():
        panels = [_Panel(cell_of(space, architecture, cell)) for cell in cells]
        heading = 1.0 if len(cells) > 1 else 0.0
        width = max(panel.width for panel in panels)
        height = sum(panel.height + heading for panel in panels)
        figure = new_figure(width * _SLOT, height * _SLOT)
        top = height
        for panel in panels:
            if heading:
                figure.text(0.3 / width, (top - 0.5) / height, panel.cell.name, weight="bold", va="center")
            top -= panel.height + heading
            axes = figure.add_axes((0, top / height, panel.width / width, panel.height / height))
            panel.draw(axes, operations(space, panel.cell.name))
        return to_svg(figure, "Cell " + " and ".join(cell or space.name for cell in cells), themed)


class _Panel:
    """One cell with its places and its size in slots."""

    def __init__(self, cell: Cell) -> None:
        self.cell, self.places, self.geometry = cell, lay_out(cell), _Geometry(cell)
        ends = [(y, _half(item, cell)) for (_, item), y in self.places.y.items()]
        self.bottom = min(y - half for y, half in ends) - 0.35
        self.height = max(y + half for y, half in ends) + 0.35 - self.bottom
        self.width = self.geometry.right(self.geometry.last) + 0.3

    def draw(self, axes: Axes, options: Sequence[object]) -> None:
        plain_axes(axes)
        axes.set_xlim(0, self.width)
        axes.set_ylim(self.bottom, self.bottom + self.height)
        _lines(axes, self.cell, self.places, self.geometry)
        _parts(axes, self.cell, self.places, self.geometry, options)


def operations(space: Space, cell: str | None = None) -> tuple[object, ...]:
    """Every operation that an edge of the space (of `cell`, if given) may take.

    In order of first appearance, those that only the relaxation has last: an operation's place gives its
    colour.
    """
    edges = [choice for choice in space if (edge := edge_of(choice.name)) and cell in (None, edge[0])]
    decodable = [option for choice in edges for option in choice.decodable]
    return tuple(dict.fromkeys([*decodable, *(option for choice in edges for option in choice.options)]))


class _Geometry:
    """Horizontal places of a cell's drawing, in slots."""

    def __init__(self, cell: Cell) -> None:
        self.inputs = {
            state: f"input {i}" if len(cell.inputs) != 2 else ("cell k−2", "cell k−1")[i] for i, state in enumerate(cell.inputs)
        }
        longest = max((len(readable(edge.operation)) for edge in cell.edges), default=4)
        self.pill = longest * _LETTER + 0.7
        self.input = max(len(label) for label in self.inputs.values()) * _LETTER + 0.7 if self.inputs else 1.0
        self.output = len("concat") * _LETTER + 0.7
        self.last = max(cell.columns().values()) + 1

    def left(self, column: int) -> float:
        """Where lines enter a column."""
        body = self.pill + _STEM + 2 * _RADIUS
        return 0.3 if column == 0 else 0.3 + self.input + _LEAD + (column - 1) * (body + _LEAD)

    def right(self, column: int) -> float:
        """Where lines leave a column."""
        if column == 0:
            return self.left(0) + self.input
        if column == self.last:
            return self.left(column) + self.output
        return self.left(column) + self.pill + _STEM + 2 * _RADIUS


def _half(item: Item, cell: Cell) -> float:
    return 0.25 if item.passing else max(1, sum(edge.node == item.state for edge in cell.edges)) / 2


def _curve(axes: Axes, x0: float, y0: float, x1: float, y1: float, faint: bool) -> None:
    """A line that leaves and arrives level."""
    bend = (x1 - x0) * 0.55
    path = Path([(x0, y0), (x0 + bend, y0), (x1 - bend, y1), (x1, y1)], [1, 4, 4, 4])
    dashes = (0, (3, 2)) if faint else "-"
    width = 0.9 if faint else 1.3
    axes.add_patch(PathPatch(path, fill=False, edgecolor=MUTED, linewidth=width, linestyle=dashes, zorder=1))


def _lines(axes: Axes, cell: Cell, places: Layout, geometry: _Geometry) -> None:
    column = {**cell.columns(), OUTPUT: geometry.last}
    arrows = [(edge.source, edge.node) for edge in cell.edges] + [(node, OUTPUT) for node in cell.nodes]
    # a passage is solid when an operation reads the state beyond it, dashed when only the output does
    solid = {(edge.source, c) for edge in cell.edges for c in range(column[edge.source] + 1, column[edge.node])}
    drawn = set()
    for source, target in arrows:
        for gap in range(column[source], column[target]):
            arrives = gap + 1 == column[target]
            start = places.y[gap, Item(source, gap > column[source])]
            end = places.y[gap + 1, Item(target if arrives else source, not arrives)]
            if arrives and target != OUTPUT:
                end = places.ports[source, target]
            if (source, gap, end) in drawn:
                continue
            drawn.add((source, gap, end))
            faint = target == OUTPUT and (arrives or (source, gap + 1) not in solid)
            _curve(axes, geometry.right(gap), start, geometry.left(gap + 1), end, faint)
            if not arrives:
                _curve(axes, geometry.left(gap + 1), end, geometry.right(gap + 1), end, faint)


def _box(axes: Axes, x: float, y: float, width: float, label: str, face: str, ink: str, edge: str) -> None:
    axes.add_patch(
        FancyBboxPatch(
            (x, y - _PILL_HEIGHT / 2),
            width,
            _PILL_HEIGHT,
            boxstyle="round,pad=0,rounding_size=0.16",
            facecolor=face,
            edgecolor=edge,
            linewidth=1.1,
            zorder=3,
        )
    )
    axes.text(x + width / 2, y, label, ha="center", va="center_baseline", color=ink, zorder=4)


def _parts(axes: Axes, cell: Cell, places: Layout, geometry: _Geometry, options: Sequence[object]) -> None:
    column = cell.columns()
    for state, label in geometry.inputs.items():
        _box(axes, geometry.left(0), places.y[0, Item(state, False)], geometry.input, label, PAPER, INK, MUTED)
    _box(
        axes,
        geometry.left(geometry.last),
        places.y[geometry.last, Item(OUTPUT, False)],
        geometry.output,
        "concat",
        PAPER,
        INK,
        MUTED,
    )
    for edge in cell.edges:
        c, y = column[edge.node], places.ports[edge.source, edge.node]
        colour = colour_of(edge.operation, [str(option) for option in options])
        _box(axes, geometry.left(c), y, geometry.pill, readable(edge.operation), colour, "white", colour)
        x0, x1 = geometry.left(c) + geometry.pill, geometry.left(c) + geometry.pill + _STEM + _RADIUS
        axes.plot(
            [x0, x1],
            [y, places.y[c, Item(edge.node, False)]],
            color=MUTED,
            linewidth=1.3,
            zorder=2,
            solid_capstyle="round",
        )
    for node in cell.nodes:
        c = column[node]
        x, y = geometry.right(c) - _RADIUS, places.y[c, Item(node, False)]
        axes.add_patch(Circle((x, y), _RADIUS, facecolor=PAPER, edgecolor=INK, linewidth=1.2, zorder=3))
        axes.text(x, y, str(node), ha="center", va="center_baseline", weight="bold", zorder=4)
