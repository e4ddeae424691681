"""Other interpreters for the tests: what a user's own script would see."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from search.environment import installed

ROOT = Path(__file__).resolve().parents[2]
# before a script that imports, say, mmdet.apis by itself: upstream's needs operations that mmcv-lite lacks
WITH_OPERATIONS = ("-m", "tasks.mm_ops") if "mmcv-lite" in installed() else ()


def python(*arguments: str | Path, path: Path | None = None, cwd: Path | None = None) -> str:
    """What a fresh interpreter prints, on both streams; it finds this repository, and first what lies in `path`."""
    found = os.pathsep.join(str(p) for p in (path, ROOT) if p)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": found, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def tool(package: str, name: str) -> Path:
    """A script of mmdet's or mmseg's `tools`, which their wheels carry; the test is skipped where this one doesn't."""
    script = Path(find_spec(package).submodule_search_locations[0]) / ".mim" / "tools" / f"{name}.py"
    if not script.is_file():
        pytest.skip(f"{package} was installed without its tools")
    return script


def write_config(path: Path, settings: dict) -> Path:
    """A config file in Python syntax."""
    path.write_text("".join(f"{name} = {value!r}\n" for name, value in settings.items()))
    return path
