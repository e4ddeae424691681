"""What the packaging promises: the core without mm packages, tools from any folder and from a bare checkout."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOOLS = sorted(path.name for path in (ROOT / "tools").glob("*.py"))
CORE = ("search.space", "search.supernet", "search.cost", "search.strategies")

IMPORT_WITHOUT = """
import importlib, importlib.abc, importlib.util, pkgutil, sys

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"{{name}} is blocked", name=name)

sys.meta_path.insert(0, Blocked())
# who asks whether a package is there hears that it isn't
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name in {blocked!r} else find_spec(name, package)
for name in {packages!r}:
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
print(sorted({{name.split(".")[0] for name in sys.modules}} & set({watched!r})))
"""

# stands in for `python tools/x.py --help` and then tells where `search` was found
HELP = """
import runpy, sys
tool = sys.argv[1]
sys.argv = [tool, "--help"]
sys.path[0] = tool.rpartition("/")[0]
try:
    runpy.run_path(tool, run_name="__main__")
    code = None
except SystemExit as exit:
    code = exit.code
import search
print("code", code, "search", search.__file__)
"""


def run(code, *arguments, cwd):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def test_the_core_imports_without_mm_packages_and_triton():
    blocked = ("mmengine", "mmcv", "mmdet", "mmseg", "triton")
    done = run(IMPORT_WITHOUT.format(blocked=blocked, packages=CORE, watched=blocked), cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_the_space_imports_nothing_but_the_standard_library():
    watched = ("torch", "numpy", "scipy", "mmengine", "matplotlib")
    done = run(IMPORT_WITHOUT.format(blocked=watched, packages=("search.space",), watched=watched), cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_the_blocker_blocks():
    done = run(IMPORT_WITHOUT.format(blocked=("torch",), packages=("search.supernet",), watched=()), cwd=ROOT)
    assert done.returncode == 1 and "torch is blocked" in done.stderr


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the tree as a clone has it: no environment, nothing installed from it."""
    folder = tmp_path_factory.mktemp("clone") / "visnas"
    folder.mkdir()
    for name in ("search", "backbones", "tasks", "configs", "tools"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.mark.parametrize("tool", TOOLS)
def test_help_from_another_folder_in_a_bare_checkout(checkout, tmp_path, tool):
    done = run(HELP, str(checkout / "tools" / tool), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: ")
    assert done.stdout.splitlines()[-1] == f"code 0 search {checkout / 'search' / '__init__.py'}"


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_says_how_to_run_it_on_its_first_line(tool):
    first = (ROOT / "tools" / tool).read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith('"""') and len(first) > 20


def test_tools_is_no_package():
    assert not (ROOT / "tools" / "__init__.py").exists()


def test_every_folder_with_code_is_a_package_that_setuptools_finds():
    setuptools = pytest.importorskip("setuptools")
    found = set(setuptools.find_packages(str(ROOT), include=["search*", "backbones*", "tasks*"]))
    folders = set()
    for name in ("search", "backbones", "tasks"):
        for file in (ROOT / name).rglob("*.py"):
            folders.add(".".join(file.parent.relative_to(ROOT).parts))
    assert folders <= found


def test_every_file_that_is_no_code_is_package_data():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    table = text.split("[tool.setuptools.package-data]")[1].split("\n[")[0]
    for name in ("search", "backbones", "tasks"):
        for file in (ROOT / name).rglob("*"):
            if file.is_file() and file.suffix not in (".py", ".pyc"):
                glob = file.name in table or f"*{file.suffix}" in table
                assert glob, f"{file.relative_to(ROOT)} is not in [tool.setuptools.package-data]"
