import random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from search.space import OneOf, Ordinal, SomeOf, Space, encode, width


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_different_architectures_have_different_vectors_of_one_width(small_spaces, brute_force, data):
    space = data.draw(small_spaces)
    assume(brute_force(space, limit=1_000) is not None)
    vectors = [tuple(encode(space, arch)) for arch in space.enumerate()]
    assert len(set(vectors)) == space.size
    assert {len(vector) for vector in vectors} == {width(space)}


def test_layout():
    space = Space(
        "s",
        [
            OneOf("op", ("none", "a", "b"), relax_only=("none",)),
            Ordinal("width", (16, 32, 64)),
            SomeOf("in", (0, 1, 2), 2),
            OneOf("extra", ("x", "y"), when=(("op", "b"),)),
        ],
    )
    assert encode(space, {"op": "a", "width": 32, "in": (0, 2)}) == [1, 0, 1, 1, 0, 1, 0, 1, 0, 0]


def test_another_space_is_refused(darts):
    arch = darts.sample(random.Random(0))
    with pytest.raises(ValueError, match="no choice named"):
        encode(Space("empty", []), arch)
