"""Gradient search must find what was planted when only the logits are unknown."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_planted_operations_are_found_with_shared_weights():
    command = [sys.executable, "tools/planted.py", "--setting", "shared", "--steps", "50", "--json"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    shared = json.loads(done.stdout)["shared"]
    assert len(shared["planted"]) == 10 and shared["edges"] == 50
    assert shared["p"] < 0.01
    # far beyond chance, which is a quarter of the edges
    assert shared["matches"] >= 40
    assert len({tuple(cell) for cell in shared["planted"]}) == 10
