"""A network's forward pass as a graph of layers and tensor operations, with sizes left as expressions.

`torch.fx` records what the code does to its input, but stops where the code asks for a value (`if x.shape[2] > 7`, `len`,
iteration). Here every recorded value also has its concrete counterpart, computed on the meta device (shapes without
arithmetic), which answers such questions; `x.shape[3] % 2` itself stays an expression of the graph.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.proxy import Attribute
from torch.utils._pytree import tree_leaves
from torchvision.ops import StochasticDepth

from search.cost.count import copy_to_meta
from search.export.layers import expression

VALUE, OWNER = "value", "owner"
# two, for sizes of one have rules of their own
BATCH = 2


class _Known(fx.Proxy):
    """A recorded value that knows its concrete counterpart."""

    @property
    def known(self) -> Any:
        return self.node.meta[VALUE]

    def __getattr__(self, name: str) -> _KnownAttribute:
        return _KnownAttribute(self, name)

    def __bool__(self) -> bool:
        return self.tracer.asked(bool, self.known)

    def __index__(self) -> int:
        return self.tracer.asked(operator.index, self.known)

    def __int__(self) -> int:
        return self.tracer.asked(int, self.known)

    def __float__(self) -> float:
        return self.tracer.asked(float, self.known)

    def __len__(self) -> int:
        return len(self.known)

    def __iter__(self) -> Iterator[_Known]:
        return iter([self[i] for i in range(len(self))])


class _KnownAttribute(_Known, Attribute):
    """An attribute of a recorded value; recorded itself once it is used."""


class _Root(nn.Module):
    """Calls the network with images only."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Any:
        return self.model(x)


class _Tracer(fx.Tracer):
    proxy_buffer_attributes = True

    def __init__(self, layers: set[nn.Module], images: Tensor) -> None:
        super().__init__()
        self.layers = layers
        self.images = images
        self.computing = False

    def proxy(self, node: fx.Node) -> _Known:
        return _Known(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return m in self.layers

    def call_module(self, m: nn.Module, forward: Any, args: tuple, kwargs: dict) -> Any:
        if self.computing:
            return forward(*args, **kwargs)
        return args[0] if _does_nothing(m) else super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict) -> Any:
        return attr_val if self.computing else super().getattr(attr, attr_val, parameter_proxy_cache)

    def create_node(self, kind: str, target: Any, args: tuple, kwargs: dict, *more: Any, **named: Any) -> fx.Node:
        node = super().create_node(kind, target, args, kwargs, *more, **named)
        stack = list(node.meta.get("nn_module_stack", {}).values())
        # a layer is a part of the module that calls it
        node.meta[OWNER] = stack[-2] if kind == "call_module" else stack[-1] if stack else ("", type(None))
        if kind == "placeholder":
            node.meta[VALUE] = self.images
        elif kind != "output":
            args, kwargs = fx.map_arg((args, kwargs), lambda n: n.meta[VALUE])
            node.meta[VALUE] = self._compute(kind, target, args, kwargs)
        return node

    def create_arg(self, a: Any) -> Any:
        made = isinstance(a, Tensor) and not any(a is own for own in (*self.root.parameters(), *self.root.buffers()))
        if made:
            raise ValueError(
                f"the network's forward pass makes a tensor of its own, {tuple(a.shape)}, which can't be written down"
            )
        return super().create_arg(a)

    def _compute(self, kind: str, target: Any, args: tuple, kwargs: dict) -> Any:
        self.computing = True
        try:
            with torch.no_grad():
                if kind == "call_function":
                    return target(*args, **kwargs)
                if kind == "call_method":
                    return getattr(args[0], target)(*args[1:], **kwargs)
                # a layer, or a weight
                found = operator.attrgetter(target)(self.root)
                return found if kind == "get_attr" else found(*args, **kwargs)
        finally:
            self.computing = False

    def asked(self, kind: Any, value: Any) -> Any:
        """What the code learns of a value, and so is fixed in the graph."""
        if isinstance(value, Tensor):
            raise ValueError("the network decides by what is in the images, which a list of operations can't say")
        return kind(value)


def _does_nothing(module: nn.Module) -> bool:
    unused = type(module) in (nn.Dropout, nn.Dropout2d, StochasticDepth) and module.p == 0
    return unused or type(module) is nn.Identity


def tensors(value: Any) -> list[Tensor]:
    """The tensors in a nested value, in torch's order."""
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def trace(model: nn.Module, input_size: tuple[int, ...]) -> fx.Graph:
    """The graph of `model`, which is in evaluation mode, on images of `input_size` (C, H, W).

    Layers of torch.nn are calls, everything else is traced through. `node.meta[VALUE]` is a node's value, with tensors on the
    meta device; `node.meta[OWNER]` the (name, class) of the module that it belongs to. Layers that do nothing are left out.
    Raises ValueError for a network that decides by the images' content.
    """
    assert not model.training, "training mode has branches of its own"
    model = copy_to_meta(model)
    layers = {part for part in model.modules() if part is not model and expression(part) is not None}
    images = torch.empty(BATCH, *input_size, device="meta")
    graph = _Tracer(layers, images).trace(_Root(model))
    for node in graph.nodes:
        if node.op in ("call_module", "get_attr"):
            node.target = node.target.removeprefix("model").removeprefix(".")
        name, kind = node.meta[OWNER]
        node.meta[OWNER] = (name.removeprefix("model").removeprefix("."), kind)
    return graph
