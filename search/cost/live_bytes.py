"""The most bytes that tensors hold at once, with what backward needs beside what forward kept.

`bytes_kept` can't see gradients, temporaries, optimiser states and what recomputation makes again. Here every storage is
added when an operation makes it and subtracted when it dies, so the maximum is what an allocator without rounding would
hold. Works on real and on fake tensors alike and gives the same number. Not seen: what an operation allocates and frees
inside itself (workspaces of the convolution libraries), rounding and gaps of the allocator, the device's context.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

T = TypeVar("T")
# what a value read out of a fake tensor is taken to be
_READ = {torch.bool: True, torch.int64: 1, torch.int32: 1}


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Context that follows the storages of what operations inside it return.

    With fake tensors enter it inside their mode, or use `followed`. A number that is read out of a fake tensor
    (``loss.item()``, the norm in gradient clipping) is then 0.5, 1 or True.

    Attributes:
        live: bytes held now.
        peak: the most bytes held at once since the start or `start_again`.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = 0
        self.peak = 0
        # by the storage's identity, which another storage may take when this one is dead
        self._known: dict[int, int] = {}

    def start_again(self) -> None:
        """Forget the peak so far; what is held is still held."""
        self.peak = self.live

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        try:
            out = func(*args, **(kwargs or {}))
        except DataDependentOutputException:
            if func is not torch.ops.aten._local_scalar_dense.default:
                raise
            return _READ.get(args[0].dtype, 0.5)
        for value in tree_iter(out):
            if isinstance(value, Tensor):
                self._add(value)
        return out

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        identity: int = storage._cdata
        if identity in self._known:
            return
        self._known[identity] = size = storage.nbytes()
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._drop, identity)

    def _drop(self, identity: int) -> None:
        self.live -= self._known.pop(identity)


def followed(run: Callable[[LiveBytes], T], fake: bool = True) -> T:
    """What ``run`` returns where every tensor that is made is followed and, if ``fake``, takes no memory and no arithmetic.

    Raises what torch raises on fake tensors for operations whose output's shape depends on values.
    """
    with FakeTensorMode() if fake else nullcontext(), LiveBytes() as live:
        return run(live)
