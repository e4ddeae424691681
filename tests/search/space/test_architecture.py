import pytest

from search.space import Architecture


def test_equal_and_hashed_by_content_in_any_order():
    a, b = Architecture({"x": 1, "y": [0, 2]}), Architecture({"y": (0, 2), "x": 1})
    assert a == b
    assert len({a, b}) == 1
    assert a != Architecture({"x": 1})


def test_is_immutable():
    source = {"x": 1}
    arch = Architecture(source)
    source["x"] = 2
    assert arch["x"] == 1
    with pytest.raises(TypeError):
        arch["x"] = 2


def test_diff_shows_both_sides_of_what_differs_only():
    a, b = Architecture({"op": "skip", "in": (0, 1), "k": 3}), Architecture({"op": "conv", "in": (0, 1)})
    assert a.diff(b) == "- k: 3\n- op: 'skip'\n+ op: 'conv'"
    assert a.diff(a) == ""


@pytest.mark.parametrize("value", [None, {"a": 1}, (1, None), ((1, 2),), float("inf")])
def test_what_json_scalars_cannot_hold_is_refused(value):
    with pytest.raises(ValueError, match="choice 'x' holds"):
        Architecture({"x": value})
