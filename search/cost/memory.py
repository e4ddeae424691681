"""Bytes that one forward keeps for its backward.

Unique storages seen by saved-tensor hooks, whole storages even where a view was saved, without parameters and
buffers. Not seen: what recomputation needs later, allocator rounding, and workspaces of the convolution
libraries.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode


def bytes_kept(forward: Callable[[], Tensor], exclude: Iterable[Tensor] = ()) -> int:
    """Bytes kept by ``forward``, which returns the loss. ``exclude``: parameters and buffers.

    Works on real and on fake tensors. A storage counts once however often it was saved.
    """
    left_out = {_key(tensor) for tensor in exclude}
    # held to the end, so that no freed storage's address is taken by another one
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        if _key(tensor) not in left_out:
            storage = tensor.untyped_storage()
            kept.setdefault(storage._cdata, storage)
        # an operation that kept its own output would hold itself, for ever where no backward runs through it; autograd puts
        # the history back when it is asked for
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = forward()
    total = sum(storage.nbytes() for storage in kept.values())
    # the graph holds pack(): what it frees from now on must be free
    kept.clear()
    # the graph must live until the sum is made
    assert isinstance(loss, Tensor), "forward() must return the loss"
    return total


def bytes_kept_by(build: Callable[[], nn.Module], loss: Callable[[nn.Module], Tensor], fake: bool = True) -> int:
    """Bytes kept by ``loss(build())``, the model's parameters and buffers excluded.

    ``fake`` builds and runs on fake tensors: the same number in a fraction of the time and of the memory.
    ``loss`` must then make its inputs itself and read no value of a tensor (losses with data-dependent shapes
    can't run on fakes).
    """
    if not fake:
        return _kept(build(), loss)
    with FakeTensorMode():
        return _kept(build(), loss)


def _kept(model: nn.Module, loss: Callable[[nn.Module], Tensor]) -> int:
    return bytes_kept(lambda: loss(model), [*model.parameters(), *model.buffers()])


def _key(tensor: Tensor) -> int:
    # the storage's own identity: data_ptr() is 0 for every fake tensor
    identity: int = tensor.untyped_storage()._cdata
    return identity
