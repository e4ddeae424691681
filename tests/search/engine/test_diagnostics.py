import math

import pytest

from search.engine.diagnostics import collapse_warning, describe_architecture, gate_entropy, skip_share
from search.space import Architecture, OneOf, Space

OPS = ("none", "skip_connect", "sep_conv_3x3")
SPACE = Space(
    "backbone",
    tuple(OneOf(f"{cell}/e{i}", OPS, relax_only=("none",)) for cell in ("normal", "reduce") for i in range(4)),
)


def arch(normal, reduce):
    skip = {True: "skip_connect", False: "sep_conv_3x3"}
    return Architecture({f"{cell}/e{i}": skip[i < n] for cell, n in (("normal", normal), ("reduce", reduce)) for i in range(4)})


def test_skip_share_counts_chosen_operations():
    assert skip_share(SPACE, arch(3, 0)) == 3 / 8


@pytest.mark.parametrize(("normal", "reduce", "cells"), [(2, 2, ()), (3, 0, ("normal",)), (4, 3, ("normal", "reduce"))])
def test_collapse_is_said_by_cell_when_most_operations_are_skips(normal, reduce, cells):
    warning = collapse_warning(SPACE, arch(normal, reduce))
    assert (warning is None) == (not cells)
    for cell, n in (("normal", normal), ("reduce", reduce)):
        assert (f"{n} of 4 operations of the {cell} cell" in (warning or "")) == (cell in cells)


def test_nothing_is_said_while_the_logits_are_frozen():
    probabilities = {choice.name: [1 / 3] * 3 for choice in SPACE}
    assert describe_architecture(SPACE, probabilities, arch(4, 4), frozen=True)["warning"] is None
    assert describe_architecture(SPACE, probabilities, arch(4, 4), frozen=False)["warning"] is not None


def test_entropy_is_one_when_undecided_and_zero_when_decided():
    uniform = {choice.name: [1 / 3] * 3 for choice in SPACE}
    decided = {choice.name: [0.0, 1.0, 0.0] for choice in SPACE}
    assert gate_entropy(SPACE, uniform) == pytest.approx(1.0)
    assert gate_entropy(SPACE, decided) == 0.0
    half = {choice.name: [0.5, 0.5, 0.0] for choice in SPACE}
    assert gate_entropy(SPACE, half) == pytest.approx(math.log(2) / math.log(3))
