import math

import pytest

from search.space import Choice, OneOf, Ordinal


def test_lists_become_tuples_so_that_json_and_python_agree():
    assert OneOf("a", ["x", "y"], when=[["b", 1]]) == OneOf("a", ("x", "y"), when=(("b", 1),))


def test_true_is_not_one():
    assert OneOf("a", (0, 1)).contains(1)
    assert not OneOf("a", (0, 1)).contains(True)
    assert not OneOf("a", (0, 1)).contains(1.0)


def test_relax_only_options_are_options_but_cannot_be_decoded():
    choice = OneOf("a", ("none", "x", "y"), relax_only=("none",))
    assert choice.options == ("none", "x", "y")
    assert choice.decodable == ("x", "y")
    assert choice.count == 2
    assert list(choice.values()) == ["x", "y"]
    assert choice.neighbours("x") == ["y"]


def test_an_ordinal_steps_to_the_next_option_only():
    choice = Ordinal("width", (16, 32, 64, 128))
    assert choice.neighbours(16) == [32]
    assert choice.neighbours(32) == [16, 64]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OneOf("", (1,)), "name must be a non-empty string"),
        (lambda: OneOf("a", ()), "at least one option"),
        (lambda: OneOf("a", "xy"), "at least one option"),
        (lambda: OneOf("a", (1, True)), "holds True twice"),
        (lambda: OneOf("a", (1, None)), "holds None"),
        (lambda: OneOf("a", (math.nan,)), "holds nan"),
        (lambda: OneOf("a", (1,), when=(("b",),)), r"holds \('b',\)"),
        (lambda: OneOf("a", (1, 2), relax_only=(3,)), "relax_only names 3"),
        (lambda: OneOf("a", (1, 2), relax_only=(1, 2)), "every option is relax_only"),
        (lambda: Choice.from_json({"kind": "OneOf", "name": "a", "options": [1], "colour": 2}), "colour"),
    ],
)
def test_a_choice_that_makes_no_sense_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
