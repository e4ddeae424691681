"""Single path one-shot: a supernet trained path by path, in which evolution then looks for the best.

Paper: Z. Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform Sampling", arXiv 1904.00420: sections 3.2
(each step trains one path, drawn uniformly; see ``paths.py``), 3.4 (evolution with the supernet's weights; before a path is
scored, its batch norms' statistics are computed anew on training images). Official code: megvii-model/SinglePathOneShot at
36eed6c.

What we do differently, and why: evolution is the regularised one (``evolution.py``), which needs no generations, instead of
crossover and mutation of the best 10 among 50. Paths are uniform over architectures, not choice by choice, which differs where
choices depend on others.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from search.space import Architecture, Space
from search.strategies.evolution import Evolution
from search.strategies.paths import fair_path, uniform_path
from search.strategies.table import AskTell

PATHS = {"uniform": uniform_path, "fair": fair_path}


@dataclass(frozen=True, kw_only=True)
class OneShotStrategy:
    """What a one-shot search needs to know; the engine owns the supernet, its training, data and scores.

    ``trials``: how many paths are scored with the trained supernet's weights; ``sampler``: makes of a space and a seed what is
    asked for them and told their scores; ``batches``: of training images, by which a path's batch norms are computed anew;
    ``path``: makes of a space, a seed and a step's number the path that the step trains.
    """

    name: str
    trials: int
    sampler: Callable[[Space, int], AskTell]
    batches: int
    path: Callable[[Space, int, int], Architecture] = uniform_path
    # what the supernets of gradient strategies have, and a path has no use for
    edge_logits: ClassVar[bool] = False
    update: ClassVar[None] = None

    def __post_init__(self) -> None:
        for name, value in (("trials", self.trials), ("batches", self.batches)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name}={value!r}: give a whole number, 1 or more.")


def SinglePath(
    *, trials: int = 1000, population: int = 50, sample: int = 10, batches: int = 200, sampling: str = "uniform"
) -> OneShotStrategy:
    """Single path one-shot as a ``OneShotStrategy``; a function named like a class, because configs name it as their type.

    ``trials``, ``batches``: see there; ``population``, ``sample``: of the evolution. The paper scores 50 x 20 paths and
    computes batch norms on 200 batches of 128 images. ``sampling``: of the paths that are trained, 'uniform' as in the paper or
    'fair' as in FairNAS, see ``paths.py``. ValueError for a population that ``trials`` only just fill.
    """
    if sampling not in PATHS:
        raise ValueError(f"sampling={sampling!r} is unknown: paths are drawn {' or '.join(map(repr, PATHS))}.")
    strategy = OneShotStrategy(
        name="single path one-shot",
        trials=trials,
        sampler=lambda space, seed: Evolution(space, seed, population=population, sample=sample),
        batches=batches,
        path=PATHS[sampling],
    )
    # refuses what isn't a number before it is compared
    Evolution(Space("", []), 0, population=population, sample=sample)
    if population >= trials:
        raise ValueError(f"population={population} with trials={trials} is random search: give fewer than {trials}.")
    return strategy
