"""The import rules of the tree, checked over the syntax trees: nothing is imported to find out.

Counted are imports anywhere in a file (in functions and under TYPE_CHECKING too), relative ones, names taken
from a package that are modules (`from search import engine`), and `import_module` or `__import__` of a
constant.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OURS = ("search", "backbones", "tasks", "configs", "tools", "tests")
MM = ("mmengine", "mmcv", "mmdet", "mmseg")
STANDARD = frozenset(sys.stdlib_module_names)

# part of the tree -> what of our own modules and of others' packages it may import, besides itself and the
# standard library; the longest matching part counts. Adding a package here is a decision.
RULES = {
    "search": (),
    "search.environment": (),
    "search.space": (),
    "search.kernels": ("torch", "triton"),
    "search.supernet": ("search.space", "search.kernels", "torch", "torchvision"),
    "search.cost": ("search.space", "search.supernet", "torch", "torchvision"),
    "search.strategies": ("search.space", "search.supernet", "search.cost", "torch", "scipy"),
    "search.engine": ("search", "torch", "torchvision", "numpy", "scipy", "rich", "mmengine"),
    "search.engine.ray_executor": ("search", "ray"),
    "search.export": ("search.cost", "torch", "torchvision", "onnxruntime"),
    "search.report": ("search.space", "matplotlib", "networkx", "jinja2", "markupsafe"),
    "search.registry": ("search.environment", "mmengine"),
    "search.testing": ("search", "torch", "numpy", "pytest", "mmengine"),
    "backbones": ("search.space", "search.supernet", "search.registry", "torch", "torchvision", "mmengine", "networkx"),
    "tasks": (),
    "tasks.classification": ("search", "torch", "torchvision", "numpy", "PIL", "sklearn", "mmengine"),
    "tasks.mm_ops": ("torch", "torchvision", "mmcv"),
    "tasks.mm_checkpoints": ("search.environment", "torch", "numpy", "mmengine"),
    "tasks.scenes": ("numpy", "PIL", "sklearn"),
    "tasks.image_files": ("search", "PIL", "cv2", "mmcv"),
    "tasks.detection": (
        *("search", "tasks.mm_ops", "tasks.mm_checkpoints", "tasks.scenes", "tasks.image_files"),
        *("torch", "torchvision", "numpy", "PIL", "mmengine", "mmcv", "mmdet"),
    ),
    "tasks.segmentation": (
        *("search", "tasks.mm_ops", "tasks.mm_checkpoints", "tasks.scenes", "tasks.image_files"),
        *("torch", "torchvision", "numpy", "PIL", "mmengine", "mmcv", "mmseg"),
    ),
}


def imported(tree: ast.Module, module: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """(line, absolute dotted name) of everything a module imports.

    For `from a import b` the name is `a.b`: whether b is a module or not, the rules look only at its
    beginning.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                parts = parts[: len(parts) - node.level + is_package]
                base = ".".join([*parts, base] if base else parts)
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield node.lineno, node.args[0].value


def within(name: str, part: str) -> bool:
    return name == part or name.startswith(part + ".")


def part_of(module: str) -> str | None:
    return max((part for part in RULES if within(module, part)), key=len, default=None)


def violations(source: str, module: str, is_package: bool = False) -> list[str]:
    """Sentences for the imports of a module that the rules forbid."""
    found = []
    part = part_of(module)
    for line, name in imported(ast.parse(source), module, is_package):
        top = name.split(".")[0]
        if top in ("tools", "configs", "tests"):
            # a test may call a tool's functions and share helpers with the tests beside it
            if not (module.startswith("tests.") and top != "configs"):
                found.append(f"{module}:{line} imports {name}: the code imports no tools, configs or tests")
        elif part is None or top in STANDARD:
            continue
        elif part == "search" and module != "search":
            found.append(f"{module}: this part of search/ has no rule in {Path(__file__).name}")
            break
        elif not (within(name, part) and not (part == "search" and name != "search")):
            # `from search import __version__` names the package itself
            allowed = any(within(name, other) for other in RULES[part])
            if not allowed:
                found.append(f"{module}:{line} imports {name}: {part} may import {', '.join(RULES[part]) or 'nothing'}")
    return found


