"""A search's budget on the page: limits beside what the derived network costs, and what they took from its likelihood."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from search.report.read import number
from search.report.words import millions

HEAD = ("limit", "derived", "smallest possible", "expected at the end")
METRICS = {"macs": "multiply-adds", "params": "parameters", "activations": "activations", "latency": "latency"}


def section(summary: Mapping[str, Any]) -> dict[str, Any] | None:
    """``head`` and ``rows`` (metric, and what of `HEAD` is known of any) and ``text``; None without a budget."""
    budget = summary.get("budget")
    limits = budget.get("limits") if isinstance(budget, Mapping) else None
    if not isinstance(limits, Mapping):
        return None
    figures = {
        metric: (number(row, "limit"), number(row, "derived"), number(budget, "smallest", metric), number(row, "expected"))
        for metric, row in limits.items()
        if isinstance(row, Mapping)
    }
    # a search without gradients knows neither the smallest nor an expected one
    known = [i for i in range(len(HEAD)) if any(row[i] is not None for row in figures.values())]
    rows = [(METRICS.get(metric, metric), *(_text(metric, row[i]) for i in known)) for metric, row in figures.items()]
    return {"head": ("", *(HEAD[i] for i in known)), "rows": rows, "text": " ".join(_sentences(budget))}


def _text(metric: str, value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.4g} ms" if metric == "latency" else millions(value)


def _sentences(budget: Mapping[str, Any]) -> list[str]:
    lost, size, table = number(budget, "lost_nats"), budget.get("input_size"), budget.get("table")
    said = []
    if "lost_nats" not in budget:
        said.append("Only networks within the budget were scored.")
    elif lost == 0:
        said.append("What the logits decode to is within the budget.")
    else:
        said.append("What the logits decode to is over the budget.")
        if lost is not None:
            least = "the likeliest within it" if budget.get("likeliest") else "the likeliest within it that was found"
            said.append(f"The network kept is {least}, {lost:.3g} nats less likely.")
    if isinstance(size, list):
        said.append(f"Whole networks are counted at {'×'.join(map(str, size))}.")
    if isinstance(table, Mapping):
        measured = f"measured on {table.get('device')} with {table.get('threads')} threads"
        said.append(f"Latency is predicted from {table.get('file')}, {measured}.")
    return said
