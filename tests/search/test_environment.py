import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from search.environment import EXTRAS, FAMILIES, conflict, installed, main, others_than_forks, overwritten

ROOT = Path(__file__).resolve().parents[2]
UPSTREAM = {"mmengine": "0.10.7", "mmcv-lite": "2.1.0", "mmdet": "3.3.0", "mmsegmentation": "1.2.2"}
FORKS = {"onedl-mmengine": "0.10.12", "onedl-mmcv": "2.3.6", "onedl-mmdetection": "3.5.1"}


def test_one_family_is_sound():
    assert conflict(UPSTREAM) is None
    assert conflict(FORKS) is None
    assert conflict({}) is None


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [(theirs, ours) for upstream, forks in FAMILIES.values() for theirs in upstream for ours in forks],
)
def test_two_of_one_name_are_refused_with_both_named(theirs, ours):
    sentence = conflict({theirs: "1.0", ours: "2.0"})
    assert f"{theirs} 1.0 and {ours} 2.0" in sentence
    assert "make setup" in sentence and "\n" not in sentence


def test_families_may_mix_where_they_share_no_name():
    assert conflict({"onedl-mmengine": "0.10.12", "mmdet": "3.3.0"}) is None


def test_an_extra_is_refused_where_it_would_overwrite():
    sentence = overwritten("detection", {"mmdet": "3.3.0"})
    assert "mmdet 3.3.0" in sentence and "onedl-mmdetection" in sentence and "--no-deps" in sentence
    assert "mmcv-lite 2.1.0" in overwritten("segmentation", {"mmcv-lite": "2.1.0", "mmdet": "3.3.0"})
    assert overwritten("detection", FORKS) is None
    assert overwritten("ray", UPSTREAM) is None
    with pytest.raises(ValueError, match="no extra 'detecting'"):
        overwritten("detecting", {})


def test_the_extras_here_are_those_of_pyproject():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    table = text.split("[project.optional-dependencies]")[1].split("\n[")[0]
    declared = dict(re.findall(r"^(\w+) = \[(.*?)\]$", table, re.MULTILINE | re.DOTALL))
    # an extra may take in others of ours
    for name, line in declared.items():
        for others in re.findall(r"visnas\[([\w,]+)\]", line):
            declared[name] += "".join(declared[other] for other in others.split(","))
    found = {name: set(re.findall(r"onedl-[\w-]+", line)) for name, line in declared.items()}
    assert found == {name: set(forks) for name, forks in EXTRAS.items()}


def test_requirements_are_those_of_pyproject_without_forks(capsys):
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    declared = re.findall(r'^    "(.+)",$', text.split("\ndependencies = [")[1].split("\n]")[0], re.MULTILINE)
    assert main(["--requirements"]) == 0
    assert capsys.readouterr().out.split() == [line for line in declared if line != "onedl-mmengine>=0.10.9"]
    given = ["onedl-mmengine>=0.10.9", "onedl_free", "numpy", 'onnx>=1.17; extra == "export"']
    assert others_than_forks(given) == ["onedl_free", "numpy"]


def test_this_environment_is_sound():
    assert main([]) == 0
    assert "torch" in installed()


@pytest.fixture
def both_families(tmp_path):
    """Environment variables under which both families look installed."""
    for name, version in {"mmengine": "0.10.7", "onedl-mmengine": "0.10.12"}.items():
        folder = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return {**os.environ, "PYTHONPATH": str(tmp_path)}


@pytest.mark.parametrize(
    "command",
    [
        ["-m", "search.environment"],
        ["tools/draw.py", "backbones/archs/darts_v2.json", "-o", os.devnull],
    ],
)
def test_a_tool_stops_with_one_sentence(both_families, command):
    done = subprocess.run([sys.executable, *command], cwd=ROOT, env=both_families, capture_output=True, text=True)
    assert done.returncode == 2
    assert "mmengine 0.10.7 and onedl-mmengine" in done.stderr
    assert len(done.stderr.splitlines()) == 1
