import dataclasses
import hashlib
import json
import random
import time

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from search.space import Architecture, OneOf, Order, Ordinal, SomeOf, Space, Walk

CASES = settings(max_examples=150, deadline=None)


@CASES
@given(data=st.data())
def test_numbering_equals_brute_force(small_spaces, brute_force, data):
    space = data.draw(small_spaces)
    expected = brute_force(space, limit=3_000)
    assume(expected is not None)
    assert space.size == len(expected)
    # a one-to-one map from numbers, so that randrange(size) draws uniformly
    assert sorted(map(repr, map(dict, space.enumerate()))) == sorted(map(repr, expected))


@CASES
@given(data=st.data(), seed=st.integers(0, 10**6))
def test_a_sample_is_contained_and_canonical(small_spaces, data, seed):
    space = data.draw(small_spaces)
    arch = space.sample(random.Random(seed))
    space.check(arch)
    assert space.contains(arch)
    assert space.canonical(arch) == arch
    assert space.active(arch) == tuple(choice.name for choice in space if choice.name in arch)


@CASES
@given(data=st.data(), seed=st.integers(0, 10**6))
def test_canonical_is_idempotent_and_drops_the_inactive(small_spaces, data, seed):
    space = data.draw(small_spaces)
    rng = random.Random(seed)
    full = {choice.name: choice.at(rng.randrange(choice.count)) for choice in space}
    once = space.canonical(full)
    assert space.contains(once)
    assert space.canonical(once) == once
    assert all(once[name] == full[name] for name in once)


@CASES
@given(data=st.data(), seed=st.integers(0, 10**6))
def test_neighbours_differ_in_exactly_one_choice_active_in_both(small_spaces, data, seed):
    space = data.draw(small_spaces)
    rng = random.Random(seed)
    arch = space.sample(rng)
    for near in space.neighbours(arch, rng):
        assert space.contains(near)
        assert sum(near[name] != arch[name] for name in near if name in arch) == 1


@CASES
@given(data=st.data(), seed=st.integers(0, 10**6))
def test_json_round_trip(small_spaces, data, seed):
    space = data.draw(small_spaces)
    again = Space.from_json(json.loads(json.dumps(space.to_json())))
    assert again == space
    assert list(again) == list(space)
    assert again.fingerprint == space.fingerprint
    assert space.difference(again) is None
    arch = space.sample(random.Random(seed))
    assert Architecture.from_json(json.loads(json.dumps(arch.to_json()))) == arch


@CASES
@given(data=st.data(), seed=st.integers(0, 10**6))
def test_architectures_of_a_restriction_are_valid_in_the_parent(small_spaces, brute_force, data, seed):
    space = data.draw(small_spaces)
    wide = [c for c in space if isinstance(c, OneOf | Ordinal) and len(c.decodable) > 1]
    assume(wide)
    choice = data.draw(st.sampled_from(wide))
    kept = data.draw(st.lists(st.sampled_from(choice.decodable), min_size=1, unique=True))
    part = space.restrict({choice.name: kept})
    rng = random.Random(seed)
    for _ in range(5):
        space.check(part.sample(rng))
    everything = brute_force(space, limit=3_000)
    if everything is not None:  # nothing else is lost
        assert part.size == sum(arch.get(choice.name, kept[0]) in kept for arch in everything)


def test_darts_cells_are_counted_exactly_and_at_once(darts):
    began = time.perf_counter()
    assert darts.size == 1_037_664_180**2
    assert time.perf_counter() - began < 1
    last = darts.at(darts.size - 1)
    assert darts.contains(last)
    assert len(last) == 8 + 16  # each of 8 nodes keeps two inputs


def test_order_of_declaration_does_not_change_the_size(darts):
    nodes_first = sorted(darts, key=lambda choice: isinstance(choice, OneOf))
    assert Space("cells", nodes_first).size == darts.size


MOVES = {4: (4, 8), 8: (4, 8, 16), 16: (8, 16, 32), 32: (16, 32)}


