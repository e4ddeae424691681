"""Parameters, multiply-adds and activations of any built model, at any input size, counted on the meta device.

How operations are counted (``CONVENTIONS``):
- ``macs``, the default: one multiply-add counts one; convolutions and matrix products only, biases not counted. A deformable
  convolution counts as a plain one, and the one that makes its offsets too; what is read between pixels doesn't.
- ``macs+atrous``: with maps under atrous convolutions padded to a multiple of the rate, as TensorFlow computes them
  (Auto-DeepLab).
- ``macs+pool``: plus the elements that global average pools read, in squeeze-excitations and before the
  classifier (AtomNAS, AutoNL, FBNet's zoo).
- ``thop``: what ``thop`` prints today: plus 4 an element of a batch norm, 1 of an average pool's output, and for
  a global one its input and output (Accel-NASBench).
- ``thop-legacy``: what early versions of ``thop`` (November 2018 to March 2019) printed, which some papers
  quote (P-DARTS 557 M, PC-DARTS 597 M): plus, per element of its output, 2 for a batch norm, 1 for a ReLU, 2
  for a max pool and 3 for an average pool.
How parameters are counted (``PARAMS``): ``all`` weights, biases and affine parameters of norms, not buffers, each
shared parameter once; or without some of them, as papers do. Auxiliary heads (submodules whose class says
``auxiliary_head = True``) are counted in neither, save by ``with auxiliary``.
How activations are counted (``ACTIVATIONS``): the numbers in the outputs of convolutions and matrix products, of one image
(Radosavovic et al., arXiv 2003.13678; Dollar et al., 2103.06877), whatever the convention. Where the operations
between them work in place, four bytes each are what a float32 forward keeps of them for its backward. Not the most that
inference holds at once: that depends on which of a network's places is the largest, so it is no sum that a search by
gradients could be pulled by.

Why the meta device: no memory and no arithmetic, and on real CPU tensors fused attention would count nothing.
"""

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torchvision  # noqa: F401  (registers its operations)
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry, register_flop_formula

CONVENTIONS: Mapping[str, str] = {
    "macs": "multiply-adds (one counts one) of convolutions and matrix products, without auxiliary heads",
    "macs+atrous": "macs, with maps under atrous convolutions padded to a multiple of the rate",
    "macs+pool": "macs, plus the elements that global average pools read",
    "thop": "macs, plus 4 an element of batch norms, 1 of average pools, input and output of global ones",
    "thop-legacy": "macs, plus 2 an element of batch norms, 1 of ReLUs, 2 of max pools, 3 of average pools",
}
PARAMS: Mapping[str, str] = {
    "all": "weights, biases and affine parameters of norms",
    "without norms": "weights and biases",
    "weights": "weights of convolutions and linear layers",
    "with auxiliary": "all, and those of auxiliary heads",
}
ACTIVATIONS = "numbers in the outputs of convolutions and matrix products, of one image, without auxiliary heads"
_ATEN = torch.ops.aten
_EVAL_NORM = _ATEN._native_batch_norm_legit_no_training
_NORMS = (_ATEN.native_batch_norm, _EVAL_NORM)
_ACTIVATIONS = {
    *(_ATEN.relu, _ATEN.relu_, _ATEN.hardtanh, _ATEN.hardtanh_, _ATEN.silu, _ATEN.silu_),
    *(_ATEN.hardswish, _ATEN.hardswish_, _ATEN.sigmoid, _ATEN.sigmoid_, _ATEN.hardsigmoid, _ATEN.hardsigmoid_),
}
_GLOBAL_POOLS = (_ATEN._adaptive_avg_pool2d, _ATEN.mean)


# (model, images [B, C, H, W]) -> anything, for classes of models that need more than images; the tasks fill it
FORWARDS: dict[type[nn.Module], Callable[[Any, Tensor], Any]] = {}


@dataclass(frozen=True)
class Cost:
    """``params``, ``macs`` and ``activations`` as plain numbers (not millions), for one input of ``input_size`` (C, H, W)."""

    params: int
    macs: int
    activations: int
    input_size: tuple[int, ...]
    convention: str
    params_convention: str = "all"


