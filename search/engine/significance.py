"""Is one group of results higher than another? Small samples: exact Mann-Whitney tests, and a verdict in
words.

H. B. Mann, D. R. Whitney, "On a test of whether one of two random variables is stochastically larger than the
other", 1947. Two-sided, exact: p is twice the smaller tail among all ways to divide the pooled values into
groups of these sizes. scipy's exact distribution holds for values without ties; with ties the rank sums of all divisions are
counted here, ranks being midranks. Where there are no ties both give the same p.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from statistics import fmean, stdev

from scipy.stats import mannwhitneyu, rankdata

LEVEL = 0.05


@dataclass(frozen=True)
class Comparison:
    """Two groups by name: the statistic U of ``a``, the exact two-sided p, and the verdict in words.

    Where a test can't be computed, ``u`` and ``p`` are None and the verdict says why.
    """

    a: str
    b: str
    u: float | None
    p: float | None
    verdict: str


def mann_whitney(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """(U of ``a``, exact two-sided p); ValueError for an empty group or nan."""
    if not a or not b:
        raise ValueError("A test needs at least one value in each group.")
    pooled = [*a, *b]
    if any(math.isnan(value) for value in pooled):
        raise ValueError("A test needs numbers; one of the values is nan.")
    if len(set(pooled)) == len(pooled):
        found = mannwhitneyu(a, b, alternative="two-sided", method="exact")
        return float(found.statistic), float(found.pvalue)
    # midranks are halves: twice a rank is a whole number
    ranks = [round(2 * float(rank)) for rank in rankdata(pooled)]
    observed = sum(ranks[: len(a)])
    sums = _rank_sums(ranks, len(a))
    below = sum(count for total, count in sums.items() if total <= observed)
    above = sum(count for total, count in sums.items() if total >= observed)
    p = min(1.0, 2 * min(below, above) / sums.total())
    return observed / 2 - len(a) * (len(a) + 1) / 2, p


def _rank_sums(ranks: Sequence[int], size: int) -> Counter[int]:
    """How many choices of ``size`` of the ranks have each sum."""
    chosen: list[Counter[int]] = [Counter() for _ in range(size + 1)]
    chosen[0][0] = 1
    for rank in ranks:
        for k in range(size, 0, -1):
            for total, count in chosen[k - 1].items():
                chosen[k][total + rank] += count
    return chosen[size]


def compare(name_a: str, a: Sequence[float], name_b: str, b: Sequence[float]) -> Comparison:
    """The test of two groups, where higher values are better.

    "better" or "worse" only below p = 0.05; otherwise "no difference shown", with the smallest p that groups of these
    sizes can reach when that alone rules a difference out.
    """
    try:
        u, p = mann_whitney(a, b)
    except ValueError as error:
        return Comparison(name_a, name_b, None, None, f"not computed: {error}")
    if p < LEVEL:
        verdict = f"{'better' if u > len(a) * len(b) / 2 else 'worse'} (p={p:.3g})"
    else:
        verdict = f"no difference shown (p={p:.3g})"
        least = 2 / math.comb(len(a) + len(b), len(a))
        if least >= LEVEL:
            sizes = f"{len(a)} against {len(b)} values"
            verdict += f"; {sizes} cannot show one: p is at least {least:.2g}"
    return Comparison(name_a, name_b, u, p, verdict)


def describe(values: Sequence[float]) -> dict[str, float | int | None]:
    """Count, mean, and the sample standard deviation (None of a single value); nan where a value is nan or infinite."""
    if not values:
        return {"n": 0, "mean": None, "std": None}
    known = all(map(math.isfinite, values))
    spread = (stdev(values) if known else math.nan) if len(values) > 1 else None
    return {"n": len(values), "mean": fmean(values) if known else math.nan, "std": spread}


def all_pairs(groups: Mapping[str, Sequence[float]], apart: Sequence[str] = ()) -> list[dict[str, object]]:
    """The tests of every pair of groups that have values, in the groups' order, as plain values.

    Groups in ``apart`` share measurements, so that no two of them are tested against each other.
    """
    named = [name for name, values in groups.items() if values]
    pairs = [(a, b) for a, b in combinations(named, 2) if not (a in apart and b in apart)]
    return [asdict(compare(a, groups[a], b, groups[b])) for a, b in pairs]
