"""What a network computes, as a graph without names, so that two networks can be compared edge by edge.

`record` runs a function on the meta device and notes every operation that its outputs depend on: the operation, the attributes
that matter (strides, padding, dilation, groups, shapes of weights, pooling, ...) and the operations it takes its inputs from.
Each gets a digest of these, so equal digests mean equal networks up to the values of the weights.

Ways of writing the same function give the same graph:
- sums and products don't depend on the order of their operands; nested sums and nested concatenations are one;
- what only moves elements (views, slices, permutations, zero padding, shuffles, a stride of a 1x1 convolution) is noted
  as the map of positions that results, and where that changes nothing, as nothing;
- dimensions of size one don't count: a convolution of a 1x1 map is a linear layer, a pool over the whole map a mean;
- an operation in place equals the same operation out of place, and what is read afterwards has changed.
Weights have a shape but no name. Not compared are eps and momentum of norms, and data types.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from tests.backbones.wiring_rules import Value, noted, run


class Node(NamedTuple):
    """An operation: what it is, where its inputs come from (numbers of nodes), its digest, and its output's shape."""

    name: str
    attributes: tuple[tuple[str, Any], ...]
    inputs: tuple[int, ...]
    digest: str
    shape: tuple[int, ...]


@dataclass
class Graph:
    """The nodes in order of execution, those that are outputs, and how many weights there are of each shape."""

    nodes: list[Node]
    outputs: tuple[int, ...]
    weights: Counter

    def needed(self) -> list[int]:
        """The nodes that outputs depend on, in order of execution."""
        found, open_ = set(), list(self.outputs)
        while open_:
            node = open_.pop()
            if node not in found:
                found.add(node)
                open_ += self.nodes[node].inputs
        return sorted(found)

    def signature(self) -> tuple:
        """Equal for networks that compute the same."""
        return tuple(self.nodes[i].digest for i in self.outputs), tuple(sorted(self.weights.items()))

    def line(self, number: int) -> str:
        """A node in words."""
        node = self.nodes[number]
        attributes = " ".join(f"{key}={value}" for key, value in node.attributes)
        inputs = ", ".join(f"{i} {self.nodes[i].name}" for i in node.inputs)
        return f"{number} {node.name} {list(node.shape)} {attributes}" + (f" <- {inputs}" if inputs else "")

    def difference(self, other: Graph, limit: int = 4) -> str:
        """The first operations of either graph that the other doesn't have; "" where the two are equal."""
        if self.signature() == other.signature():
            return ""
        lines = []
        for title, one, two in (("only in the first:", self, other), ("only in the second:", other, self)):
            known = {two.nodes[i].digest for i in two.needed()}
            foreign = {i for i in one.needed() if one.nodes[i].digest not in known}
            # those below a foreign one are foreign for that reason alone
            first = sorted(i for i in foreign if foreign.isdisjoint(one.nodes[i].inputs))
            lines += [title, *(f"  {one.line(i)}" for i in first[:limit])]
            lines.append(f"  {len(first)} such operations, {len(foreign) - len(first)} after them")
        if len(self.outputs) != len(other.outputs):
            lines.append(f"{len(self.outputs)} outputs and {len(other.outputs)}")
        more, fewer = dict(self.weights - other.weights), dict(other.weights - self.weights)
        return "\n".join([*lines, f"shapes of weights beyond those of the other: {more} and {fewer}"])


def record(function: Callable[..., Any], *inputs: Tensor) -> Graph:
    """The graph of `function(*inputs)`: its outputs are all tensors that it returns, in order."""
    recorder = Recorder()
    for number, x in enumerate(inputs):
        recorder.note(x, Value(recorder.node("input", x.shape, number=number)))
    with torch.no_grad(), recorder:
        results = tree_flatten(function(*inputs))[0]
    assert results and all(isinstance(y, Tensor) for y in results), "the function must return tensors"
    outputs = tuple(recorder.read(y) for y in results)
    return Graph(recorder.nodes, outputs, Counter(recorder.weights.values()))