class _HostScalars(TorchFunctionMode):
    """Keeps ``torch.linspace`` on the CPU: constructors read drop-path rates from it by ``.item()``."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.linspace:
            kwargs["device"] = "cpu"
        return func(*args, **kwargs)


class _Activations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the activations of what runs inside."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        # these leave the shape as it is; torch's own way to find that out is half of what counting a network takes
        if func._overloadpacket is _EVAL_NORM:
            x = args[0]
            return torch.empty_like(x), x.new_empty(0), x.new_empty(0)
        if func._overloadpacket in _ACTIVATIONS:
            return args[0] if func._schema.is_mutable else torch.empty_like(args[0])
        result = func(*args, **(kwargs or {}))
        self.total += activations_of(func, result)
        return result


def activations_of(func: Any, result: Any) -> int:
    """Numbers in what a convolution or a matrix product made; 0 for other operations."""
    if func._overloadpacket not in flop_registry:
        return 0
    output = result[0] if isinstance(result, tuple | list) else result
    return int(output.numel())


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


def count_params(model: nn.Module, convention: str = "all") -> int:
    """Number of parameters, shared ones once; ValueError for an unknown ``convention``."""
    if convention not in PARAMS:
        raise ValueError(f"parameter convention {convention!r}: known are {', '.join(PARAMS)}.")
    counted = _counted_parameters(model, convention)
    return sum({id(parameter): parameter.numel() for parameter in counted}.values())


def count(
    model: nn.Module | Callable[[], nn.Module],
    input_size: tuple[int, ...],
    forward: Callable[[nn.Module, Tensor], Any] | None = None,
    convention: str = "macs",
    params: str = "all",
) -> Cost:
    """Count a model, or what a builder builds.

    ``input_size``: (C, H, W) of one input. ``forward(model, x)`` runs it on x [1, C, H, W]; by default
    `run_on`. It runs in eval mode and without gradients; running statistics and random states stay as
    they are. ``convention`` and ``params`` are names of ``CONVENTIONS`` and ``PARAMS``. ValueError for an unknown
    one, for an input size that isn't made of positive whole numbers, and for one that the model can't run on.
    """
    if convention not in CONVENTIONS:
        raise ValueError(f"convention={convention!r}: known are {', '.join(CONVENTIONS)}.")
    input_size = tuple(input_size)
    if len(input_size) != 3 or not all(isinstance(n, int) and n > 0 for n in input_size):
        raise ValueError(f"input_size={input_size}: give three positive whole numbers (channels, height, width).")
    meta = copy_to_meta(model) if isinstance(model, nn.Module) else build_on_meta(model)
    meta.eval()
    formulas = _formulas(convention)
    for formula in formulas.values():
        # asks the counter for tensors in place of their shapes
        formula.__dict__["_get_raw"] = True
    counter, activations = FlopCounterMode(display=False, custom_mapping=formulas), _Activations()
    try:
        x = torch.empty(1, *input_size, device="meta", dtype=_dtype(meta))
        with torch.no_grad(), activations, counter, _left_out(meta, counter, activations) as left_out:
            if forward is None:
                run_on(meta, x)
            else:
                forward(meta, x)
    except RuntimeError as error:
        size = "x".join(map(str, input_size))
        raise ValueError(f"the network can't run on images of {size}: {str(error).splitlines()[0]}") from error
    flops = counter.get_total_flops() - left_out[0]
    assert flops % 2 == 0, "a multiply-add counts two"
    return Cost(count_params(meta, params), flops // 2, activations.total - left_out[1], input_size, convention, params)


def run_on(model: nn.Module, images: Tensor) -> Any:
    """``model(images)``, or what ``FORWARDS`` says of the model's class."""
    return forward_of(model)(images)


def forward_of(model: nn.Module) -> Callable[[Tensor], Any]:
    """What `run_on` calls."""
    forward = next((FORWARDS[kind] for kind in type(model).__mro__ if kind in FORWARDS), None)
    return model if forward is None else partial(forward, model)


