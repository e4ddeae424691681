"""Sampling within limits: what a sampler asks for is drawn again until it is accepted."""

from collections.abc import Callable

from search.space import Architecture, Space
from search.strategies.random_search import Exhausted, RandomSearch
from search.strategies.table import AskTell

Accept = Callable[[Architecture], bool]


class NothingWithin(ValueError):
    """None of a number of architectures in a row was accepted; ``refused`` are these."""

    def __init__(self, refused: list[Architecture]) -> None:
        super().__init__(f"none of {len(refused)} architectures that were asked for in a row is within the limits")
        self.refused = refused


class Within:
    """A sampler that proposes accepted architectures only, for strategies that ask and tell.

    What is refused is never told, so the sampler learns from accepted ones only.
    """

    def __init__(self, sampler: AskTell, accept: Accept, tries: int) -> None:
        self.sampler, self.accept, self.tries = sampler, accept, tries
        self._found = False

    def ask(self) -> Architecture:
        """The next accepted architecture; ``Exhausted`` when the sampler is and has given some.

        Raises ``NothingWithin`` when ``tries`` in a row are refused, or all there are.
        """
        refused: list[Architecture] = []
        while len(refused) < self.tries:
            try:
                architecture = self.sampler.ask()
            except Exhausted:
                if self._found or not refused:
                    raise
                break
            if self.accept(architecture):
                self._found = True
                return architecture
            refused.append(architecture)
        raise NothingWithin(refused)

    def tell(self, architecture: Architecture, score: float) -> None:
        """Pass a score on."""
        self.sampler.tell(architecture, score)


def architectures_within(space: Space, n: int, seed: int, accept: Accept, tries: int) -> list[Architecture]:
    """``n`` different accepted architectures, each set equally likely; fewer where no more are found in ``tries`` draws each.

    Raises ``NothingWithin`` where none is.
    """
    sampler = Within(RandomSearch(space, seed), accept, tries)
    found: list[Architecture] = []
    while len(found) < n:
        try:
            found.append(sampler.ask())
        except (NothingWithin, Exhausted):
            if not found:
                raise
            break
    return found
