"""mmdet and mmseg without mmcv's compiled operations: torchvision's compiled ones stand in. Imported for its effect.

mmcv's C++ extension `mmcv._ext` takes half an hour to build and doesn't build against every torch, and the packages that
install in seconds lack it. `import mmdet.models` needs the module, and a detector needs a few of its functions. Here Python
gets one more place to look for `mmcv._ext`, after all others: where mmcv was compiled, its own is found first and nothing
changes. What torchvision can't do raises RuntimeError, in one sentence that names the operation.

A config of mmdet or mmseg gets this by `custom_imports=dict(imports=['backbones', 'tasks.detection'])`.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

EXTENSION = "mmcv._ext"
# packages whose modules go on without mmcv's operations when they don't find them at their import
GUARDED = ("mmcv", "mmdet", "mmseg")


def install() -> None:
    """Let torchvision's operations stand in for mmcv's, unless mmcv has its own; again and again is the same as once.

    Modules of mm packages that were imported before, and went on without, are given the operations afterwards.
    """
    if FINDER not in sys.meta_path:
        sys.meta_path.append(FINDER)
    loaded = [module for name, module in list(sys.modules.items()) if name.split(".")[0] in GUARDED]
    if loaded and find_spec(EXTENSION).origin == __name__:
        for module in loaded:
            _give_what_it_missed(module)


class _StandIn(MetaPathFinder, Loader):
    """Finds and makes the module `mmcv._ext`; being last in `sys.meta_path`, only where there is no other."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """As importlib asks: a spec for `mmcv._ext`, None for all else."""
        return ModuleSpec(fullname, self, origin=__name__) if fullname == EXTENSION else None

    def exec_module(self, module: ModuleType) -> None:
        """Give the module torchvision's operations, and for any other name a function that says what it would need."""
        from tasks.mm_ops import operations

        module.__doc__ = operations.__doc__
        for name in operations.__all__:
            setattr(module, name, getattr(operations, name))

        def missing(name: str) -> Callable[..., Any]:
            if name.startswith("_"):
                raise AttributeError(f"module {EXTENSION!r} has no attribute {name!r}")

            def refuse(*args: Any, **kwargs: Any) -> None:
                raise operations.unavailable(repr(name))

            return refuse

        module.__getattr__ = missing


FINDER = _StandIn()


def _give_what_it_missed(module: ModuleType) -> None:
    """Bind the names that a module imports from mmcv inside `try: ... except ImportError` to mmcv's own."""
    file = getattr(module, "__file__", None)
    source = Path(file).read_text(encoding="utf-8") if file and file.endswith(".py") else ""
    if "from mmcv" not in source:
        return
    for source_name, name, bound in _guarded_imports(ast.parse(source)):
        if hasattr(found := import_module(source_name), name):
            setattr(module, bound, getattr(found, name))


def _guarded_imports(tree: ast.Module) -> Iterator[tuple[str, str, str]]:
    """(module of mmcv, name in it, name it is bound to) of the imports at a module's top that may fail silently."""
    for node in tree.body:
        if not isinstance(node, ast.Try):
            continue
        caught = {ast.unparse(handler.type) for handler in node.handlers if handler.type}
        if not caught & {"ImportError", "ModuleNotFoundError"}:
            continue
        for statement in node.body:
            if isinstance(statement, ast.ImportFrom) and not statement.level and statement.module.split(".")[0] == "mmcv":
                yield from ((statement.module, alias.name, alias.asname or alias.name) for alias in statement.names)


install()
