"""Launches of Triton kernels, seen where they are made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from importlib.util import find_spec
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

# is told of a launch: the kernel's name and the tensors it is given
Seen = Callable[[str, Sequence[Tensor]], None]


@contextmanager
def triton_launches(seen: Seen, dry: bool = False) -> Iterator[None]:
    """Calls `seen` at every launch by ``kernel[grid](...)`` while the block runs: compiled ones, and a grid of the interpreter.

    With `dry` the kernels don't run, and their results are whatever the memory holds.
    Launches of code that torch.compile makes go another way and aren't seen. Without triton nothing is ever launched.
    """
    if find_spec("triton") is None:
        yield
        return
    # imported here: the package works without triton
    import triton
    from triton.runtime.jit import JITFunction

    with ExitStack() as stack:
        stack.enter_context(_told(JITFunction, seen, dry, nullcontext))
        if triton.knobs.runtime.interpret:
            from triton.runtime.interpreter import InterpretedFunction

            # it copies tensors about by operations of torch, which are no part of the kernel
            stack.enter_context(_told(InterpretedFunction, seen, dry, _disable_current_modes))
        yield


@contextmanager
def _told(kind: Any, seen: Seen, dry: bool, around: Callable[[], AbstractContextManager[Any]]) -> Iterator[None]:
    run = kind.run

    # triton's launch_enter_hook is neither called by the interpreter nor given the arguments
    def told(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        if not warmup:
            seen(self.__name__, list(_tensors((args, tuple(kwargs.values())))))
        if dry and not warmup:
            return None
        with around():
            return run(self, *args, grid=grid, warmup=warmup, **kwargs)

    kind.run = told
    try:
        yield
    finally:
        kind.run = run


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in nested tuples and lists."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _tensors(part)