def is_auxiliary(module: nn.Module) -> bool:
    """Whether a module is an auxiliary head, by its class attribute."""
    return bool(getattr(type(module), "auxiliary_head", False))


def _counted_parameters(module: nn.Module, convention: str) -> Iterator[nn.Parameter]:
    norm = isinstance(module, _NormBase | nn.GroupNorm | nn.LayerNorm)
    if convention in ("all", "with auxiliary") or not norm:
        for name, parameter in module.named_parameters(recurse=False):
            if convention != "weights" or name != "bias":
                yield parameter
    for child in module.children():
        if convention == "with auxiliary" or not is_auxiliary(child):
            yield from _counted_parameters(child, convention)


def _dtype(model: nn.Module) -> torch.dtype:
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.get_default_dtype())


@contextmanager
def _left_out(model: nn.Module, counter: FlopCounterMode, activations: _Activations) -> Iterator[list[int]]:
    """[operations, activations] counted inside auxiliary heads, for one that also runs in eval mode."""
    total, before = [0, 0], [0, 0]
    handles = []

    def enter(*_: Any) -> None:
        before[:] = counter.get_total_flops(), activations.total

    def leave(*_: Any) -> None:
        now = counter.get_total_flops(), activations.total
        total[:] = [left + after - start for left, after, start in zip(total, now, before, strict=True)]

    for module in model.modules():
        if is_auxiliary(module):
            handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        yield total
    finally:
        for handle in handles:
            handle.remove()


def _formulas(convention: str) -> dict[Any, Callable[..., int]]:
    """What each operation adds to a convention's count, called by the counter with real (meta) tensors."""
    # what has a formula isn't taken apart
    nothing = dict.fromkeys((*_NORMS, *_ACTIVATIONS), _elements(lambda x, y: 0))
    if convention == "macs+atrous":
        return {**nothing, _ATEN.convolution: _padded_convolution}
    if convention == "macs+pool":
        return {**nothing, **dict.fromkeys(_GLOBAL_POOLS, _elements(lambda x, y: x))}
    if convention == "thop":
        return {
            **nothing,
            **dict.fromkeys(_NORMS, _elements(lambda x, y: 4 * y)),
            **dict.fromkeys(_GLOBAL_POOLS, _elements(lambda x, y: x + y)),
            _ATEN.avg_pool2d: _elements(lambda x, y: y),
        }
    if convention == "thop-legacy":
        return {
            **nothing,
            **dict.fromkeys((*_NORMS, _ATEN.max_pool2d_with_indices), _elements(lambda x, y: 2 * y)),
            **dict.fromkeys((_ATEN.relu, _ATEN.relu_), _elements(lambda x, y: y)),
            **dict.fromkeys((*_GLOBAL_POOLS, _ATEN.avg_pool2d), _elements(lambda x, y: 3 * y)),
        }
    return nothing


@register_flop_formula(torch.ops.torchvision.deform_conv2d)
def _deformable_convolution(x_shape: Any, weight_shape: Any, *_: Any, out_shape: Any, **__: Any) -> int:
    """Twice the multiply-adds of a deformable convolution, those of a plain one."""
    return 2 * int(math.prod(out_shape) * math.prod(weight_shape[1:]))


def _padded_convolution(x: Tensor, weight: Tensor, *settings: Any, out_val: Tensor, **_: Any) -> int:
    """Twice the multiply-adds of a convolution (not a transposed one), its output padded to a multiple of the dilation."""
    dilation, transposed = settings[3], settings[4]
    assert not transposed, "transposed convolutions have no atrous convention"
    positions = math.prod(-(-n // d) * d for n, d in zip(out_val.shape[2:], dilation, strict=True))
    return int(2 * x.shape[0] * positions * weight.numel())


def _elements(formula: Callable[[int, int], int]) -> Callable[..., int]:
    """A counter's formula from one in the elements of an operation's input and output."""

    def operations(x: Tensor, *_: Any, out_val: Any, **__: Any) -> int:
        output = out_val[0] if isinstance(out_val, tuple | list) else out_val
        # the counter's unit is half a multiply-add
        return 2 * formula(int(x.numel()), int(output.numel()))

    return operations
