"""The report's charts: each a pure function of values read from the work directory, returning SVG text or
None.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from search.report.figure import COLOURS, GRID, INK, MUTED, new_figure, style, to_svg
from search.report.read import number, series

_WIDTH, _HEIGHT = 5.6, 2.7


def losses(history: Sequence[Mapping[str, Any]]) -> str | None:
    """Training loss of the weights and loss of the architecture step, by epoch."""
    return _by_epoch(
        history,
        "Losses",
        [("weights (training split)", ("train_loss",)), ("architecture split", ("arch_loss",))],
    )


def scores(history: Sequence[Mapping[str, Any]], key: str) -> str | None:
    """Score of the supernet and of the derived architecture with the supernet's weights, or the validation
    score.
    """
    rows = [
        ("supernet, all operations", ("score", "supernet")),
        ("derived architecture only", ("score", "derived")),
        ("validation", ("score", "validation")),
    ]
    return _by_epoch(history, f"Score: {key}", rows)


def gap(history: Sequence[Mapping[str, Any]]) -> str | None:
    """Discretisation gap by epoch."""
    return _by_epoch(history, "Discretisation gap", [("supernet − derived", ("gap",))], zero=True)


def skips(history: Sequence[Mapping[str, Any]]) -> str | None:
    """Share of skips among the derived operations and the gates' relative entropy, by epoch, both from 0 to
    1.
    """
    rows = [
        ("skip share of the derived cells", ("skip_share",)),
        ("relative entropy of the gates", ("entropy",)),
    ]
    return _by_epoch(history, "Skip share and entropy", rows, limits=(0, 1.04))


def _by_epoch(
    history: Sequence[Mapping[str, Any]],
    title: str,
    rows: Sequence[tuple[str, tuple[str, ...]]],
    zero: bool = False,
    limits: tuple[float, float] | None = None,
) -> str | None:
    """Lines over the epochs; None when no line has a value."""
    found = [(label, *series(history, *keys)) for label, keys in rows]
    found = [(label, xs, ys) for label, xs, ys in found if xs]
    if not found:
        return None
    with style():
        figure = new_figure(_WIDTH, _HEIGHT)
        axes = figure.add_axes((0.1, 0.16, 0.87, 0.68))
        shade_warm_up(axes, history)
        for i, (label, xs, ys) in enumerate(found):
            axes.plot(xs, ys, color=COLOURS[i], label=label, marker="o" if len(xs) == 1 else None, markersize=4)
        if zero:
            axes.axhline(0, color=MUTED, linewidth=0.8)
        epochs(axes, history)
        if limits:
            axes.set_ylim(*limits)
        axes.set_xlabel("epoch")
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=len(found), borderaxespad=0.2)
        return to_svg(figure, title)


def epochs(axes: Axes, history: Sequence[Mapping[str, Any]]) -> None:
    """Whole epochs on the horizontal axis, the same range on every chart."""
    numbers = [float(row["epoch"]) for row in history]
    low, high = min(numbers), max(numbers)
    margin = (high - low) * 0.02 or 0.5
    axes.set_xlim(low - margin, high + margin)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(5))


def shade_warm_up(axes: Axes, history: Sequence[Mapping[str, Any]]) -> None:
    """Grey where the logits were frozen."""
    frozen = [float(row["epoch"]) for row in history if row.get("phase") == "freeze"]
    if frozen:
        axes.axvspan(min(frozen) - 0.5, max(frozen) + 0.5, color=GRID, alpha=0.45, linewidth=0)


def trials(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """The score of every trial, and the best so far; None where none has a score."""
    scored = [(row["trial"], value) for row in rows if (value := number(row, "score", "validation")) is not None]
    best = [(row["trial"], value) for row in rows if (value := number(row, "best")) is not None]
    if not scored:
        return None
    with style():
        figure = new_figure(_WIDTH, _HEIGHT)
        axes = figure.add_axes((0.1, 0.16, 0.87, 0.68))
        axes.scatter(*zip(*scored, strict=True), s=22, color=MUTED, linewidths=0, label="a trial", zorder=2)
        if best:
            axes.step(*zip(*best, strict=True), where="post", color=COLOURS[0], label="best so far", zorder=3)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel("trial")
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, borderaxespad=0.2)
        return to_svg(figure, "Trials")


def beside_random(summary: Mapping[str, Any]) -> str | None:
    """Cost and score with the supernet's weights: the searched architecture beside the random ones."""
    derived = summary.get("derived")
    drawn = [row for row in rows_of(summary.get("random")) if number(row, "score_supernet") is not None]
    if not isinstance(derived, Mapping) or number(derived, "score_supernet") is None or not drawn:
        return None
    panels = [("params", 1e6, "parameters, M"), ("macs", 1e6, "multiply-adds, M")]
    panels = [panel for panel in panels if all(number(row, panel[0]) is not None for row in (derived, *drawn))]
    if not panels:
        return None
    with style():
        figure = new_figure(_WIDTH, _HEIGHT)
        for i, (key, scale, label) in enumerate(panels):
            axes = figure.add_axes((0.1 + i * 0.46, 0.17, 0.41 if len(panels) == 2 else 0.87, 0.67))
            axes.grid(True, axis="both")
            xs = [number(row, key) / scale for row in drawn]
            axes.scatter(xs, [number(row, "score_supernet") for row in drawn], s=28, color=MUTED, label="random")
            axes.scatter(
                [number(derived, key) / scale],
                [number(derived, "score_supernet")],
                s=90,
                marker="*",
                color=COLOURS[0],
                zorder=3,
                label="searched",
            )
            axes.set_xlabel(label)
            axes.margins(0.12)
            axes.xaxis.set_major_locator(MaxNLocator(4))
            axes.yaxis.set_major_locator(MaxNLocator(5))
            if i == 0:
                axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, borderaxespad=0.2)
            else:
                axes.set_yticklabels([])
        return to_svg(figure, "Searched and random")


