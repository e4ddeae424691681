"""Which path of a supernet a step trains: drawn uniformly, or so that every option has its turn.

A path is a function of space, seed and step alone: equal on all ranks, and the same after a resume.

Fair paths are those of FairNAS (X. Chu et al., "FairNAS: Rethinking Evaluation Fairness of Weight Sharing Neural Architecture
Search", arXiv 1907.01845, section 3.3, strict fairness): a choice of n values takes them in the order of a permutation, a new
one every n steps. What we do differently, and why: FairNAS sums the gradients of a round's n paths before it steps, so that the
paths' order is of no effect; here each path is a step of its own, on a batch of its own, as an epoch is the same number of
steps with both. FairNAS's choices all have as many options; here each has rounds of its own length.
"""

import random
from functools import lru_cache

from search.space import Architecture, Choice, Space, Walk

# a choice of more values is drawn: a permutation of them would hardly come to its end
MOST = 1000


def uniform_path(space: Space, seed: int, step: int) -> Architecture:
    """Uniform over architectures."""
    return space.sample(random.Random(f"path {seed} {step}"))


def fair_path(space: Space, seed: int, step: int) -> Architecture:
    """Choice by choice, each of its values once in every n steps (the first from step 0 on), n being how many it has.

    So after a multiple of n steps a choice that is always active has had every value equally often. One that depends on others
    has the same turns, and misses those in which it isn't active: its values are equally likely. Walks, and choices of more
    than `MOST` values, are drawn uniformly.
    """
    found: dict[str, object] = {}
    for choice in space:
        if space.is_active(choice, found):
            found[choice.name] = choice.at(_number(choice, seed, step))
    return space.canonical(found)


def _number(choice: Choice, seed: int, step: int) -> int:
    if isinstance(choice, Walk) or choice.count > MOST:
        return random.Random(f"fair {seed} {step} {choice.name}").randrange(choice.count)
    turn, position = divmod(step, choice.count)
    return _permutation(f"fair {seed} turn {turn} {choice.name}", choice.count)[position]


# every step of a round asks for the same ones
@lru_cache(maxsize=1024)
def _permutation(seed: str, count: int) -> tuple[int, ...]:
    return tuple(random.Random(seed).sample(range(count), count))
