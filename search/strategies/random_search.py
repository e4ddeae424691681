"""Random architectures and random search: the baselines that every report carries.

Reference: L. Li, A. Talwalkar, "Random Search and Reproducibility for Neural Architecture Search", arXiv
1902.07638. Each architecture of the space is equally likely, and none is asked for twice.
"""

import random
from collections.abc import Mapping
from typing import Any

from search.space import Architecture, Space
from search.strategies.told import Told


class Exhausted(Exception):
    """The space holds no further architecture."""


class RandomSearch(Told):
    """Ask for architectures, tell their scores, keep the best.

    What is asked for depends on (space, seed) only, never on the scores, so trials may run at the same time.
    """

    NAME = "random search"

    def __init__(self, space: Space, seed: int):
        super().__init__(space)
        self._restart(seed)

    def _restart(self, seed: int) -> None:
        self.seed = seed
        self._asked = 0
        self._rng = random.Random(seed)
        # the positions of a shuffle of all architectures that differ from the identity; spaces hold up to
        # 1e18 and more
        self._moved: dict[int, int] = {}

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

    def state_dict(self) -> dict[str, Any]:
        """Plain values, from which ``load_state_dict`` of a search of the same space goes on."""
        return {**super().state_dict(), "seed": self.seed, "asked": self._asked}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where ``state_dict`` was taken. ValueError when it belongs to another space."""
        super().load_state_dict(state)
        self._restart(state["seed"])
        for _ in range(state["asked"]):
            self.ask()


def random_architectures(space: Space, n: int, seed: int) -> list[Architecture]:
    """``n`` different architectures, each set equally likely. ValueError when the space holds fewer."""
    if n > space.size:
        raise ValueError(f"{n} different architectures were asked of {space.name!r}, which holds {space.size}.")
    search = RandomSearch(space, seed)
    return [search.ask() for _ in range(n)]
