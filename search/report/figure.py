"""Matplotlib figures as SVG text: the same input gives the same bytes, on any day.

Four colours are names in disguise: inside the page they become CSS variables, so one drawing serves light and
dark.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

INK, MUTED, GRID, PAPER = "#1f2329", "#66707a", "#d5dae0", "#fdfdfe"
_VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--grid", PAPER: "--paper"}

# readable with white text on them, and as lines on white and on near-black
COLOURS = (
    "#2f6fd0",
    "#b45f06",
    "#2b8a57",
    "#8250c4",
    "#c23b4a",
    "#0e7c86",
    "#a8479b",
    "#7a6a1f",
    "#4d63a8",
    "#8a5a44",
    "#5c7f29",
    "#a13d70",
)
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "visnas",
    "font.family": ["DejaVu Sans", "sans-serif"],
    "font.size": 8.5,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.titlesize": 9,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "path.simplify": True,
}


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of `width` x `height` inches; no pyplot, so nothing global is left behind."""
    figure = Figure(figsize=(width, height), layout="none")
    FigureCanvasSVG(figure)
    return figure


def style() -> matplotlib.RcParams:
    """Context manager under which figures are made and written."""
    return matplotlib.rc_context(_STYLE)


def to_svg(figure: Figure, title: str, themed: bool = True) -> str:
    """The figure as an SVG element.

    title: said by screen readers. themed: for the page, where colours are CSS variables and the width is the
    reader's; otherwise a file of its own, on white, readable by any viewer.
    """
    target = io.StringIO()
    keys = ("Date", "Creator", "Format", "Type")
    with style():
        figure.savefig(target, format="svg", metadata=dict.fromkeys(keys), facecolor="none" if themed else "white")
    text = target.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    escaped = title.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"(<svg[^>]*)>", rf'\1 role="img">\n <title>{_literal(escaped)}</title>', text, count=1)
    if not themed:
        return '<?xml version="1.0" encoding="utf-8"?>\n' + text
    width = figure.get_figwidth() * 96
    text = re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"|(<svg[^>]*?) height="[^"]*"', r"\1\2", text, count=1)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = text.replace("<svg", f'<svg style="max-width: {width:.0f}px"', 1)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable}, {colour})")
    return _own_ids(text, re.sub(r"\W+", "-", title.lower()).strip("-"))


def _literal(text: str) -> str:
    return text.replace("\\", r"\\")


def _own_ids(text: str, prefix: str) -> str:
    """Prefix every id, so that drawings on one page don't share any."""
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r"url\(#", f"url(#{prefix}-", text)
    return re.sub(r'href="#', f'href="#{prefix}-', text)


def readable(option: object) -> str:
    """An option as a label: `sep_conv_3x3` -> `sep conv 3×3`."""
    return re.sub(r"(?<=\d)x(?=\d)", "×", str(option).replace("_", " "))


def colour_of(option: object, options: Sequence[object]) -> str:
    """The colour of an option: by its place among `options`, grey where it is none of them."""
    return COLOURS[list(options).index(option) % len(COLOURS)] if option in options else "#6b7480"


def plain_axes(axes: Axes) -> None:
    """No frame, no ticks: for drawings that are no chart."""
    axes.set_axis_off()
    axes.set_aspect("equal")
