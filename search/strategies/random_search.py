"""Random architectures and random search: the baselines that every report carries.

Reference: L. Li, A. Talwalkar, "Random Search and Reproducibility for Neural Architecture Search", arXiv
1902.07638. Each architecture of the space is equally likely, and none is asked for twice.
"""

import math
import random
from collections.abc import Mapping
from typing import Any, NamedTuple

from search.space import Architecture, Space


class Exhausted(Exception):
    """The space holds no further architecture."""


class Trial(NamedTuple):
    """An architecture and its score: higher is better, nan when its training diverged."""

    architecture: Architecture
    score: float


class RandomSearch:
    """Ask for architectures, tell their scores, keep the best.

    What is asked for depends on (space, seed) only, never on the scores, so trials may run at the same time.
    """

    def __init__(self, space: Space, seed: int):
        self.space = space
        self._restart(seed)

    def _restart(self, seed: int) -> None:
        self.seed = seed
        self._asked = 0
        self._rng = random.Random(seed)
        # the positions of a shuffle of all architectures that differ from the identity; spaces hold up to
        # 1e18 and more
        self._moved: dict[int, int] = {}
        self._history: list[Trial] = []

    def ask(self) -> Architecture:
        """The next architecture, drawn without replacement. ``Exhausted`` when all were asked for."""
        size, place = self.space.size, self._asked
        if place == size:
            raise Exhausted(f"All {size} architectures of {self.space.name!r} were asked for.")
        other = self._rng.randrange(place, size)
        index = self._moved.get(other, other)
        self._moved[other] = self._moved.pop(place, place)
        self._asked += 1
        return self.space.at(index)

    def tell(self, architecture: Architecture, score: float) -> None:
        """Record a score (higher is better). ValueError when the architecture isn't one of the space."""
        self.space.check(architecture)
        self._history.append(Trial(architecture, float(score)))

    @property
    def history(self) -> tuple[Trial, ...]:
        """All trials in the order told."""
        return tuple(self._history)

    @property
    def best(self) -> Trial | None:
        """The trial with the highest score, the first of equals; ``None`` before any has a score."""
        scored = [trial for trial in self._history if not math.isnan(trial.score)]
        return max(scored, key=lambda trial: trial.score) if scored else None

    def state_dict(self) -> dict[str, Any]:
        """Plain values, from which ``load_state_dict`` of a search of the same space goes on."""
        history = [[trial.architecture.to_json(), trial.score] for trial in self._history]
        return {"space": self.space.fingerprint, "seed": self.seed, "asked": self._asked, "history": history}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where ``state_dict`` was taken. ValueError when it belongs to another space."""
        if state["space"] != self.space.fingerprint:
            raise ValueError(
                f"The random search's state is of another space than {self.space.name!r} "
                f"(fingerprint {state['space'][:12]}, not {self.space.fingerprint[:12]}); start a new search."
            )
        self._restart(state["seed"])
        for _ in range(state["asked"]):
            self.ask()
        self._history = [Trial(Architecture.from_json(item), score) for item, score in state["history"]]


def random_architectures(space: Space, n: int, seed: int) -> list[Architecture]:
    """``n`` different architectures, each set equally likely. ValueError when the space holds fewer."""
    if n > space.size:
        raise ValueError(f"{n} different architectures were asked of {space.name!r}, which holds {space.size}.")
    search = RandomSearch(space, seed)
    return [search.ask() for _ in range(n)]
