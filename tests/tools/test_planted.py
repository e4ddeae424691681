"""Gradient search must find what was planted when only the logits are unknown."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_planted_operations_are_found_with_shared_weights():
    command = [sys.executable, "tools/planted.py", "--setting", "shared", "--steps", "30", "--json"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    shared = json.loads(done.stdout)["shared"]
    assert len(shared["planted"]) == 10 and shared["edges"] == 50
    assert shared["p"] < 0.01
    # far beyond chance, which is a quarter of the edges
    assert shared["matches"] >= 40
    assert len({tuple(cell) for cell in shared["planted"]}) == 10


@pytest.mark.parametrize(("option", "value"), [("--architectures", 1), ("--steps", 0), ("--seed", -1)])
def test_what_cannot_be_tested_is_refused(tool, capsys, option, value):
    assert tool("planted")(option, value) == 2
    assert f"error: {option}={value} must be" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["planted", "bench_loading"])
def test_importing_leaves_the_path_and_imports_nothing_slow(name):
    code = f"import sys; before = list(sys.path); import tools.{name}; assert sys.path == before and 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
