"""A walk's trellis: layers from left to right, states as rows, every move as strong as it is likely, the chosen path on top."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.patches import Circle

from search.report.figure import COLOURS, GRID, INK, MUTED, PAPER, new_figure, plain_axes, style, to_svg
from search.space import Walk

_INCH = 0.66  # between two layers and between two states
_RADIUS = 0.2
_LEFT, _TOP = 1.1, 0.75  # room for the names of states and layers
_PATH = COLOURS[0]


def draw_trellis(
    walk: Walk, path: Sequence[object], probabilities: Mapping[str, float] | None = None, themed: bool = True
) -> str:
    """The trellis of a walk with the chosen `path`, as SVG for the report's page, or unthemed as a file (see `to_svg`).

    probabilities: of moves, by `Walk.transition_text`; with them a move's line is as dark as it is likely, and the path's
    moves say theirs. ValueError for a path of another walk.
    """
    path = tuple(path)
    if not walk.contains(path):
        raise ValueError(f"{path!r} is no path of choice {walk.name!r}: {walk.describe()}")
    with style():
        width, height = walk.layers - 1 + _LEFT + 0.5, len(walk.states) - 1 + _TOP + 0.5
        figure = new_figure(width * _INCH, height * _INCH)
        axes = figure.add_axes((0, 0, 1, 1))
        plain_axes(axes)
        axes.set_xlim(-_LEFT, walk.layers - 0.5)
        axes.set_ylim(len(walk.states) - 0.5, -_TOP)
        _draw(axes, walk, path, probabilities or {})
        return to_svg(figure, f"Path {walk.name}", themed)


def _draw(axes: Axes, walk: Walk, path: tuple, probabilities: Mapping[str, float]) -> None:
    row = {state: i for i, state in enumerate(walk.states)}
    chosen = set(walk.transitions_of(path))
    for number, move in enumerate(walk.transitions):
        layer, before, after = move
        if before is None:
            continue
        ends = [layer - 1, layer], [row[before], row[after]]
        p = probabilities.get(walk.transition_text(move))
        if number in chosen:
            axes.plot(*ends, color=_PATH, linewidth=3, solid_capstyle="round", zorder=3)
            if p is not None:
                _label(axes, layer - 0.5, sum(ends[1]) / 2, f"{100 * p:.0f}")
        elif p is None:
            axes.plot(*ends, color=GRID, linewidth=1, zorder=1)
        else:
            axes.plot(*ends, color=MUTED, linewidth=0.6 + 2 * p, alpha=0.15 + 0.85 * p, zorder=1)
    for layer, state in _nodes(walk):
        on = path[layer] == state
        face, edge = (_PATH, _PATH) if on else (PAPER, MUTED)
        axes.add_patch(Circle((layer, row[state]), _RADIUS, facecolor=face, edgecolor=edge, linewidth=1.1, zorder=4))
    for state, i in row.items():
        axes.text(-0.45, i, str(state), ha="right", va="center", color=INK)
    for layer in range(walk.layers):
        axes.text(layer, -0.5, str(layer + 1), ha="center", va="center", color=MUTED)


def _nodes(walk: Walk) -> list[tuple[int, object]]:
    """The (layer, state) pairs that a path meets."""
    first = [(0, state) for layer, before, state in walk.transitions if before is None]
    later = [node for layer, a, b in walk.transitions if a is not None for node in ((layer - 1, a), (layer, b))]
    return list(dict.fromkeys([*first, *later])) or [(0, state) for state in walk.start]


def _label(axes: Axes, x: float, y: float, text: str) -> None:
    box = dict(boxstyle="round,pad=0.12", facecolor=PAPER, edgecolor="none")
    axes.text(x, y, text, ha="center", va="center", size=7, color=INK, bbox=box, zorder=5)
