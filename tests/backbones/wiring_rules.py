"""What each of torch's operations is in a graph of tests/backbones/wiring.py: ways of writing the same thing are the same.

A rule takes the recorder, the operation's arguments by name and its first result, and gives that result's value. An operation
without a rule is a node of its own name with all its arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from tests.backbones.wiring import Recorder

ATEN = torch.ops.aten
MOVES = {
    *(ATEN.view, ATEN._unsafe_view, ATEN.reshape, ATEN.permute, ATEN.transpose, ATEN.t, ATEN.slice, ATEN.select, ATEN.split),
    *(ATEN.split_with_sizes, ATEN.unsqueeze, ATEN.squeeze, ATEN.expand, ATEN.pixel_shuffle, ATEN.pixel_unshuffle),
    *(ATEN.channel_shuffle, ATEN.native_channel_shuffle, ATEN.flip, ATEN.roll, ATEN.unbind),
}
NORMS = {"native_batch_norm", "_native_batch_norm_legit_no_training"}
ACTIVATIONS = {"relu", "hardtanh", "silu", "hardswish", "sigmoid", "hardsigmoid"}
SAME = {ATEN.clone, ATEN.detach, ATEN.alias, ATEN._to_copy, ATEN.lift_fresh, ATEN.contiguous}


class Value(NamedTuple):
    """A tensor: elements `index` of a node's output (all of them in order for None), or without a node a constant."""

    node: int | None
    index: Tensor | None = None
    constant: str = ""


def _tensors(values: Iterable[Any]) -> list[Tensor]:
    """The tensors among arguments, those in lists too."""
    flat = (x for value in values for x in (value if isinstance(value, list | tuple) else (value,)))
    return [x for x in flat if isinstance(x, Tensor)]