def test_auto_deeplab_has_28657_paths():
    # the paper's 2.9e4: 12 layers, the first at stride 4
    assert Space("path", [Walk("path", 12, MOVES, start=(4,))]).size == 28_657
    assert Space("path", [Walk("path", 12, MOVES, start=(4, 8))]).size == 75_025


def test_choices_below_a_walk_are_counted_without_listing_paths():
    walk = Walk("path", 12, MOVES, start=(4,))
    per_layer = [OneOf(f"{n}/{s}", (1, 2, 3), when=(("path", (n, s)),)) for n in range(12) for s in MOVES]
    assert Space("path", [walk, *per_layer]).size == 28_657 * 3**12
    per_stride = [OneOf(f"{s}", (1, 2, 3), when=tuple(("path", (n, s)) for n in range(12))) for s in MOVES]
    assert Space("path", [walk, *per_stride]).size == sum(3 ** len(set(path)) for path in walk.values())


def test_sampling_is_uniform_over_architectures_not_over_parents():
    # 1 architecture with a, 9 with b: drawing the parent first would give a half of the time
    space = Space("s", [OneOf("p", ("a", "b")), OneOf("c", tuple(range(9)), when=(("p", "b"),))])
    assert [arch["p"] for arch in space.enumerate()].count("a") == 1
    assert space.size == 10


def test_a_child_of_two_parents_is_active_when_either_holds():
    space = Space(
        "s",
        [
            OneOf("p", ("a", "b")),
            OneOf("q", ("a", "b")),
            OneOf("c", (0, 1, 2), when=(("p", "a"), ("q", "a"))),
            OneOf("d", (0, 1), when=(("c", 2),)),
        ],
    )
    assert space.size == 3 * 4 + 1
    assert space.canonical({"p": "b", "q": "b", "c": 2, "d": 1}) == Architecture({"p": "b", "q": "b"})


def test_canonical_puts_a_subset_in_option_order():
    space = Space("s", [SomeOf("x", (0, 1, 2), 2)])
    assert space.canonical({"x": [2, 0]}) == Architecture({"x": (0, 2)})
    assert not space.contains({"x": (2, 0)})


def test_relax_only_is_never_sampled_nor_accepted():
    space = Space("s", [OneOf("op", ("none", "conv"), relax_only=("none",))])
    assert [dict(arch) for arch in space.enumerate()] == [{"op": "conv"}]
    with pytest.raises(ValueError, match="choice 'op' is 'none', but must be one of 'conv'"):
        space.check({"op": "none"})


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ([OneOf("a", (1, 2)), OneOf("a", (1, 2))], "two choices named 'a'"),
        ([OneOf("a", (1,), when=(("b", 1),)), OneOf("b", (1,))], "depends on 'b', which is no earlier choice"),
        ([OneOf("b", (1,)), OneOf("a", (1,), when=(("b", True),))], "depends on True of 'b'"),
        ([Order("b", (1, 2)), OneOf("a", (1,), when=(("b", 1),))], "depends on 1 of 'b'"),
        ([Walk("w", 2, {4: (4,)}, (4,)), OneOf("a", (1,), when=(("w", (2, 4)),))], r"depends on \(2, 4\) of 'w'"),
    ],
)
def test_a_space_that_makes_no_sense_is_refused(choices, message):
    with pytest.raises(ValueError, match=message):
        Space("s", choices)


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        ({}, "choice 'p' is active, but has no value"),
        ({"p": "z", "c": 9}, "choice 'p' is 'z', but must be one of 'a', 'b'"),
        ({"p": "a", "c": 0}, "choice 'c' has a value, but what it depends on was not chosen"),
        ({"p": "b", "c": True}, "choice 'c' is True"),
        ({"p": "a", "x": 1}, "no choice named 'x'"),
    ],
)
def test_check_names_the_first_offending_choice(arch, message):
    space = Space("s", [OneOf("p", ("a", "b")), OneOf("c", (0, 1), when=(("p", "b"),))])
    with pytest.raises(ValueError, match=message):
        space.check(arch)
    assert not space.contains(arch)


