"""The statements of a `forward` from a recorded graph: one operation a line, sizes written where they are used."""

from __future__ import annotations

import heapq
import inspect
import math
import operator
import re
from collections.abc import Mapping
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from torch import fx, nn

from search.export.layers import quoted, reference
from search.export.trace import OWNER, VALUE, tensors

_INFIX: Mapping[Any, str] = {
    operator.add: "+",
    operator.sub: "-",
    operator.mul: "*",
    operator.truediv: "/",
    operator.floordiv: "//",
    operator.mod: "%",
    operator.pow: "**",
    operator.matmul: "@",
    operator.eq: "==",
    operator.ne: "!=",
    operator.lt: "<",
    operator.le: "<=",
    operator.gt: ">",
    operator.ge: ">=",
    operator.and_: "&",
    operator.or_: "|",
}
_PREFIX: Mapping[Any, str] = {operator.neg: "-", operator.pos: "+", operator.invert: "~"}
# where functions are looked up by identity; the first name wins
_PLACES = (("F", F), ("torch", torch), ("torchvision.ops", torchvision.ops))


def body(graph: fx.Graph, model: nn.Module) -> list[str]:
    """Lines of a `forward(self, x)` that does what the graph says, with a comment where another module's part begins.

    Raises ValueError for an operation or a constant that has no source.
    """
    for node in reversed(graph.nodes):
        if not node.users and _inline(node):
            graph.erase_node(node)
    return _Writer(model).lines(graph)


def _inline(node: fx.Node) -> bool:
    """Whether a node is written where it is used: sizes, weights, and parts of what an operation returned."""
    if node.op == "get_attr":
        return True
    if node.op not in ("call_function", "call_method"):
        return False
    part = node.target is operator.getitem and isinstance(node.args[0].meta[VALUE], tuple | list)
    return part or not tensors(node.meta[VALUE])


def _named(node: fx.Node) -> set[fx.Node]:
    """The variables that a node's statement reads."""
    found = set()
    for source in node.all_input_nodes:
        found |= _named(source) if _inline(source) else {source}
    return found


def _block(node: fx.Node) -> str:
    """The numbered part of the network that a node belongs to, such as backbone.stages.2.0, else its whole owner."""
    name = node.meta[OWNER][0]
    numbered = re.match(r".*?(?:\.\d+)+", name)
    return numbered[0] if numbered else name


