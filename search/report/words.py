"""Values of the files in words: for tables, tiles and captions."""

from __future__ import annotations

from collections.abc import Mapping

from search.report.read import is_number

_MINUS = "\N{MINUS SIGN}"


def flat(value: object, prefix: str = "") -> list[tuple[str, str]]:
    """A JSON object as rows, nested keys joined by dots."""
    if not isinstance(value, Mapping):
        return [(prefix, plain(value))] if prefix else []
    return [row for key, inner in value.items() for row in flat(inner, f"{prefix}.{key}" if prefix else str(key))]


def plain(value: object) -> str:
    """A value of a JSON file as text."""
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def cell_text(value: object) -> str:
    """A value in a table: a dash for none, two decimals for a fraction."""
    if not is_number(value):
        return "–" if value is None else str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}".replace("-", _MINUS)


def seconds_text(value: object) -> str:
    """Seconds in words, a dash for none."""
    return duration(value) if is_number(value) and value else "–"


def p_text(value: object) -> str:
    """A p-value."""
    return f"{value:.3g}" if is_number(value) else "–"


def millions(value: float) -> str:
    """A count in millions, or whole when it is small."""
    return f"{value / 1e6:,.2f} M" if value >= 1e5 else f"{value:,.0f}"


def duration(seconds: float) -> str:
    """Seconds in words: `1 h 04 min`, `3 min 20 s`, `4.2 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def size_text(size: float) -> str:
    """A number of architectures: whole, or as a power of ten where nobody would count the digits."""
    if size < 1e7:
        return f"{size:,.0f}"
    mantissa, exponent = f"{float(size):.2e}".split("e+")
    raised = str(int(exponent)).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{mantissa}\N{NO-BREAK SPACE}×\N{NO-BREAK SPACE}10{raised}"
