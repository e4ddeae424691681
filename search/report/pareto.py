"""Score against cost of several networks: every one with its spread, and those that none beats in both joined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from search.report.figure import COLOURS, MUTED, new_figure, style, to_svg
from search.report.read import number

_MARKERS = "osD^vP*X<>hd"
_HEIGHT, _TOP, _BOTTOM = 3.2, 0.15, 0.5
# costs further apart are drawn on a logarithmic axis
_WIDE = 10.0


def front(points: Sequence[tuple[float, float]], lower: bool = False) -> list[int]:
    """Indices of the points (cost, score) that no other dominates, from the cheapest on.

    One dominates another that is no cheaper and no better, and not equal in both. ``lower``: lower scores are better.
    """
    signed = [(cost, score if lower else -score) for cost, score in points]
    kept: list[int] = []
    best = float("inf")
    for i in sorted(range(len(signed)), key=lambda i: signed[i]):
        equal = bool(kept) and signed[kept[-1]] == signed[i]
        if signed[i][1] < best or equal:
            kept.append(i)
            best = signed[i][1]
    return kept


def pareto(
    entries: Sequence[Mapping[str, Any]], panels: Sequence[tuple[tuple[str, ...], float, str]], score: str, lower: bool
) -> str | None:
    """SVG text of a file of its own; None where no entry has a score.

    ``entries``: the rows of ``benchmark.json``. ``panels``: for each the path of the cost's keys, what it is divided by, and
    its label; one that no entry has is left out. ``score``: the label of the vertical axis.
    """
    scored = [row for row in entries if number(row, "score", "mean") is not None]
    panels = [panel for panel in panels if any(number(row, *panel[0]) is not None for row in scored)]
    if not panels:
        return None
    looks = {row["name"]: look for row, look in zip(scored, zip(cycle(COLOURS), cycle(_MARKERS), strict=False), strict=False)}
    wide = 3.2 * len(panels) + 0.5
    with style():
        width = wide + 0.35 + max(map(len, looks)) * 0.075
        height = max(_HEIGHT, 0.7 + 0.19 * len(looks))
        figure = new_figure(width, height)
        for i, (keys, scale, label) in enumerate(panels):
            box = (0.65 + i * 3.2, _BOTTOM, 2.9, height - _BOTTOM - _TOP)
            place = (box[0] / width, box[1] / height, box[2] / width, box[3] / height)
            axes = figure.add_axes(place, sharey=figure.axes[0] if figure.axes else None)
            axes.grid(True, axis="both")
            _draw(axes, [row for row in scored if number(row, *keys) is not None], keys, scale, looks, lower)
            axes.set_xlabel(label)
            if i == 0:
                axes.set_ylabel(score)
                axes.legend(loc="upper left", bbox_to_anchor=((wide - 0.3 - box[0]) / box[2], 1.02), borderaxespad=0)
            else:
                axes.tick_params(labelleft=False)
        return to_svg(figure, f"{score} against cost", themed=False)


def _draw(
    axes: Axes, rows: Sequence[Mapping[str, Any]], keys: tuple[str, ...], scale: float, looks: Mapping[str, Any], lower: bool
) -> None:
    points = []
    for row in rows:
        cost, mean = (number(row, *keys) or 0.0) / scale, number(row, "score", "mean") or 0.0
        points.append((cost, mean))
        colour, marker = looks[row["name"]]
        axes.errorbar([cost], [mean], yerr=[number(row, "score", "std") or 0.0], ecolor=MUTED, elinewidth=0.8, fmt="none")
        axes.scatter([cost], [mean], s=34, color=colour, marker=marker, linewidths=0, zorder=3, label=row["name"])
    best = [points[i] for i in front(points, lower)]
    axes.plot(*zip(*best, strict=True), color=MUTED, linewidth=1, linestyle="--", zorder=1)
    axes.margins(0.1)
    costs = [cost for cost, _ in points]
    if min(costs) > 0 and max(costs) > _WIDE * min(costs):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_locator(MaxNLocator(5))
