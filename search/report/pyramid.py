"""A searched feature pyramid of merging cells: its levels as rows, the pyramid's inputs and then the cells from left to right.

The convention (backbones/nas_fpn.py): features are numbered, inputs first; `<name>/n<j>/a` and `<name>/n<j>/b|a=<i>` are the
two that cell j merges by `<name>/n<j>/op` at `<name>/n<j>/level`, and `<name>/outputs` are the levels of the last cells. A
feature that no earlier cell has taken is added to the output of its level.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.patches import Circle, FancyArrowPatch, Patch

from search.report.figure import INK, MUTED, PAPER, colour_of, new_figure, plain_axes, readable, style, to_svg
from search.space import Space

_FIRST = re.compile(r"^(?P<pyramid>.+)/n\d+/a$")
_CHOICE = re.compile(r"^(?P<pyramid>.+)/(n\d+/(a|b\|a=\d+|op|level)|outputs)$")
_INCH = 0.72  # between two columns and between two levels
_RADIUS = 0.22
_LEFT, _BOTTOM = 0.9, 0.6  # room for the levels' names and for the legend
_RISE = 0.8  # twice how far a bent line rises above the straight one


@dataclass(frozen=True)
class Cell:
    """A merging cell: the level it makes, its operation, the features it merges, those added to it as an output."""

    level: int
    op: str
    inputs: tuple[int, int]
    added: tuple[int, ...]


def pyramid_names(names: Iterable[str]) -> tuple[str, ...]:
    """The pyramids that the choices `names` describe, in order of first appearance."""
    names = list(names)
    found = (match["pyramid"] for name in names if (match := _FIRST.match(name)))
    return tuple(name for name in dict.fromkeys(found) if f"{name}/outputs" in names)


def pyramid_of(name: str) -> str | None:
    """The pyramid of a choice that its drawing shows, else None."""
    match = _CHOICE.match(name)
    return match["pyramid"] if match else None


def cells_of(architecture: Mapping[str, object], pyramid: str) -> tuple[tuple[int, ...], tuple[Cell, ...]]:
    """The levels of the inputs, finest first, and the cells."""
    order = architecture[f"{pyramid}/outputs"]
    assert isinstance(order, tuple | list)
    outputs = [int(level) for level in order]
    levels = tuple(sorted(outputs))
    numbers = sorted(int(name.split("/n")[-1].split("/")[0]) for name in architecture if name.startswith(f"{pyramid}/n"))
    known, taken, cells = list(levels), set[int](), []
    for number in dict.fromkeys(numbers):
        at = f"{pyramid}/n{number}"
        first = int(str(architecture[f"{at}/a"]))
        second = int(str(architecture[f"{at}/b|a={first}"]))
        is_output = f"{at}/level" not in architecture
        level = outputs.pop(0) if is_output else int(str(architecture[f"{at}/level"]))
        taken |= {first, second}
        added = tuple(i for i, other in enumerate(known) if is_output and other == level and i not in taken)
        taken |= set(added)
        cells.append(Cell(level, str(architecture[f"{at}/op"]), (first, second), added))
        known.append(level)
    return levels, tuple(cells)


def draw_pyramid(space: Space, architecture: Mapping[str, object], pyramid: str, themed: bool = True) -> str:
    """The pyramid as SVG for the report's page, or unthemed as a file (see `to_svg`). ValueError for one that isn't there."""
    names = pyramid_names(choice.name for choice in space)
    if pyramid not in names:
        raise ValueError(f"space {space.name!r} has no pyramid {pyramid!r}; it has {', '.join(names) or 'none'}")
    levels, cells = cells_of(architecture, pyramid)
    options = next(choice.options for choice in space if re.match(rf"^{re.escape(pyramid)}/n\d+/op$", choice.name))
    with style():
        width, height = len(cells) + _LEFT + 0.6, len(levels) + 0.2 + _BOTTOM
        figure = new_figure(width * _INCH, height * _INCH)
        axes = figure.add_axes((0, 0, 1, 1))
        plain_axes(axes)
        axes.set_xlim(-_LEFT, len(cells) + 0.6)
        axes.set_ylim(levels[0] - 0.5 - _BOTTOM, levels[-1] + 0.7)
        _draw(axes, levels, cells, [str(option) for option in options])
        return to_svg(figure, f"Pyramid {pyramid}", themed)


def _draw(axes: Axes, levels: Sequence[int], cells: Sequence[Cell], options: Sequence[str]) -> None:
    places = [(0, level) for level in levels] + [(column, cell.level) for column, cell in enumerate(cells, 1)]
    outputs = len(places) - len(levels)
    for number, cell in enumerate(cells, len(levels)):
        for source in (*cell.inputs, *cell.added):
            _arrow(axes, places[source], places[number], source in cell.added)
    for number, (x, y) in enumerate(places):
        op = cells[number - len(levels)].op if number >= len(levels) else None
        face = PAPER if op is None else colour_of(op, list(options))
        edge = MUTED if op is None else INK if number >= outputs else face
        axes.add_patch(Circle((x, y), _RADIUS, facecolor=face, edgecolor=edge, linewidth=1.6, zorder=3))
        colour = INK if op is None else "white"
        axes.text(x, y, str(number), ha="center", va="center_baseline", color=colour, weight="bold", zorder=4)
    for level in levels:
        axes.text(-0.45, level, f"P{level}", ha="right", va="center", color=INK)
    legend = [Patch(facecolor=colour_of(op, list(options)), label=readable(op)) for op in options]
    legend.append(Patch(facecolor=PAPER, edgecolor=INK, label="ringed: an output"))
    axes.legend(handles=legend, loc="lower center", ncols=len(legend), handlelength=1)


def _arrow(axes: Axes, start: tuple[int, int], end: tuple[int, int], faint: bool) -> None:
    """Bent where it would run through the features between."""
    columns = end[0] - start[0]
    bend = -_RISE / columns if columns > 1 else 0.0
    axes.add_patch(
        FancyArrowPatch(
            start,
            end,
            connectionstyle=f"arc3,rad={bend}",
            arrowstyle="-|>",
            mutation_scale=8,
            shrinkA=_RADIUS * _INCH * 72,
            shrinkB=_RADIUS * _INCH * 72,
            color=MUTED,
            linewidth=0.9 if faint else 1.3,
            linestyle=(0, (3, 2)) if faint else "-",
            zorder=1,
        )
    )