def groups(compare: Mapping[str, Any], key: str = "test") -> str | None:
    """Every run of a comparison as a dot, group by group, with mean and one standard deviation."""
    runs = [row for row in rows_of(compare.get("runs")) if number(row, key) is not None]
    names = list(dict.fromkeys(str(row.get("group")) for row in runs))
    if not names:
        return None
    with style():
        left = max(len(name) for name in names) * 0.075 + 0.25
        figure = new_figure(_WIDTH + 1, 0.42 * len(names) + 0.75)
        width, height = figure.get_size_inches()
        axes = figure.add_axes((left / width, 0.5 / height, 0.97 - left / width, 1 - 0.65 / height))
        axes.grid(True, axis="x")
        axes.grid(False, axis="y")
        for i, name in enumerate(names):
            values = [number(row, key) for row in runs if str(row.get("group")) == name]
            colour = COLOURS[i % len(COLOURS)]
            mean, std = number(compare, "groups", name, "mean"), number(compare, "groups", name, "std")
            if mean is not None:
                axes.plot([mean, mean], [i - 0.26, i + 0.26], color=INK, linewidth=1.6, zorder=2)
            if mean is not None and std is not None:
                axes.plot([mean - std, mean + std], [i, i], color=INK, linewidth=1, zorder=2)
            axes.scatter(values, [i] * len(values), s=30, color=colour, alpha=0.85, linewidths=0, zorder=3)
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.spines["left"].set_visible(False)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.margins(x=0.08)
        axes.set_xlabel(f"{key} score")
        return to_svg(figure, f"Comparison, {key}")


def rows_of(value: object) -> list[Mapping[str, Any]]:
    """The objects of a JSON list; anything else counts as none."""
    return [row for row in value if isinstance(row, Mapping)] if isinstance(value, list) else []
