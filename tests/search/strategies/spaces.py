"""Spaces with every kind of choice, for the tests of strategies."""

import itertools

from search.space import OneOf, Order, Ordinal, SomeOf, Space, Walk


def mixed():
    """Every kind of choice; the kernel matters to a convolution only, `late` to two ways of coming to it."""
    return Space(
        "mixed",
        [
            OneOf("op", ("conv", "pool", "skip", "none"), relax_only=("none",)),
            OneOf("kernel", (3, 5), when=(("op", "conv"),)),
            Ordinal("width", (8, 16, 24)),
            SomeOf("inputs", ("a", "b", "c"), k=(0, 2)),
            Order("levels", (3, 4, 5)),
            # `end` can't be left, so only a last layer may be there
            Walk("path", 3, {"x": ("x", "y"), "y": ("x", "y", "end"), "end": ()}, start=("x",)),
            OneOf("late", (False, True), when=(("inputs", "a"), ("path", (1, "y")))),
        ],
    )


def digits(length=6, base=4):
    return Space("digits", [OneOf(f"d{i}", tuple(range(base))) for i in range(length)])


def steps(architecture):
    """How many digits are right, when each should be one more than the one before, from 0 on."""
    values = list(architecture.values())
    return float(values[0] == 0) + sum(b == (a + 1) % 4 for a, b in itertools.pairwise(values))
