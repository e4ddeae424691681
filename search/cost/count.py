"""Parameters and multiply-adds of any built model, at any input size, counted on the meta device.

Conventions (``CONVENTIONS``):
- ``macs``, the default: one multiply-add counts one; convolutions and matrix products only, biases not counted.
- ``thop-legacy``: what early versions of ``thop`` (November 2018 to March 2019) printed, which some papers
  quote (P-DARTS 557 M, PC-DARTS 597 M): the above plus, per element of its output, 2 for a batch norm, 1 for
  a ReLU, 2 for a max pool and 3 for an average pool.
Parameters are weights, biases and affine parameters of norms, not buffers; each shared parameter once.
Auxiliary heads (submodules whose class says ``auxiliary_head = True``) are counted in neither.

Why the meta device: no memory and no arithmetic, and on real CPU tensors fused attention would count nothing.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

CONVENTIONS: Mapping[str, str] = {
    "macs": "multiply-adds (one counts one) of convolutions and matrix products, without auxiliary heads",
    "thop-legacy": "macs, plus 2 an element of batch norms, 1 of ReLUs, 2 of max pools, 3 of average pools",
}
_ATEN = torch.ops.aten
# operations per element of the output, in eval mode; a global average pool runs as a mean
_LEGACY_ELEMENTS: Mapping[Any, int] = {
    _ATEN.native_batch_norm: 2,
    _ATEN._native_batch_norm_legit_no_training: 2,
    _ATEN.relu: 1,
    _ATEN.relu_: 1,
    _ATEN.max_pool2d_with_indices: 2,
    _ATEN.avg_pool2d: 3,
    _ATEN._adaptive_avg_pool2d: 3,
    _ATEN.mean: 3,
}


@dataclass(frozen=True)
class Cost:
    """``params`` and ``macs`` as plain numbers (not millions), for one input of ``input_size`` (C, H, W)."""

    params: int
    macs: int
    input_size: tuple[int, ...]
    convention: str


class _HostScalars(TorchFunctionMode):
    """Keeps ``torch.linspace`` on the CPU: constructors read drop-path rates from it by ``.item()``."""

    def __torch_function__(  # type: ignore[no-untyped-def]
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ):
        kwargs = dict(kwargs or {})
        if func is torch.linspace:
            kwargs["device"] = "cpu"
        return func(*args, **kwargs)


def build_on_meta(builder: Callable[[], nn.Module]) -> nn.Module:
    """What ``builder`` builds, without memory for its parameters."""
    with torch.device("meta"), _HostScalars():
        model = builder()
    # constructors that name no device in the modern way, such as torch.Tensor(n), were not caught
    return model.to("meta")


def copy_to_meta(model: nn.Module) -> nn.Module:
    """A copy of a model whose parameters and buffers hold no memory; the model itself isn't touched."""
    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(torch.empty_like(parameter, device="meta"), parameter.requires_grad)
    for buffer in model.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(model, memo).to("meta")


def count_params(model: nn.Module) -> int:
    """Number of parameters, shared ones once, without those that only auxiliary heads hold."""
    return sum({id(parameter): parameter.numel() for parameter in _counted_parameters(model)}.values())


def count(
    model: nn.Module | Callable[[], nn.Module],
    input_size: tuple[int, ...],
    forward: Callable[[nn.Module, Tensor], Any] | None = None,
    convention: str = "macs",
) -> Cost:
    """Count a model, or what a builder builds.

    ``input_size``: (C, H, W) of one input. ``forward(model, x)`` runs it on x [1, C, H, W]; by default
    ``model(x)``. It runs in eval mode and without gradients; running statistics and random states stay as
    they are. ValueError for an unknown ``convention`` or an input size that isn't made of positive whole
    numbers.
    """
    if convention not in CONVENTIONS:
        raise ValueError(f"convention={convention!r}: known are {', '.join(CONVENTIONS)}.")
    input_size = tuple(input_size)
    if len(input_size) != 3 or not all(isinstance(n, int) and n > 0 for n in input_size):
        raise ValueError(f"input_size={input_size}: give three positive whole numbers (channels, height, width).")
    meta = copy_to_meta(model) if isinstance(model, nn.Module) else build_on_meta(model)
    meta.eval()
    x = torch.empty(1, *input_size, device="meta", dtype=_dtype(meta))
    extra = _LEGACY_ELEMENTS if convention == "thop-legacy" else {}
    formulas = {operation: _per_element(factor) for operation, factor in extra.items()}
    counter = FlopCounterMode(display=False, custom_mapping=formulas)
    with torch.no_grad(), counter, _left_out(meta, counter) as left_out:
        if forward is None:
            meta(x)
        else:
            forward(meta, x)
    flops = counter.get_total_flops() - left_out[0]
    assert flops % 2 == 0, "a multiply-add counts two"
    return Cost(count_params(meta), flops // 2, input_size, convention)


def is_auxiliary(module: nn.Module) -> bool:
    """Whether a module is an auxiliary head, by its class attribute."""
    return bool(getattr(type(module), "auxiliary_head", False))


def _counted_parameters(module: nn.Module) -> Iterator[nn.Parameter]:
    yield from module.parameters(recurse=False)
    for child in module.children():
        if not is_auxiliary(child):
            yield from _counted_parameters(child)


def _dtype(model: nn.Module) -> torch.dtype:
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.get_default_dtype())


@contextmanager
def _left_out(model: nn.Module, counter: FlopCounterMode) -> Iterator[list[int]]:
    """[operations counted inside auxiliary heads], for one that also runs in eval mode."""
    total, before = [0], [0]
    handles = []

    def enter(*_: Any) -> None:
        before[0] = counter.get_total_flops()

    def leave(*_: Any) -> None:
        total[0] += counter.get_total_flops() - before[0]

    for module in model.modules():
        if is_auxiliary(module):
            handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        yield total
    finally:
        for handle in handles:
            handle.remove()


def _per_element(factor: int) -> Callable[..., int]:
    def operations(*_: Any, out_val: Any, **__: Any) -> int:
        output = out_val[0] if isinstance(out_val, tuple | list) else out_val
        # the counter's unit is half a multiply-add
        return 2 * factor * int(output.numel())

    # asks the counter for tensors in place of their shapes
    operations._get_raw = True  # type: ignore[attr-defined]
    return operations
