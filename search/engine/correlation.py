"""Rank correlations of paired figures, with bootstrap intervals."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau, spearmanr

DRAWS = 2000


def rank_correlations(a: Sequence[float], b: Sequence[float], seed: int) -> dict[str, dict[str, Any]]:
    """``spearman`` and ``kendall`` (tau-b), each with ``value`` and ``interval``: 95 %, percentiles of 2,000 draws of pairs.

    None where one side has equal values only, which have no ranks. ValueError for sides of unequal length.
    """
    if len(a) != len(b):
        raise ValueError(f"Pairs are needed: there are {len(a)} and {len(b)} values.")
    x, y = np.asarray(a), np.asarray(b)
    rng = np.random.default_rng(seed)
    draws = [rng.integers(0, len(x), len(x)) for _ in range(DRAWS)]
    found: dict[str, dict[str, Any]] = {}
    for name, statistic in (("spearman", spearmanr), ("kendall", kendalltau)):
        resampled = [value for i in draws if (value := _correlation(statistic, x[i], y[i])) is not None]
        interval = [float(value) for value in np.percentile(resampled, [2.5, 97.5])] if resampled else None
        found[name] = {"value": _correlation(statistic, x, y), "interval": interval}
    return found


def spearman(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Spearman's alone, without an interval."""
    return _correlation(spearmanr, np.asarray(a), np.asarray(b))


def _correlation(statistic: Callable[..., Any], a: NDArray[Any], b: NDArray[Any]) -> float | None:
    return float(statistic(a, b).statistic) if np.ptp(a) > 0 and np.ptp(b) > 0 else None


def words(name: str, found: dict[str, Any]) -> str:
    """A correlation in words, as `rank_correlations` gives it."""
    value, interval = found["value"], found["interval"]
    return f"{name} undefined" if value is None else f"{name} {value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"
