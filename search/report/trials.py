"""The page's section on trials: scores in their order, and a table of the best."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from search.report import charts
from search.report.read import WorkDir, number
from search.report.words import cell_text, millions, seconds_text

MOST = 50  # rows of the table


def section(found: WorkDir) -> dict[str, Any] | None:
    """What the page shows of a sampling strategy's trials; None where there are none.

    While the search runs nobody has said whether higher scores are better, so the table is in the order of trials.
    """
    if not found.trials:
        return None
    best = number(found.summary, "best_trial")
    scores = {row["trial"]: number(row, "score", "validation") for row in found.trials}
    rows = found.trials if best is None else sorted(found.trials, key=lambda row: _from_best(scores, best, row["trial"]))
    return {
        "chart": Markup(charts.trials(found.trials) or ""),
        "table": [_cells(row) for row in rows[:MOST]],
        "more": len(rows[MOST:]),
        "sorted": best is not None,
    }


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    costs = (number(row, "cost", key) for key in ("params", "macs"))
    return (
        cell_text(row["trial"]),
        *("–" if cost is None else millions(cost) for cost in costs),
        cell_text(number(row, "score", "validation")),
        seconds_text(row.get("seconds")),
    )


def _from_best(scores: Mapping[float, float | None], best: float, trial: float) -> tuple[float, float]:
    """How far a trial's score is from the best one's; those without a score come last."""
    top, own = scores.get(best), scores[trial]
    return math.inf if own is None or top is None else abs(top - own), trial