def run(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """The operation's result; torch's own way on the meta device is slow for the commonest, whose shape is their input's."""
    name = func.overloadpacket.__name__
    if name in NORMS:
        return torch.empty_like(args[0]), args[0].new_empty(0), args[0].new_empty(0)
    if name.removesuffix("_") in ACTIVATIONS or (name == "add" and getattr(args[1], "shape", None) == args[0].shape):
        return args[0] if name.endswith("_") else torch.empty_like(args[0])
    return func(*args, **kwargs)


def noted(recorder: Recorder, func: Any, given: dict[str, Any], result: Any) -> Value | list[Value]:
    """The value of an operation's result; of several results, those that count."""
    packet = func.overloadpacket
    name = packet.__name__
    if name.endswith("_") and func._schema.is_mutable:
        name = name[:-1]
        packet = getattr(ATEN, name, packet)
    tensors = _tensors(given.values())
    values = [recorder.value(x) for x in tensors]
    first = result[0] if isinstance(result, list | tuple) else result
    if all(value.node is None for value in values):
        kinds = "+".join(value.constant for value in values) or "weight"
        constant = kinds if packet in MOVES or packet in SAME or not values else f"{name}({kinds})"
        return (
            [Value(None, constant=constant)] * len(result)
            if isinstance(result, list | tuple)
            else Value(None, constant=constant)
        )
    if packet in SAME:
        return values[0]
    if packet in MOVES:
        _, *names = given
        settings = {key: given[key] for key in names}

        def move(x: Tensor) -> Any:
            if packet in (ATEN.channel_shuffle, ATEN.native_channel_shuffle):
                return x.unflatten(1, (settings["groups"], -1)).transpose(1, 2).flatten(1, 2)
            # positions need not lie in memory as the tensor did
            return x.reshape(settings["size"]) if packet in (ATEN.view, ATEN._unsafe_view) else func(x, **settings)

        return recorder.moved(values[0], tensors[0].shape, move)
    rule = RULES.get(name)
    if rule is not None:
        return rule(recorder, given, first)
    attributes = {key: value for key, value in given.items() if not _tensors([value])}
    return Value(recorder.node(name, first.shape, [recorder.read(x) for x in tensors], **attributes))


def _convolution(recorder: Recorder, given: dict[str, Any], result: Tensor) -> Value:
    x, kernel = given["input"], recorder.weight(given["weight"])
    bias, groups, transposed = recorder.weight(given["bias"]) is not None, given["groups"], given["transposed"]
    if result.shape[2:].numel() == x.shape[2:].numel() == 1 and not any(given["padding"]) and groups == 1:
        return _linear(recorder, x, kernel[0], kernel[1], bias, result)
    value, stride, dilation = recorder.value(x), given["stride"], given["dilation"]
    source = recorder.read(x)
    if all(k == 1 for k in kernel[2:]):
        dilation = [1] * len(stride)
        if any(s > 1 for s in stride) and not any(given["padding"]) and not transposed:
            steps = (slice(None), slice(None), *(slice(None, None, s) for s in stride))
            value = recorder.moved(value, x.shape, lambda index: index[steps])
            source, stride = recorder.node_of(value, (*x.shape[:2], *result.shape[2:])), [1] * len(stride)
    settings = dict(stride=list(stride), padding=list(given["padding"]), dilation=list(dilation), groups=groups)
    if transposed:
        settings["transposed"] = list(given["output_padding"])
    return Value(recorder.node("conv", result.shape, [source], kernel=list(kernel), bias=bias, **settings))


def _deformable(recorder: Recorder, given: dict[str, Any], result: Tensor) -> Value:
    bias = recorder.weight(given["bias"]) is not None
    inputs = [recorder.read(given[name]) for name in ("input", "offset", "mask")]
    names = [f"{name}_{side}" for name in ("stride", "pad", "dilation") for side in "hw"]
    settings = {name: given[name] for name in (*names, "groups", "offset_groups", "use_mask")}
    kernel = list(recorder.weight(given["weight"]))
    return Value(recorder.node("deform_conv", result.shape, inputs, kernel=kernel, bias=bias, **settings))


def _linear(recorder: Recorder, x: Tensor, c_out: int, c_in: int, bias: bool, result: Tensor) -> Value:
    return Value(recorder.node("linear", result.shape, [recorder.read(x)], c_in=c_in, c_out=c_out, bias=bias))


def _product(recorder: Recorder, given: dict[str, Any], result: Tensor) -> Value:
    """mm, bmm and addmm: a linear layer where one matrix is a weight."""
    one, two = given.get("self") if "mat1" not in given else given["mat1"], given["mat2"]
    bias = given["self"] if "mat1" in given else None
    if recorder.value(two).node is None:
        recorder.weight(two)
        return _linear(recorder, one, two.shape[-1], two.shape[-2], recorder.weight(bias) is not None, result)
    assert bias is None, "a sum with a product of two activations has no rule"
    return Value(recorder.node("matmul", result.shape, [recorder.read(one), recorder.read(two)]))


def _norm(recorder: Recorder, given: dict[str, Any], result: Tensor) -> Value:
    affine = recorder.weight(given["weight"]) is not None
    recorder.weight(given["bias"])
    assert not given.get("training", False), "record in eval mode"
    return Value(recorder.node("batch_norm", result.shape, [recorder.read(given["input"])], affine=affine))


def _sum(recorder: Recorder, given: dict[str, Any], result: Tensor) -> Value:
    one, two, factor = given["self"], given["other"], given.get("alpha", 1)
    if not isinstance(two, Tensor):
        if two == 0:
            return recorder.value(one)
        return Value(recorder.node("shift", result.shape, [recorder.read(one)], by=float(two)))
    terms = []
    for x, scale in ((one, 1), (two, factor)):
        number = recorder.read(x)
        if recorder.nodes[number].name == "zeros" and x.shape == result.shape:
            continue
        number = number if scale == 1 else recorder.node("scale", x.shape, [number], by=float(scale))
        node = recorder.nodes[number]
        terms += node.inputs if node.name == "add" and x.numel() == result.numel() else [number]
    if len(terms) < 2:
        return Value(terms[0]) if terms else _zeros(recorder, given, result)
    terms.sort(key=lambda i: recorder.nodes[i].digest)
    return Value(recorder.node("add", result.shape, terms))


def _zeros(recorder: Recorder, given: dict[str, Any], result: Tensor) -> Value:
    return Value(recorder.node("zeros", result.shape))


def _multiple(recorder: Recorder, given: dict[str, Any], result: Tensor, inverse: bool = False) -> Value:
    one, two = given["self"], given["other"]
    if not isinstance(two, Tensor):
        factor = 1 / two if inverse else float(two)
        if factor == 0:
            return _zeros(recorder, given, result)
        return (
            recorder.value(one) if factor == 1 else Value(recorder.node("scale", result.shape, [recorder.read(one)], by=factor))
        )
    inputs = [recorder.read(one), recorder.read(two)]
    if not inverse:
        inputs.sort(key=lambda i: recorder.nodes[i].digest)
    return Value(recorder.node("div" if inverse else "mul", result.shape, inputs))


def _cat(recorder: Recorder, given: dict[str, Any], result: Tensor) -> Value:
    axis = given["dim"] % result.dim() - result.dim()
    parts = []
    for x in given["tensors"]:
        number = recorder.read(x)
        node = recorder.nodes[number]
        parts += node.inputs if node.name == "cat" and dict(node.attributes)["axis"] == str(axis) else [number]
    return (
        recorder.value(given["tensors"][0]) if len(parts) == 1 else Value(recorder.node("cat", result.shape, parts, axis=axis))
    )


def _mean(recorder: Recorder, given: dict[str, Any], result: Tensor) -> Value:
    x = given["self"]
    axes = sorted(d % x.dim() - x.dim() for d in (given.get("dim") or range(x.dim())))
    if all(x.shape[d] == 1 for d in axes):
        return recorder.moved(recorder.value(x), x.shape, lambda index: index.reshape(result.shape))
    return Value(recorder.node("mean", result.shape, [recorder.read(x)], axes=axes))


def _pool(recorder: Recorder, given: dict[str, Any], result: Tensor, name: str) -> Value:
    x, kernel, padding = given["self"], list(given["kernel_size"]), list(given["padding"])
    stride = list(given["stride"]) or kernel
    if name == "avg_pool" and not any(padding) and kernel == list(x.shape[2:]) and result.shape[2:].numel() == 1:
        return _mean(recorder, dict(self=x, dim=[2, 3]), result)
    settings = dict(kernel=kernel, stride=stride, padding=padding, ceil=given["ceil_mode"])
    if name == "avg_pool":
        settings.update(count_padding=any(padding) and given["count_include_pad"], divisor=given["divisor_override"])
    else:
        settings.update(dilation=list(given["dilation"]))
    return Value(recorder.node(name, result.shape, [recorder.read(x)], **settings))


def _resize(recorder: Recorder, given: dict[str, Any], result: Tensor, name: str) -> Value:
    if result.shape == given["self"].shape:
        return recorder.value(given["self"])
    if given["self"].shape[2:].numel() == 1:
        # whatever the mode
        return recorder.moved(recorder.value(given["self"]), given["self"].shape, lambda index: index.expand(result.shape))
    corners = given.get("align_corners", False)
    return Value(recorder.node(name, result.shape, [recorder.read(given["self"])], align_corners=corners))


def _clamp(recorder: Recorder, given: dict[str, Any], result: Tensor) -> Value:
    """ReLU, ReLU6 and other limits; a ReLU of what can't be negative is nothing."""
    low, high = given.get("min_val", given.get("min", 0)), given.get("max_val", given.get("max"))
    name = "relu" if (low, high) == (0, None) else "relu6" if (low, high) == (0, 6) else f"clamp {low} {high}"
    source = recorder.read(given["self"])
    before = recorder.nodes[source].name
    return Value(
        source if before == name or (before, name) == ("relu6", "relu") else recorder.node(name, result.shape, [source])
    )


def _pad(recorder: Recorder, given: dict[str, Any], result: Tensor) -> Value:
    x, pad = given["self"], given["pad"]
    if given["value"]:
        return Value(recorder.node("pad", result.shape, [recorder.read(x)], pad=list(pad), value=given["value"]))
    return recorder.moved(recorder.value(x), x.shape, lambda index: torch.nn.functional.pad(index, list(pad), value=-1))


RULES: dict[str, Callable[[Recorder, dict[str, Any], Tensor], Value]] = {
    "convolution": _convolution,
    "deform_conv2d": _deformable,
    "mm": _product,
    "bmm": _product,
    "addmm": _product,
    **dict.fromkeys(NORMS, _norm),
    "add": _sum,
    "sub": lambda recorder, given, result: _sum(recorder, {**given, "alpha": -given.get("alpha", 1)}, result),
    "mul": _multiple,
    "div": lambda recorder, given, result: _multiple(recorder, given, result, inverse=True),
    "zeros_like": _zeros,
    "cat": _cat,
    "mean": _mean,
    "max_pool2d_with_indices": lambda recorder, given, result: _pool(recorder, given, result, "max_pool"),
    "avg_pool2d": lambda recorder, given, result: _pool(recorder, given, result, "avg_pool"),
    "upsample_nearest2d": lambda recorder, given, result: _resize(recorder, given, result, "nearest"),
    "upsample_bilinear2d": lambda recorder, given, result: _resize(recorder, given, result, "bilinear"),
    "relu": _clamp,
    "hardtanh": _clamp,
    "clamp": _clamp,
    "clamp_min": _clamp,
    "constant_pad_nd": _pad,
}
