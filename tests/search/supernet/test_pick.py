"""Readings, on a toy with every kind of choice."""

import random

import pytest
import torch
from torch import nn

from search.space import save
from search.supernet import ArchParams, Fix, Relax, building, reading, record

MOVES = ((4, (4, 8)), (8, (4, 8)))


class Toy(nn.Module):
    def __init__(self, arch=None, part="backbone", options=("a", "b")):
        super().__init__()
        with reading(part, arch) as pick:
            self.width = pick.value("width", (8, 16, 32))
            self.kept = pick.subset("kept", ("x", "y", "z"), (1, 2))
            self.levels = pick.order("levels", (3, 4, 5))
            self.path = pick.walk("path", 3, MOVES, (4,))
            self.op = pick.op("op", {o: lambda: nn.Linear(2, 2) for o in options}, when=[("kept", "x")])


def test_plain_values_in_fix_and_none_in_the_wide_build():
    arch = {"width": 16, "kept": ("x", "z"), "levels": (5, 3, 4), "path": (4, 8, 4), "op": "b"}
    toy = Toy(arch)
    assert (toy.width, toy.kept, toy.levels, toy.path) == (16, ("x", "z"), (5, 3, 4), (4, 8, 4))
    assert list(toy.op.ops) == ["b"]
    recorded = record(Toy).space
    assert [c.name for c in recorded] == ["width", "kept", "levels", "path", "op"]
    assert recorded.size == 3 * (3 * 2 + 3) * 6 * 4
    for seed in range(20):
        Toy(recorded.sample(random.Random(seed)))
    with building(Fix(arch)) as pick:
        Toy()
    assert pick.space == recorded


def test_an_inactive_choice_builds_nothing():
    assert Toy({"width": 8, "kept": ("y",), "levels": (3, 4, 5), "path": (4, 4, 4)}).op is None


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"width": 9}, "width"),
        ({"kept": ()}, "kept"),
        ({"levels": (3, 3, 4)}, "levels"),
        ({"path": (8, 8, 8)}, "path"),
        ({"op": "c"}, "op"),
    ],
)
def test_a_wrong_value_is_named(change, named):
    arch = {"width": 16, "kept": ("x",), "levels": (5, 3, 4), "path": (4, 8, 4), "op": "b"} | change
    with pytest.raises(ValueError, match=named):
        Toy(arch)


def test_a_config_that_names_its_architecture_wins_over_the_context():
    arch = {"width": 16, "kept": ("y",), "levels": (5, 3, 4), "path": (4, 8, 4)}
    with building(Fix(dict(arch, width=32))) as pick:
        assert Toy(arch).width == 16
        assert Toy().width == 32
    assert pick.parts.keys() == {"backbone"}


def test_parts_have_spaces_of_their_own_and_names_do_not_cross(tmp_path):
    class Two(nn.Module):
        def __init__(self, second):
            super().__init__()
            with reading("neck") as pick:
                pick.op("neck/op", {"a": nn.Identity, "b": nn.Identity})
            with reading("head") as pick:
                pick.op(second, {"a": nn.Identity, "c": nn.Identity})

    recorded = record(lambda: Two("head/op"))
    assert list(recorded.parts) == ["neck", "head"] and recorded.space.size == 4
    assert recorded.space.name == "neck+head"
    with pytest.raises(ValueError, match="both neck and head"):
        record(lambda: Two("neck/op"))
    arch = recorded.space.sample(random.Random(0))
    path = tmp_path / "architecture.json"
    parts = {p: (s, type(arch)({n: arch[n] for n in arch if n in s})) for p, s in recorded.parts.items()}
    save(path, parts, {})
    with building(Fix(path)):
        Two("head/op")


def test_unequal_definitions_of_one_name_are_refused():
    def build():
        return nn.ModuleList([Toy(), Toy(options=("a", "c"))])

    with pytest.raises(ValueError, match=r"'op' is declared twice"):
        record(build)


def test_shared_choices_count_once():
    assert record(lambda: nn.ModuleList([Toy(), Toy()])).space == record(Toy).space


def test_a_file_of_another_space_names_the_first_differing_choice(tmp_path):
    space = record(lambda: Toy(options=("a", "b", "c"))).space
    save(tmp_path / "a.json", {"backbone": (space, space.sample(random.Random(1)))}, {})
    with pytest.raises(ValueError, match="'op'"):
        Toy(tmp_path / "a.json")


def test_a_restricted_space_builds_its_options_only():
    def build():
        with reading("backbone") as pick:
            return pick.op("op", {o: lambda: nn.Linear(2, 2) for o in "abc"})

    params = ArchParams(record(build).space.restrict({"op": ("a", "c")}))
    with building(Relax(params)):
        assert list(build().ops) == ["a", "c"]
    assert params.logits["op"].shape == (2,)


def test_logits_depend_on_the_seed_alone():
    space = record(lambda: _one_op()).space
    first = ArchParams(space, seed=3).logits["op"]
    torch.randn(100)
    assert torch.equal(first, ArchParams(space, seed=3).logits["op"])
    assert not torch.equal(first, ArchParams(space, seed=4).logits["op"])
    assert 0 < first.abs().max() < 0.01


def _one_op():
    with reading("backbone") as pick:
        return pick.op("op", {o: nn.Identity for o in "abcdef"})


@pytest.mark.parametrize(("name", "option", "says"), [("stage1.k", "a", "dot"), ("op", "conv0.5", "conv0.5"), ("op", 3, "3")])
def test_names_that_torch_cannot_hold_are_refused(name, option, says):
    def build():
        with reading("backbone") as pick:
            return pick.op(name, {option: nn.Identity, "b": nn.Identity})

    with pytest.raises(ValueError, match=says):
        record(build)


def test_restricting_what_is_no_operation_is_refused_while_relaxed():
    def build():
        with reading("backbone") as pick:
            pick.subset("kept", ("x", "y", "z"), 2)
            return pick.op("op", {o: nn.Identity for o in "ab"})

    params = ArchParams(record(build).space.restrict({"kept": ("x", "y")}))
    with pytest.raises(ValueError, match="kept"), building(Relax(params)):
        build()
