"""Which keyword arguments a registered class or function really takes.

``**kwargs`` is followed: where a constructor does nothing with it but ``super().__init__(..., **kwargs)``,
the base class answers, but for the arguments that the call gives itself; where it uses it in any other way, everything is
accepted.
"""

import ast
import inspect
import textwrap
from collections.abc import Callable, Set
from typing import Any

from torch import nn

NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def keywords(target: Callable[..., Any], rest_is: Set[str] | None = None) -> set[str] | None:
    """Names that ``target(**cfg)`` accepts, or None where that can't be told and every name must pass.

    rest_is: what ``**kwargs`` may hold where the constructor uses it in its own way.
    """
    if not inspect.isclass(target):
        return _of_function(target)
    names: set[str] = set()
    given: set[str] = set()
    for owner in target.__mro__:
        init = owner.__dict__.get("__init__")
        if init is None:
            continue
        # both take no keyword of a config: nn.Module's **kwargs only serves its own error message
        if owner in (object, nn.Module):
            return names
        parameters = _parameters(init)
        if parameters is None:
            return None
        names |= {p.name for p in parameters[1:] if p.kind in NAMED} - given
        rest = [p.name for p in parameters if p.kind is inspect.Parameter.VAR_KEYWORD]
        if not rest:
            return names
        calls = _forwarding(init, rest[0])
        if not calls:
            return None if rest_is is None else names | rest_is
        given |= {keyword.arg for call in calls for keyword in call.keywords if keyword.arg is not None}
    return names


def _of_function(target: Callable[..., Any]) -> set[str] | None:
    parameters = _parameters(target)
    if parameters is None or any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
        return None
    return {p.name for p in parameters if p.kind in NAMED}


def _parameters(target: Callable[..., Any]) -> list[inspect.Parameter] | None:
    try:
        return list(inspect.signature(target).parameters.values())
    # builtins and C functions may have no signature
    except (TypeError, ValueError):
        return None


def _forwarding(init: Callable[..., Any], name: str) -> list[ast.Call]:
    """The calls ``super().__init__(..., **name)`` in the constructor's source, where ``name`` has no other use; else none."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(init))))
    except (OSError, TypeError, SyntaxError):
        return []
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func) == "super().__init__"]
    forwarded = {id(k.value): call for call in calls for k in call.keywords if k.arg is None}
    uses = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == name]
    return [forwarded[id(node)] for node in uses] if all(id(node) in forwarded for node in uses) else []