def sources() -> list[tuple[Path, str]]:
    """(file, module) of every Python file of ours."""
    files = []
    for folder in OURS:
        for file in sorted((ROOT / folder).rglob("*.py")):
            parts = file.relative_to(ROOT).with_suffix("").parts
            files.append((file, ".".join(parts[:-1] if parts[-1] == "__init__" else parts)))
    return files


def test_the_tree_keeps_the_rules():
    found = []
    for file, module in sources():
        found += violations(file.read_text(encoding="utf-8"), module, file.name == "__init__.py")
    assert not found, "\n".join(found)


def test_every_part_of_the_tree_has_a_rule():
    folders = {".".join(file.parent.relative_to(ROOT).parts) for file, _ in sources()}
    for folder in folders:
        if folder.split(".")[0] in ("search", "tasks") and "." in folder:
            assert part_of(folder) not in ("search", "tasks"), f"{folder} has no rule"


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("search.space.choice", "import torch"),
        ("search.space.choice", "from search import supernet"),
        ("search.space.choice", "from search.supernet.pick import building"),
        ("search.space.choice", "from ..supernet import pick"),
        ("search.space.choice", "from .. import supernet"),
        ("search.space.choice", "def f():\n    import numpy as np"),
        ("search.space.choice", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch"),
        ("search.space.choice", "import importlib\nimportlib.import_module('search.engine')"),
        ("search.supernet.mixed", "from search.cost import count"),
        ("search.supernet.mixed", "from mmengine import Registry"),
        ("search.cost.count", "import search.strategies"),
        ("search.cost.count", "import mmengine.registry"),
        ("search.strategies.darts", "from search.engine.loops import BilevelLoop"),
        ("search.strategies.darts", "try:\n    import triton\nexcept ImportError:\n    pass"),
        ("search.report.page", "from search.supernet import ArchParams"),
        ("search.report.page", "import torch"),
        ("search.registry", "from search.engine import runner"),
        ("search.engine.loops", "import backbones"),
        ("search.engine.loops", "from tasks.classification import adapter"),
        ("search.engine.loops", "from mmdet.models import RetinaNet"),
        ("search.engine.loops", "import tools.search"),
        ("search.engine.loops", "from configs import demo"),
        ("search.engine.loops", "from tests.search import helper"),
        ("search.anything_new", "import torch"),
        ("backbones.cell_net", "from tasks.classification import data"),
        ("backbones.cell_net", "from search.strategies import DARTS"),
        ("backbones.cell_net", "import search.engine"),
        ("tasks.classification.adapter", "from backbones.cell_net import CellNet"),
        ("tasks.classification.adapter", "import mmdet"),
        ("tasks.detection.adapter", "import mmseg"),
        ("tasks.segmentation.adapter", "import mmdet"),
        ("tasks.segmentation.adapter", "from ..detection import adapter"),
        ("tools.train", "from tools import search"),
        ("tests.test_train", "import configs.demo"),
    ],
)
def test_the_checker_sees_a_violation(module, source):
    assert len(violations(source, module)) == 1


def test_a_package_resolves_its_own_relative_imports():
    assert violations("from . import choice", "search.space", is_package=True) == []
    assert violations("from .. import engine", "search.space", is_package=True) != []
    assert violations("from . import space", "search", is_package=True) != []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "search.space.files",
            "import json\nfrom .space import Space\nfrom search.space.choice import OneOf",
        ),
        ("search.supernet.mixed", "import torch.nn.functional as F\nfrom search.space import Space"),
        ("search.strategies.darts", "from search.supernet import Softmax\nfrom ..cost import count"),
        ("search.engine.runner", "from mmengine.runner import Runner\nimport search.report"),
        ("tasks.detection.adapter", "import mmdet.models\nfrom search.engine import errors"),
        ("tools.train", "from search.engine import train\nimport backbones, tasks.classification, rich"),
    ],
)
def test_the_checker_lets_the_rest_pass(module, source):
    assert violations(source, module) == []


def test_rules_let_no_mm_package_into_the_core():
    for part in ("search.space", "search.kernels", "search.supernet", "search.cost", "search.strategies"):
        assert not set(RULES[part]) & set(MM)
