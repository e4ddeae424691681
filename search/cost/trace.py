"""One run of a network on the meta device, written down call by call: what runs, on which shapes, at how many multiply-adds and
activations.

Every call of a module is recorded with its *work*: a digest of the tensor operations below it, with their shapes and settings.
Calls of equal work take equal time and equally many multiply-adds, wherever they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from search.cost.count import activations_of, is_auxiliary, run_on
from search.supernet import MixedOp


@dataclass
class Call:
    """One call of a module: its `path` in the network (with '#2' at its second call), arguments as meta tensors, `work`.

    `choice` and `option` of a mixed operation, else None and the class's name. `calls`: of the modules inside, in order.
    `macs`, `activations`: of one image or batch, as `count` counts them, all calls inside included, auxiliary heads not.
    """

    path: str
    option: str
    choice: str | None
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    work: str = ""
    macs: int = 0
    activations: int = 0
    calls: list[Call] = field(default_factory=list)

    @property
    def place(self) -> str:
        """The choice and its option, or the module's path."""
        return self.path if self.choice is None else f"{self.choice}={self.option}"

    @property
    def shapes(self) -> list[list[int]]:
        """Shapes of the tensors that it is given."""
        return [list(tensor.shape) for tensor in _tensors([self.args, self.kwargs])]

    def is_innermost(self) -> bool:
        """Whether it is a mixed operation without another inside, or a module without modules."""
        return not self.calls or (self.choice is not None and not any(call.holds_mixed() for call in self.calls))

    def holds_mixed(self) -> bool:
        """Whether it or a call inside is a mixed operation."""
        return self.choice is not None or any(call.holds_mixed() for call in self.calls)

    def innermost(self) -> Iterator[Call]:
        """The innermost calls (see `is_innermost`)."""
        if self.is_innermost():
            yield self
        else:
            for call in self.calls:
                yield from call.innermost()


# multiply-adds and activations
Amounts = tuple[int, int]
# by an operation and the strides of what it is given: the layouts of what it makes, and its amounts. Networks of a space
# repeat each other, and on the meta device most of the time goes into working these out.
_RESULTS: dict[tuple[str, str], tuple[list[Any], Amounts]] = {}


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes down operations as text while modules enter and leave."""

    def __init__(self, counter: FlopCounterMode) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.root = Call("", "", None, (), {})
        self._counter = counter
        # a call, and what had run when it began: operations, and amounts as `_counted`
        self._open: list[tuple[Call, int, Amounts]] = [(self.root, 0, (0, 0))]
        self._operations: list[str] = []
        self._times: dict[str, int] = {}
        self._counted: Amounts = (0, 0)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        written = f"{func} {_written(args)} {_written(kwargs or {})}"
        self._operations.append(written)
        key = written, str([tensor.stride() for tensor in _tensors([args, kwargs])])
        if key in _RESULTS:
            layouts, amounts = _RESULTS[key]
            made = [torch.empty_strided(shape, stride, dtype=dtype, device="meta") for shape, stride, dtype in layouts]
            self._counted = _sum(self._counted, amounts)
            return made[0] if len(func._schema.returns) == 1 else tuple(made)
        before = self._counter.get_total_flops()
        result = func(*args, **(kwargs or {}))
        amounts = (self._counter.get_total_flops() - before) // 2, activations_of(func, result)
        self._counted = _sum(self._counted, amounts)
        outputs = result if isinstance(result, tuple) else (result,)
        if _makes_tensors(func) and all(isinstance(y, Tensor) and y.is_meta for y in outputs):
            _RESULTS[key] = [(y.shape, y.stride(), y.dtype) for y in outputs], amounts
        return result

    def enter(self, path: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        times = self._times[path] = self._times.get(path, 0) + 1
        name, choice = type(module).__name__, None
        if isinstance(module, MixedOp):
            name, choice = next(iter(module.ops)), module.choice
        call = Call(path if times == 1 else f"{path}#{times}", name, choice, args, kwargs)
        self._open[-1][0].calls.append(call)
        self._open.append((call, len(self._operations), self._counted))

    def finished(self) -> Call:
        """The whole run, which need not be one call of the model."""
        if [call.path for call in self.root.calls] == [""]:
            return self.root.calls[0]
        self.root.work, (self.root.macs, self.root.activations) = _digest(self._operations), self._counted
        return self.root

    def leave(self, module: nn.Module, *_: Any) -> None:
        call, start, before = self._open.pop()
        call.work = _digest(self._operations[start:])
        if is_auxiliary(module):
            self._counted = before
        call.macs, call.activations = (now - then for now, then in zip(self._counted, before, strict=True))


def trace(model: nn.Module, *inputs: Any) -> Call:
    """The call of a model on meta tensors, in eval mode and without gradients.

    On one tensor it runs as `search.cost.count.run_on` says. Raises ValueError where it can't run on them, such as images of
    other channels.
    """
    model.eval()
    counter = FlopCounterMode(display=False)
    recorder = _Recorder(counter)
    handles = []
    for path, module in model.named_modules():
        enter = _bound(recorder.enter, path)
        handles.append(module.register_forward_pre_hook(enter, with_kwargs=True))
        handles.append(module.register_forward_hook(recorder.leave))
    try:
        with torch.no_grad(), counter, recorder:
            if len(inputs) == 1:
                run_on(model, inputs[0])
            else:
                model(*inputs)
    except RuntimeError as error:
        shapes = " and ".join(str(tuple(x.shape)) for x in _tensors(inputs))
        raise ValueError(f"the network can't run on inputs of {shapes}: {str(error).splitlines()[0]}") from error
    finally:
        for handle in handles:
            handle.remove()
    return recorder.finished()


def _sum(one: Amounts, other: Amounts) -> Amounts:
    return one[0] + other[0], one[1] + other[1]


def _makes_tensors(func: Any) -> bool:
    """Whether an operation changes nothing and gives nothing that shares memory with what it is given."""
    schema = func._schema
    return not schema.is_mutable and all(one.alias_info is None and str(one.type) == "Tensor" for one in schema.returns)


def _digest(operations: list[str]) -> str:
    return hashlib.sha256("\n".join(operations).encode()).hexdigest()[:16]


def _bound(enter: Callable[..., None], path: str) -> Callable[..., None]:
    return lambda module, args, kwargs: enter(path, module, args, kwargs)


def _written(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{tuple(value.shape)}{value.dtype}"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_written, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{_written(item)}' for key, item in value.items())}}}"
    return repr(value)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _tensors(item)


def dtype_of(model: nn.Module) -> torch.dtype:
    """The number type of a model's first floating-point parameter (torch's default where it has none)."""
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.get_default_dtype())
