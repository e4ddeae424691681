"""Which path of a supernet a step trains: drawn uniformly, or so that every option has its turn.

A path is a function of space, seed and step alone: equal on all ranks, and the same after a resume.

Fair paths are those of FairNAS (X. Chu et al., "FairNAS: Rethinking Evaluation Fairness of Weight Sharing Neural Architecture
Search", arXiv 1907.01845, section 3.3, strict fairness): a choice of n values takes them in the order of a permutation, a new
one every n steps. What we do differently, and why: FairNAS sums the gradients of a round's n paths before it steps, so that the
paths' order is of no effect; here each path is a step of its own, on a batch of its own, as an epoch is the same number of
steps with both. FairNAS's choices all have as many options and none depends on another; here each has rounds of its own
length, counted over the steps in which it is active.
"""

import random
from functools import lru_cache

from search.space import Architecture, Choice, Space, Walk
from search.space.choice import When, position

# a choice of more values is drawn: a permutation of them would hardly come to its end
MOST = 1000


def uniform_path(space: Space, seed: int, step: int) -> Architecture:
    """Uniform over architectures."""
    return space.sample(random.Random(f"path {seed} {step}"))


def fair_path(space: Space, seed: int, step: int) -> Architecture:
    """Choice by choice, each of its values once in every n steps (the first from step 0 on), n being how many it has.

    So after a multiple of n steps a choice that is always active has had every value equally often. An `Order` of k items has
    n = k! values, and each item has been at each place n / k times. One that depends on a single such choice has each value
    once in every n steps in which it is active: of ordered pairs, a first input out of m and a second out of the other m - 1,
    each comes once in every m (m - 1) steps. One that depends on several has its turns in all steps, and misses those in which
    it isn't active: its values are equally likely. Walks, and choices of more than `MOST` values, are drawn uniformly.
    """
    found: dict[str, object] = {}
    for choice in space:
        if space.is_active(choice, found):
            found[choice.name] = choice.at(_number(choice, seed, _uses(space, choice, seed, step)))
    return space.canonical(found)


def _takes_turns(choice: Choice) -> bool:
    return not isinstance(choice, Walk) and choice.count <= MOST


def _number(choice: Choice, seed: int, use: int) -> int:
    """Of the value that a choice has when it is used once more, after so many times."""
    if not _takes_turns(choice):
        return random.Random(f"fair {seed} {use} {choice.name}").randrange(choice.count)
    turn, place = divmod(use, choice.count)
    return _permutation(f"fair {seed} turn {turn} {choice.name}", choice.count)[place]


def _uses(space: Space, choice: Choice, seed: int, step: int) -> int:
    """How often a choice was active before a step, where that follows from the turns of one other; else the step."""
    parents = {name for name, _ in choice.when}
    parent = space[min(parents)] if len(parents) == 1 else None
    if parent is None or not _takes_turns(parent):
        return step
    turn, place = divmod(_uses(space, parent, seed, step), parent.count)
    order = _permutation(f"fair {seed} turn {turn} {parent.name}", parent.count)
    activates = _activating(choice.when, parent)
    return turn * sum(activates) + sum(activates[number] for number in order[:place])


@lru_cache(maxsize=1024)
def _activating(when: When, parent: Choice) -> tuple[bool, ...]:
    """By the number of each value of a choice: whether it is among those of a ``when``, which names no other choice."""
    tokens = [token for _, token in when]
    return tuple(any(position(parent.tokens(parent.at(i)), token) is not None for token in tokens) for i in range(parent.count))


# every step of a round asks for the same ones
@lru_cache(maxsize=1024)
def _permutation(seed: str, count: int) -> tuple[int, ...]:
    return tuple(random.Random(seed).sample(range(count), count))
