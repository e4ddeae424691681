"""Regularised evolution: a tournament's winner is changed in one choice, and the oldest of the population leaves.

Paper: E. Real, A. Aggarwal, Y. Huang, Q. V. Le, "Regularized Evolution for Image Classifier Architecture Search", arXiv
1802.01548: algorithm 1, with P = 100 (``population``) and S = 25 (``sample``). Code: the authors' notebook in
google-research/google-research, regularized_evolution_algorithm.

1. Until P architectures have a score, architectures are drawn uniformly from the space.
2. Then S of the population are drawn with replacement; the best of them is the parent (of equals the first drawn).
3. The child differs from it by one mutation. It joins the population when its score is told, and the oldest leaves.
The result is the best of all that was ever scored, not of the last population.

What is done differently, and why:
- A mutation is one small step of the space (`Space.neighbours`): one of the active choices that can change, each equally
  likely, then one of its steps, each equally likely. Choices that the step activates are drawn at random. The paper's
  mutations (another operation, another input, with probability 0.05 none) are of NASNet's cells only.
- No architecture is asked for twice: trainings of one seed would only repeat a score. Where a mutation gives a known
  architecture, parent and mutation are drawn again, ``TRIES`` times; then one is drawn uniformly from the unknown ones.
- A score of nan (a training that diverged or failed) doesn't join the population, and nobody ages by it.
- Asked several times before it is told, it uses the population of that moment, as the paper's parallel workers do.
"""

import math
import random
from collections.abc import Mapping
from typing import Any

from search.space import Architecture, Space
from search.strategies.random_search import RandomSearch
from search.strategies.sampling import SamplingStrategy
from search.strategies.told import Told, Trial

# how often a mutation may give an architecture that was asked for before
TRIES = 100


class Evolution(Told):
    """Ask for architectures, tell their scores (higher is better), keep the best.

    What is asked for depends on (space, seed) and on the scores told before. ValueError for sizes that aren't whole numbers
    of at least 1.
    """

    NAME = "evolution"

    def __init__(self, space: Space, seed: int, *, population: int = 100, sample: int = 25) -> None:
        for name, value in (("population", population), ("sample", sample)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name}={value!r}: give a number of architectures, 1 or more.")
        super().__init__(space)
        self.size, self.sample = population, sample
        self._restart(seed)

    def _restart(self, seed: int) -> None:
        self.seed = seed
        self._rng = random.Random(seed)
        # uniform, each once: before there is a population, and where mutations give nothing new
        self._uniform = RandomSearch(self.space, seed)
        self._asked: dict[Architecture, None] = {}

    @property
    def population(self) -> list[Trial]:
        """The last ``population`` trials that have a score, the oldest first."""
        return [trial for trial in self._history if not math.isnan(trial.score)][-self.size :]

    def ask(self) -> Architecture:
        """The next architecture. ``Exhausted`` when all of the space were asked for."""
        population = self.population
        child = self._child(population) if len(population) == self.size else None
        while child is None or child in self._asked:
            child = self._uniform.ask()
        self._asked[child] = None
        return child

    def _child(self, population: list[Trial]) -> Architecture | None:
        """A mutation of a tournament's winner that wasn't asked for yet; ``None`` where none was found."""
        for _ in range(TRIES):
            parent = max(self._rng.choices(population, k=self.sample), key=lambda trial: trial.score)
            child = mutation(self.space, parent.architecture, self._rng)
            if child is not None and child not in self._asked:
                return child
        return None

    def state_dict(self) -> dict[str, Any]:
        """Plain values, from which ``load_state_dict`` of an evolution with the same space and sizes goes on."""
        version, internal, gauss = self._rng.getstate()
        return {
            **super().state_dict(),
            "sizes": [self.size, self.sample],
            "seed": self.seed,
            "random": [version, list(internal), gauss],
            "uniform": self._uniform.state_dict(),
            "asked": [architecture.to_json() for architecture in self._asked],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where ``state_dict`` was taken. ValueError when it belongs to another space or to other sizes."""
        super().load_state_dict(state)
        if list(state["sizes"]) != [self.size, self.sample]:
            there = "population={}, sample={}".format(*state["sizes"])
            raise ValueError(
                f"The evolution's state is of {there}, not of population={self.size}, sample={self.sample}: use its sizes."
            )
        self._restart(state["seed"])
        version, internal, gauss = state["random"]
        self._rng.setstate((version, tuple(internal), gauss))
        self._uniform.load_state_dict(state["uniform"])
        self._asked = dict.fromkeys(Architecture.from_json(item) for item in state["asked"])


def mutation(space: Space, architecture: Architecture, rng: random.Random) -> Architecture | None:
    """An architecture one small step away: its choice drawn uniformly, then its step; ``None`` where nothing can change."""
    steps: dict[str, list[Architecture]] = {}
    # in the space's order: one that was read from a file has another, and draws would be used up in it
    architecture = space.canonical(architecture)
    for neighbour in space.neighbours(architecture, rng):
        # the step's own choice is the first that differs: what it activates or drops comes after it
        changed = next(c.name for c in space if c.name in architecture and neighbour.get(c.name) != architecture[c.name])
        steps.setdefault(changed, []).append(neighbour)
    return rng.choice(steps[rng.choice(list(steps))]) if steps else None


def EvolutionTrials(*, trials: int, population: int = 100, sample: int = 25, at_once: int = 1) -> SamplingStrategy:
    """Regularised evolution as a ``SamplingStrategy``, 'Evolution' in configs; a function named like a class, because configs
    name it as their type.

    ``trials``: how many architectures are trained, those of the first population included; ``at_once``: how many are asked for
    before their scores are told, which is how many may be trained at a time. ValueError for a population that ``trials`` only
    just fill: that would be random search.
    """
    # refuses what isn't a number before it is compared
    strategy = SamplingStrategy(
        name="regularised evolution",
        trials=trials,
        sampler=lambda space, seed: Evolution(space, seed, population=population, sample=sample),
        at_once=at_once,
    )
    Evolution(Space("", []), 0, population=population, sample=sample)
    if population >= trials:
        raise ValueError(f"population={population} with trials={trials} is random search: give fewer than {trials}.")
    return strategy