class _Writer:
    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.variables: dict[fx.Node, int] = {}

    def lines(self, graph: fx.Graph) -> list[str]:
        nodes = [node for node in graph.nodes if not _inline(node)]
        last = {source: node for node in nodes for source in _named(node)}
        free = list(range(len(nodes)))
        found: list[str] = []
        for name, group in groupby(nodes, key=_block):
            lines = [line for node in group for line in self.statement(node, last, free)]
            found += self.in_short(name, lines)
        return found

    def statement(self, node: fx.Node, last: Mapping[fx.Node, fx.Node], free: list[int]) -> list[str]:
        """A node's line: what it computes goes to the first variable that isn't needed any more."""
        if node.op == "placeholder":
            self.variables[node] = heapq.heappop(free)
            return []
        text = self.expression(node)
        for source in _named(node):
            if last[source] is node:
                heapq.heappush(free, self.variables[source])
        if node.op == "output":
            return [f"return {text}"]
        if node not in last:
            # done for what it does to its input
            return [text]
        self.variables[node] = heapq.heappop(free)
        return [f"{self.variable(node)} = {text}"]

    def in_short(self, name: str, lines: list[str]) -> list[str]:
        """The lines of one part of the network, after its name, which is short where it stands often."""
        if not lines or lines[0].startswith("return"):
            return lines
        if not name:
            return [f"# {type(self.model).__name__}", *lines]
        comment = f"# {name}: {type(self.model.get_submodule(name)).__name__}"
        whole = reference(self.model, name)
        if sum(whole in line for line in lines) < 2:
            return [comment, *lines]
        return [comment, f"part = {whole}", *(line.replace(whole, "part") for line in lines)]

    def variable(self, node: fx.Node) -> str:
        number = self.variables[node]
        return f"x{number}" if number else "x"

    def expression(self, node: fx.Node) -> str:
        """Source of how a node is computed."""
        if node.op == "get_attr":
            return reference(self.model, node.target)
        if node.op == "output":
            return self.argument(node.args[0])
        if node.op == "call_module":
            return f"{reference(self.model, node.target)}({self.arguments(node.args, node.kwargs)})"
        first, *rest = node.args or (None,)
        if node.op == "call_method":
            return f"{self.argument(first, nested=True)}.{node.target}({self.arguments(rest, node.kwargs)})"
        if node.target is getattr:
            return f"{self.argument(first, nested=True)}.{rest[0]}"
        if node.target is operator.getitem:
            return f"{self.argument(first, nested=True)}[{self.index(rest[0])}]"
        if node.target in _INFIX:
            return f"{self.argument(first, nested=True)} {_INFIX[node.target]} {self.argument(rest[0], nested=True)}"
        if node.target in _PREFIX:
            return f"{_PREFIX[node.target]}{self.argument(first, nested=True)}"
        return f"{_function(node.target)}({self.arguments(node.args, _without_defaults(node))})"

    def arguments(self, args: Any, kwargs: Mapping[str, Any]) -> str:
        return ", ".join([*map(self.argument, args), *(f"{name}={self.argument(value)}" for name, value in kwargs.items())])

    def index(self, value: Any) -> str:
        parts = value if isinstance(value, tuple) else (value,)
        return ", ".join(self.slice(part) if isinstance(part, slice) else self.argument(part) for part in parts)

    def slice(self, value: slice) -> str:
        start, stop, step = ("" if part is None else self.argument(part) for part in (value.start, value.stop, value.step))
        return f"{start}:{stop}" + (f":{step}" if step else "")

    def argument(self, value: Any, nested: bool = False) -> str:
        """Source of a value; `nested`: as a part of an expression, where an operation of its own needs brackets."""
        if isinstance(value, fx.Node):
            if not _inline(value):
                return self.variable(value)
            text = self.expression(value)
            return f"({text})" if nested and (value.target in _INFIX or value.target in _PREFIX) else text
        if isinstance(value, tuple):
            return f"({', '.join(map(self.argument, value))}{',' if len(value) == 1 else ''})"
        if isinstance(value, list):
            return f"[{', '.join(map(self.argument, value))}]"
        if isinstance(value, dict):
            return "{" + ", ".join(f"{self.argument(key)}: {self.argument(part)}" for key, part in value.items()) + "}"
        if isinstance(value, slice):
            return f"slice({self.argument(value.start)}, {self.argument(value.stop)}, {self.argument(value.step)})"
        if isinstance(value, torch.device):
            return f"torch.device({quoted(str(value))})"
        if isinstance(value, torch.dtype | torch.memory_format):
            return str(value)
        if isinstance(value, float) and not math.isfinite(value):
            return f'float("{value}")'
        if isinstance(value, str):
            return quoted(value)
        if value is ...:
            return "..."
        if value is None or isinstance(value, bool | int | float):
            return repr(value)
        raise ValueError(f"a {type(value).__name__} in the network's forward pass can't be written down: {str(value)[:80]}")


def _function(target: Any) -> str:
    for name, place in _PLACES:
        for attribute, value in vars(place).items():
            if value is target and not attribute.startswith("_"):
                return f"{name}.{attribute}"
    raise ValueError(f"the operation {getattr(target, '__name__', target)} in the network's forward pass can't be written down")


def _without_defaults(node: fx.Node) -> dict[str, Any]:
    try:
        known = inspect.signature(node.target).parameters
    except (TypeError, ValueError):
        return dict(node.kwargs)
    return {k: v for k, v in node.kwargs.items() if isinstance(v, fx.Node) or k not in known or v != known[k].default}
