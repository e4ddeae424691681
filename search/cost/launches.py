"""Launches of a step, and the bytes they move: one counting function for every plan of execution.

How launches are counted:
- A call of an ATen operator that computes counts one, whatever it starts inside itself: a batch norm one forward and one
  backward, a concatenation one, an operation on a list of tensors (`_foreach_*`) one. `convolution_backward` counts one for
  each gradient that is asked for.
- Views, allocations, questions about a tensor and reading a number on the host count nothing.
- Of an operator of ours (namespace `visnas`) count what it does: its Triton kernels, each where it is launched (in the
  interpreter a grid is a launch), and the ATen calls beside them. An operator of another library counts one.
- If anything runs on a device other than the CPU, what runs on the CPU isn't counted.

So the number is about the device's kernels, not equal to it: CUDA's batch norm backward, for one, starts several. What
torch.compile makes isn't seen, and forward and backward are, also where backward runs in another thread.

Bytes moved: each tensor that a counted call or launch reads and each that it writes, once. An element that is read again within
a call costs nothing more; nor does what a call keeps inside itself.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from search.supernet import triton_launches

OURS = "visnas"
# beside what torch calls a view: operators that return tensors nothing was written to, or none
_ALLOCATE = {"empty", "empty_like", "empty_strided", "empty_permuted", "new_empty", "new_empty_strided", "resize_", "set_"}
_VIEW = {"_unsafe_view", "_reshape_alias"}
_ASK = {"_local_scalar_dense", "is_same_size", "equal", "record_stream", "sym_size", "sym_stride", "sym_numel"}
_FREE = frozenset(_ALLOCATE | _VIEW | _ASK)
# write their first argument without reading it
_OVERWRITE = frozenset({"copy_", "fill_", "zero_", "normal_", "uniform_", "bernoulli_"})


@dataclass(frozen=True)
class Launches:
    """`total` launches, how many `by_name` ("aten.mm", "triton.sum_kernel"), and the bytes they moved."""

    total: int
    by_name: Mapping[str, int]
    bytes_moved: int


def count_launches(step: Callable[[], object], dry: bool = False) -> Launches:
    """Runs `step` once and counts what it launches, backward included; on real tensors, or on the meta device without work.

    Where routes differ by the device (search/kernels/separable/depthwise.py), the meta device takes those of GPUs; Triton
    kernels launch nothing there. With `dry` Triton kernels are counted and don't run, which makes a count in the interpreter
    fast.
    """
    counting = _Counting()
    with triton_launches(counting.launched, dry), counting:
        step()
    return counting.result()


@dataclass
class _Counts:
    by_name: Counter[str] = field(default_factory=Counter)
    bytes_moved: int = 0

    def add(self, name: str, launches: int, moved: int) -> None:
        self.by_name[name] += launches
        self.bytes_moved += moved


class _Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._by_device: dict[str, _Counts] = defaultdict(_Counts)

    def launched(self, kernel: str, tensors: Sequence[Tensor]) -> None:
        """A Triton kernel was launched on the tensors; each is read or written."""
        self._by_device[_device(tensors)].add(f"triton.{kernel}", 1, sum(map(_size, tensors)))

    def result(self) -> Launches:
        """What was counted on the device, or on the CPU if there was none."""
        devices = [name for name in self._by_device if name != "cpu"] or list(self._by_device)
        by_name: Counter[str] = sum((self._by_device[name].by_name for name in devices), Counter())
        moved = sum(self._by_device[name].bytes_moved for name in devices)
        return Launches(by_name.total(), dict(by_name.most_common()), moved)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        given = list(_tensors((args, kwargs)))
        if func.namespace == OURS and given:
            # on with what the operator is made of, instead of this function again
            key = torch._C._parse_dispatch_key(torch._C._dispatch_key_for_device(_device(given)))
            assert key is not None
            with self:
                return func.redispatch(torch._C.DispatchKeySet(key), *args, **kwargs)
        out = func(*args, **kwargs)
        name = func._schema.name.replace("::", ".")
        made = list(_tensors(out))
        if func.is_view or name.partition(".")[2] in _FREE or not (made or given):
            return out
        launches = sum(map(bool, args[10])) if name == "aten.convolution_backward" else 1
        read, written = _arguments(func, args, kwargs)
        moved = sum(map(_size, [*read, *(made or written)]))
        self._by_device[_device([*made, *given])].add(name, launches, moved)
        return out


def _arguments(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
    """The tensors whose elements a call reads, and those that it changes."""
    read: list[Tensor] = []
    written: list[Tensor] = []
    overwrites = func._schema.name.partition("::")[2] in _OVERWRITE
    for i, argument in enumerate(func._schema.arguments):
        value = args[i] if i < len(args) else kwargs.get(argument.name)
        changed = argument.alias_info is not None and argument.alias_info.is_write
        if changed:
            written += _tensors(value)
        # `out` is written alone
        if not (changed and (overwrites or argument.kwarg_only)):
            read += _tensors(value)
    return read, written


def _tensors(tree: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_iter(tree) if isinstance(leaf, Tensor))


def _device(tensors: Sequence[Tensor]) -> str:
    """The kind of device a call runs on: a number on the CPU beside tensors elsewhere doesn't decide."""
    kinds = [tensor.device.type for tensor in tensors]
    return next((kind for kind in kinds if kind != "cpu"), "cpu")


def _size(tensor: Tensor) -> int:
    """Bytes of the different elements that a tensor shows: an expanded dimension repeats the same ones."""
    shape = (n for n, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride or not n)
    return math.prod(shape) * tensor.element_size()
