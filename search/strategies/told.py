"""What strategies that ask and are told share: the trials so far, the best of them, and their part of a state."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

from search.space import Architecture, Space


class Trial(NamedTuple):
    """An architecture and its score: higher is better, nan when its training diverged."""

    architecture: Architecture
    score: float


class Told:
    """Keeps the scores that it is told.

    ``NAME``: what a state is of, in the sentence for one of another space.
    """

    NAME: ClassVar[str]

    def __init__(self, space: Space) -> None:
        self.space = space
        self._history: list[Trial] = []

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
        return max((t for t in self._history if not math.isnan(t.score)), key=lambda trial: trial.score, default=None)

    def state_dict(self) -> dict[str, Any]:
        """Plain values: the space's fingerprint and all trials."""
        history = [[trial.architecture.to_json(), trial.score] for trial in self._history]
        return {"space": self.space.fingerprint, "history": history}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state's trials. ValueError when it belongs to another space."""
        if state["space"] != self.space.fingerprint:
            raise ValueError(
                f"The {self.NAME}'s state is of another space than {self.space.name!r} "
                f"(fingerprint {state['space'][:12]}, not {self.space.fingerprint[:12]}); start a new search."
            )
        self._history = [Trial(Architecture.from_json(item), score) for item, score in state["history"]]
