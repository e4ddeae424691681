import json
import random
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.space import Architecture, OneOf, Space, load, save

SPACE = Space("cells", [OneOf("b", ("x", "y")), OneOf("a", (1, 2))])
ARCH = Architecture({"a": 1, "b": "x"})


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "architecture.json"
    save(path, {"backbone": (SPACE, ARCH)}, {"seed": 3, "score": 91.5})
    return path


@settings(max_examples=40, deadline=None)
@given(data=st.data(), seed=st.integers(0, 10**6))
def test_round_trip(tmp_path_factory, small_spaces, data, seed):
    space = data.draw(small_spaces)
    arch = space.sample(random.Random(seed))
    path = tmp_path_factory.mktemp("files") / "a.json"
    save(path, {"neck": (space, arch)}, {"seed": seed})
    file = load(path)
    assert file.require("neck", space) == arch
    assert file.parts["neck"].space == space
    assert file.provenance == {"seed": seed}


def test_layout_is_the_documented_one_with_sorted_keys(written):
    data = json.loads(written.read_text())
    assert list(data) == ["format", "parts", "provenance", "version"]
    assert (data["format"], data["version"]) == ("visnas-architecture", 1)
    part = data["parts"]["backbone"]
    assert part["choices"] == {"a": 1, "b": "x"}
    assert part["fingerprint"] == SPACE.fingerprint
    assert part["space"] == SPACE.to_json()
    again = written.with_name("again.json")
    save(again, {"backbone": (SPACE, Architecture({"b": "x", "a": 1}))}, {"score": 91.5, "seed": 3})
    assert again.read_bytes() == written.read_bytes()


def test_a_file_of_another_space_is_refused_naming_the_first_differing_choice(written):
    other = Space("cells", [OneOf("b", ("x", "z")), OneOf("a", (1, 2, 3))])
    with pytest.raises(ValueError) as error:
        load(written).require("backbone", other)
    assert str(error.value) == (
        f"{written}: part 'backbone' is an architecture of another space: "
        "choice 'a' has options [1, 2] in the file, but [1, 2, 3] in the network"
    )


def test_a_file_without_the_part_is_refused(written):
    with pytest.raises(ValueError, match="has no part 'neck'; it has backbone"):
        load(written).require("neck", SPACE)


def _changed(path, change):
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(format="something"), "is not an architecture file"),
        (lambda d: d.update(version=2), "has version 2, but this visnas reads version 1"),
        (lambda d: d.update(parts=[]), "is damaged"),
        (lambda d: d["parts"]["backbone"]["choices"].update(a=7), "is damaged: choice 'a' is 7"),
        (lambda d: d["parts"]["backbone"]["choices"].pop("a"), "is damaged: choice 'a' is active"),
        (lambda d: d["parts"]["backbone"]["space"]["choices"].pop(), "the fingerprint of part 'backbone'"),
        (lambda d: d["parts"]["backbone"].pop("fingerprint"), "must have space, fingerprint and choices"),
    ],
)
def test_a_changed_file_is_refused(written, change, message):
    _changed(written, change)
    with pytest.raises(ValueError, match=message):
        load(written)


def test_what_is_no_architecture_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="there is no architecture file"):
        load(tmp_path / "missing.json")
    with pytest.raises(ValueError, match="cannot be read"):
        load(tmp_path)
    path = tmp_path / "a.json"
    for content, message in [(b"{", "is not JSON"), (b"[]", "not an architecture file"), (b"\xff\xfe", "cannot be read")]:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            load(path)


def test_nothing_is_written_for_an_architecture_of_another_space(tmp_path):
    path = tmp_path / "a.json"
    with pytest.raises(ValueError, match="part 'head' cannot be saved: choice 'b' is 'z'"):
        save(path, {"head": (SPACE, Architecture({"a": 1, "b": "z"}))}, {})
    with pytest.raises(ValueError, match="not plain JSON"):
        save(path, {"head": (SPACE, ARCH)}, {"score": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_old_file_whole(written):
    before = written.read_bytes()
    script = f"""
import resource, signal
from search.space import Architecture, OneOf, Space, save
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, {resource.getrlimit(resource.RLIMIT_FSIZE)[1]}))
try:
    save({str(written)!r}, {{"b": (Space("s", [OneOf("a", (1, 2))]), Architecture({{"a": 2}}))}}, {{"note": "n" * 500}})
except OSError:
    print("refused")
"""
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "refused\n"
    assert written.read_bytes() == before
    assert [path.name for path in written.parent.iterdir()] == [written.name]
