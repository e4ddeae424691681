"""Whether a count agrees with a printed figure, at the precision it was printed with."""

import math
import re
from dataclasses import dataclass

CLOSE = 0.02
_UNITS = {"": 1e6, "K": 1e3, "M": 1e6, "B": 1e9, "G": 1e9}
_PRINTED = re.compile(r"([0-9]+)(?:\.([0-9]+))?([KMBG]?)")


@dataclass(frozen=True)
class Agreement:
    """``status``: "exact", "exact (truncated)", "close" (within 2 %) or "mismatch"; ``difference``: relative to the print."""

    status: str
    difference: float


def printed_value(text: str) -> tuple[float, float]:
    """The number a table prints and the unit of its last digit, both as plain counts.

    A number without a letter is in millions, as in such tables; K, M, B and G say otherwise. ValueError for
    anything else.
    """
    match = _PRINTED.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no printed count, such as '5.3', '390M' or '0.39B'")
    whole, fraction, letter = match[1], match[2] or "", match[3]
    unit = _UNITS[letter] * 10.0 ** -len(fraction)
    return int(whole + fraction) * unit, unit


def agreement(count: int, printed: str) -> Agreement:
    """How a count and a printed figure agree. A source that cuts digits off where it should round is "truncated"."""
    value, unit = printed_value(printed)
    # a count halfway between two prints agrees with both; a float's own error mustn't decide
    slack = 1e-6 * unit
    difference = (count - value) / value
    if abs(count - value) <= unit / 2 + slack:
        return Agreement("exact", difference)
    if math.floor((count + slack) / unit) == round(value / unit):
        return Agreement("exact (truncated)", difference)
    return Agreement("close" if abs(difference) <= CLOSE else "mismatch", difference)