def _squeezed(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(n for n in shape if n != 1)


class Recorder(TorchDispatchMode):
    """Notes for every tensor what it is; `wiring_rules` says so of each operation."""

    def __init__(self) -> None:
        super().__init__()
        self.nodes: list[Node] = []
        self.weights: dict[int, tuple[int, ...]] = {}
        self._numbers: dict[str, int] = {}
        # tensors are kept, as their ids are the keys; with each, how often its memory had been changed when it was noted
        self._known: dict[int, tuple[Tensor, Value, int]] = {}
        self._changes: Counter[int] = Counter()

    def node(self, name: str, shape: Sequence[int], inputs: Sequence[int] = (), **attributes: Any) -> int:
        """The number of the node, which is the old one if there is such a node already."""
        attributes = tuple(sorted((key, str(value)) for key, value in attributes.items()))
        shape = _squeezed(shape)
        content = repr((name, attributes, shape, [self.nodes[i].digest for i in inputs]))
        digest = hashlib.blake2b(content.encode(), digest_size=12).hexdigest()
        if digest not in self._numbers:
            self._numbers[digest] = len(self.nodes)
            self.nodes.append(Node(name, attributes, tuple(inputs), digest, shape))
        return self._numbers[digest]

    def note(self, tensor: Tensor, value: Value, changed: bool = False) -> None:
        """`tensor` now has this value, by a change in place or as a new tensor."""
        memory = tensor.untyped_storage()._cdata
        self._changes[memory] += changed
        self._known[id(tensor)] = (tensor, value, self._changes[memory])

    def value(self, tensor: Tensor) -> Value:
        """What was noted of a tensor; one that was never seen is a weight."""
        if id(tensor) not in self._known:
            self.note(tensor, Value(None, constant="weight"))
        kept, value, changes = self._known[id(tensor)]
        assert kept is tensor
        assert value.node is None or changes == self._changes[tensor.untyped_storage()._cdata], (
            "a tensor is read that was changed in place through another view of its memory"
        )
        return value

    def read(self, tensor: Tensor) -> int:
        """The node whose output the tensor is, where need be one that moves elements."""
        return self.node_of(self.value(tensor), tensor.shape)

    def node_of(self, value: Value, shape: Sequence[int]) -> int:
        """The node that is this value, of a tensor of this shape."""
        if value.node is None:
            return self.node("constant", shape, what=value.constant)
        if value.index is None:
            return value.node
        positions = hashlib.blake2b(value.index.contiguous().numpy().tobytes(), digest_size=6).hexdigest()
        return self.node("move", shape, [value.node], positions=positions)

    def weight(self, tensor: Tensor | None) -> tuple[int, ...] | None:
        """The shape of a weight, which is counted once however often it is used."""
        if tensor is None:
            return None
        assert self.value(tensor).node is None, "a weight depends on the input"
        self.weights[tensor.untyped_storage()._cdata] = tuple(sorted(_squeezed(tensor.shape)))
        return tuple(tensor.shape)

    def moved(self, value: Value, shape: Sequence[int], move: Callable[[Tensor], Any]) -> Any:
        """The value, or the values, after `move`, which maps a tensor of positions to one or several."""
        index = value.index
        if index is None:
            index = torch.arange(shape.numel(), dtype=torch.int32).reshape(shape)
        after = move(index.reshape(shape))
        several = isinstance(after, list | tuple)
        return [self._settled(value.node, y) for y in after] if several else self._settled(value.node, after)

    def _settled(self, node: int, index: Tensor) -> Value:
        whole = _squeezed(index.shape) == self.nodes[node].shape
        same = whole and torch.equal(index.flatten(), torch.arange(index.numel(), dtype=torch.int32))
        return Value(node, None if same else index)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Run the operation, then note what it was."""
        result = run(func, args, kwargs or {})
        declared = func._schema.arguments
        given = {argument.name: argument.default_value for argument in declared}
        given.update(zip(given, args, strict=False))
        given.update(kwargs or {})
        first = result[0] if isinstance(result, list | tuple) else result
        changed = any(first is x for x in args)
        values = noted(self, func, given, result)
        for tensor, value in zip(result, values, strict=False) if isinstance(values, list) else [(first, values)]:
            self.note(tensor, value, changed)
        return result
