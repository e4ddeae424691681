"""A sampling strategy: how many architectures are tried, and what chooses them.

Architectures are scored by training each from scratch; strategies know nothing of that. Random search, `random_search.py`, is
the first of them.
"""

from collections.abc import Callable
from dataclasses import dataclass

from search.space import Space
from search.strategies.random_search import RandomSearch
from search.strategies.table import AskTell


@dataclass(frozen=True, kw_only=True)
class SamplingStrategy:
    """What a search by trials needs to know; the engine owns trainings, data and scores.

    ``trials``: how many architectures are tried; ``sampler``: makes of a space and a seed what is asked for architectures and
    told their scores; ``at_once``: how many it is asked for before it is told their scores (``None``: all, for what doesn't
    depend on scores).
    """

    name: str
    trials: int
    sampler: Callable[[Space, int], AskTell]
    at_once: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("trials", self.trials), ("at_once", 1 if self.at_once is None else self.at_once)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name}={value!r}: give a number of architectures, 1 or more.")


def RandomTrials(*, trials: int) -> SamplingStrategy:
    """Random search as a ``SamplingStrategy``, 'RandomSearch' in configs; a function named like a class, because configs name
    it as their type.

    ``trials``: how many different architectures are trained; the best on the validation data is kept.
    """
    return SamplingStrategy(name="random search", trials=trials, sampler=RandomSearch)