def test_difference_names_the_first_differing_choice_by_name(darts):
    fewer = darts.restrict({"normal/n2<-1": ("none", "skip_connect"), "reduce/n5<-4": ("skip_connect",)})
    assert darts.difference(fewer).startswith("choice 'normal/n2<-1' has options ['none', 'max_pool_3x3'")
    assert darts.difference(Space("cells", [*darts, OneOf("a", (1,))])) == "choice 'a' is in the other only"


def test_fingerprint_ignores_the_space_name_and_order_but_nothing_of_a_choice(darts):
    assert Space("other", list(darts)).fingerprint == darts.fingerprint
    nodes_first = sorted(darts, key=lambda choice: isinstance(choice, OneOf))
    assert Space("cells", nodes_first).fingerprint == darts.fingerprint
    choice = OneOf("a", ("x", "y"), relax_only=("x",))
    base = Space("s", [choice]).fingerprint
    assert len(base) == 64
    for change in ({"name": "b"}, {"options": ("x", "z", "y")}, {"relax_only": ()}, {"options": ("y", "x")}):
        assert Space("s", [dataclasses.replace(choice, **change)]).fingerprint != base


def test_fingerprint_is_the_hash_that_files_carry():
    # written out, so that a change of what is hashed, a break of every older file, is seen here
    space = Space("s", [SomeOf("in", (0, 1), 1), OneOf("Op", ("none", "c"), when=(("in", 1),), relax_only=("none",))])
    text = (
        '[{"kind":"OneOf","name":"Op","options":["none","c"],"relax_only":["none"],"when":[["in",1]]},'
        '{"k":1,"kind":"SomeOf","name":"in","options":[0,1]}]'
    )
    assert space.fingerprint == hashlib.sha256(text.encode()).hexdigest()


def test_restrict_drops_what_nothing_activates_and_refuses_what_would_grow(darts):
    space = Space("s", [OneOf("p", ("a", "b")), OneOf("c", (0, 1), when=(("p", "b"),)), SomeOf("k", (0, 1), (0, 2))])
    only_a = space.restrict({"p": ("a",)})
    assert [choice.name for choice in only_a] == ["p", "k"]
    assert space.restrict({"k": {"k": 1}}).size == 3 * 2
    assert space.restrict({"p": ("b", "a")})["p"].options == ("a", "b")
    for kept, message in [
        ({"p": ("z",)}, "has no option 'z'"),
        ({"q": ("a",)}, "no choice named 'q'"),
        ({"k": {"k": (0, 3)}}, "choice 'k'"),
        ({"p": {"k": 1}}, "cannot be restricted by 'k'"),
        ({"p": ()}, "must list at least one"),
    ]:
        with pytest.raises(ValueError, match=message):
            space.restrict(kept)
    once_none = darts.restrict({"normal/n2<-0": ("none", "skip_connect")})
    assert once_none["normal/n2<-0"].relax_only == ("none",)
    with pytest.raises(ValueError, match="it has values that"):
        darts.restrict({"normal/n2<-0": {"relax_only": ()}})


def test_restrict_a_walk_to_fewer_moves_only():
    space = Space("path", [Walk("path", 3, MOVES, start=(4, 8))])
    flat = space.restrict({"path": {"moves": {4: (4,), 8: (8,)}, "start": (4,)}})
    assert [arch["path"] for arch in flat.enumerate()] == [(4, 4, 4)]
    with pytest.raises(ValueError, match="it has values that"):
        space.restrict({"path": {"moves": {4: (4, 16), 16: (16,)}, "start": (4,)}})


def test_a_file_that_is_no_space_is_refused():
    for data in [None, {}, {"choices": [{"kind": "Nothing"}]}, {"choices": [{"kind": "OneOf", "name": "a"}]}]:
        with pytest.raises(ValueError):
            Space.from_json(data)


def test_at_refuses_numbers_outside(darts):
    for index in (-1, darts.size):
        with pytest.raises(ValueError, match="the space has 1,076,746,950,455,072,400"):
            darts.at(index)
