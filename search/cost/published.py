"""A row of a published table, counted: by the convention of its source, beside what was printed.

Rows are mappings as in backbones/published.py; only their figures and their convention are read here.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from search.cost.agreement import agreement
from search.cost.count import count

# what independent counts call the ways of counting, as (parameters, operations); see search/cost/count.py
SOURCES: Mapping[str | None, tuple[str, str]] = {
    None: ("all", "macs"),
    "params P1, madds M0": ("all", "macs"),
    "params P1 + aux head, madds M0": ("with auxiliary", "macs"),
    "params P0 (no BN), madds M0": ("without norms", "macs"),
    "params P0 without fc bias, madds M0+GAP": ("weights", "macs+pool"),
    "params P1; madds M0 + atrous maps padded to a multiple of the rate, 1025x2049": ("all", "macs+atrous"),
    "params P1, madds M0+GAP": ("all", "macs+pool"),
    "params P1, madds M0 + SE-pool + GAP elements": ("all", "macs+pool"),
    "params P1, madds M0 + NL (min order) + SE-pool + GAP elements": ("all", "macs+pool"),
}
# (height, width) that those counted at which differ from the size that is printed
SIZES: Mapping[str | None, tuple[int, int]] = {
    "params P1; madds M0 + atrous maps padded to a multiple of the rate, 1025x2049": (1025, 2049),
}


def input_size_of(row: Mapping[str, Any]) -> tuple[int, int] | None:
    """(height, width) that a row is counted at: what its source counted at, else what it says."""
    size = SIZES.get((row.get("check") or {}).get("convention")) or row.get("input_size")
    return None if size is None else (size[0], size[1])


def conventions_of(row: Mapping[str, Any]) -> tuple[str, str]:
    """(parameters, operations): how the row's source counts, as far as an independent count found out."""
    name = (row.get("check") or {}).get("convention")
    if name not in SOURCES:
        raise ValueError(f"{row['name']}: convention {name!r} is unknown; known are {', '.join(map(repr, SOURCES))}")
    return SOURCES[name]


def counted(
    row: Mapping[str, Any],
    build: Callable[[], nn.Module],
    input_size: Sequence[int],
    convention: str | None = None,
) -> dict[str, Any]:
    """Count what ``build`` makes and compare with the row's print.

    Returns plain values: ``params``, ``macs``, ``activations``, ``input_size``, ``convention``, ``params_convention``; for each
    of params and macs that was printed, its text in ``published``, its ``difference`` (relative) and ``status``; and
    ``remarks``. ``convention`` replaces that of the source, for parameters too (then all are counted).
    """
    params_by, macs_by = conventions_of(row) if convention is None else ("all", convention)
    cost = count(build, tuple(input_size), convention=macs_by, params=params_by)
    result: dict[str, Any] = {
        "name": row["name"],
        "family": row.get("family", ""),
        "params": cost.params,
        "macs": cost.macs,
        "activations": cost.activations,
        "input_size": list(cost.input_size),
        "convention": cost.convention,
        "params_convention": cost.params_convention,
        "published": {},
        "difference": {},
        "status": {},
    }
    printed = row.get("published_as") or {}
    for figure, key, value in (("params", "params", cost.params), ("macs", "madds", cost.macs)):
        if printed.get(key):
            found = agreement(value, printed[key])
            result["published"][figure] = printed[key]
            result["difference"][figure] = found.difference
            result["status"][figure] = found.status
    result["remarks"] = _remarks(row, build, input_size, result)
    return result


def _remarks(
    row: Mapping[str, Any], build: Callable[[], nn.Module], input_size: Sequence[int], result: Mapping[str, Any]
) -> list[str]:
    """What a reader of the numbers must know: inferred rules, why figures differ."""
    check = row.get("check") or {}
    remarks = [f"inferred: {rule}" for rule in check.get("inferred", [])]
    legacy = any("thop_legacy" in name for name in check.get("other_conventions", {}))
    if legacy and result["status"].get("macs") not in (None, "exact") and result["convention"] == "macs":
        macs = count(build, tuple(input_size), convention="thop-legacy").macs
        status = agreement(macs, result["published"]["macs"]).status
        remarks.append(f"as thop-legacy counts: {macs / 1e6:.2f} M, {status}")
    if "mismatch" in result["status"].values() or not check.get("params_m"):
        remarks += [row["notes"]] if row.get("notes") else []
    return remarks
