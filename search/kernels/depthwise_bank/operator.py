"""The depthwise bank as functional operators around the Triton kernels, and the one function to call.

Letters: B batch, C channels, H x W input, H' x W' output; M candidates, candidate m with T_m targets and a k_m x k_m kernel.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from search.kernels.depthwise_bank.arguments import cast_for_autocast, check, memory_format, output_size
from search.kernels.depthwise_bank.reference import depthwise_bank_reference
from search.kernels.triton_package import HAS_TRITON, require_triton_package
from search.kernels.wanted import runs

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def depthwise_bank(
    x: Tensor,
    weights: Sequence[Tensor],
    dilations: Sequence[int],
    stride: int,
    pools: Sequence[str] = ("max", "avg"),
    relu: bool = True,
    *,
    triton: bool | None = None,
) -> tuple[list[Tensor], list[Tensor]]:
    """All depthwise candidates of all targets, and both pools, from one read of x.

    - x: [B, C, H, W], NCHW or channels-last, also a channel slice of such.
    - weights: M tensors [T_m * C, 1, k_m, k_m], k_m of 3, 5 or 7, in x's dtype: row t * C + c is target t's filter for input
      channel c, so the targets' own weights [C, 1, k, k] are concatenated.
    - dilations: M times 1 or 2; padding is dilation * (k // 2), so H' = ceil(H / stride), W' = ceil(W / stride).
    - stride: 1 or 2, of candidates and pools.
    - pools: some of 'max' and 'avg', of size 3x3 and padding 1, over x itself, not ReLU(x): the maximum by torch's rule (the
      first in row-major order, or the last NaN; padding is -inf), the average over the pixels inside the image.
    - relu: whether the convolutions see ReLU(x) or x.
    - triton: True runs the kernels (CUDA, or CPU tensors under TRITON_INTERPRET=1), False plain PyTorch; None takes the
      kernels where they can run: float32, bfloat16 or float16 on CUDA with triton installed.

    Returns (convs, pooled) in x's dtype and layout, summed in float32 and rounded once. convs: M tensors [B, T_m * C, H', W'],
    channel t * C + c of target t and input channel c. pooled: [B, C, H', W'] for each name in `pools`, in their order.

    Gradients: x (one pass for everything) and weights (skipped where none is asked for); the same bits in every run. Kept for
    backward: x, and a byte for each value of the max pool. The kernels can be differentiated once: exact second order (not the
    finite-difference form of DARTS) needs ``triton=False``. Under autocast x and weights are cast to its dtype.
    Raises ValueError for shapes or options that don't fit, or kernels that can't run.
    """
    x, weights = cast_for_autocast(x, weights)
    check(x, weights, dilations, stride, pools)
    with torch.autocast(x.device.type, enabled=False):
        if not (HAS_TRITON and x.is_cuda and x.dtype in _DTYPES if triton is None else triton):
            convs, pooled = depthwise_bank_reference(x, weights, dilations, stride, pools, relu)
            return convs, pooled
        if x.dtype not in _DTYPES:
            raise ValueError(f"the Triton kernels take float32, bfloat16 and float16, not {x.dtype}: pass triton=None.")
        made = forward_op(x, weights, dilations, stride, relu, "max" in pools, "avg" in pools)
    count = len(weights)
    names = [name for name in ("max", "avg") if name in pools]
    return made[:count], [made[count + names.index(name)] for name in pools]


@torch.library.custom_op("visnas::depthwise_bank", mutates_args=())
def forward_op(
    x: Tensor,
    weights: Sequence[Tensor],
    dilations: Sequence[int],
    stride: int,
    relu: bool,
    max_pool: bool,
    avg_pool: bool,
) -> list[Tensor]:
    """M convolutions, then the max pool, the average pool and the max pool's positions, if any.

    Positions are uint8 [B, C, H', W']: the row-major number, 0 to 8, of the maximum in its window, padding counted.
    """
    require_triton_package()
    # imported where it runs: the package works without triton
    from search.kernels.depthwise_bank import launch

    made = _outputs(x, weights, dilations, stride, relu, max_pool, avg_pool)
    count = len(weights)
    rest = iter(made[count:])
    pooled = [next(rest) if asked else None for asked in (max_pool, avg_pool, max_pool)]
    launch.forward(x, weights, dilations, stride, relu, made[:count], pooled[0], pooled[2], pooled[1])
    return made


@forward_op.register_fake
def _outputs(x, weights, dilations, stride, relu, max_pool, avg_pool):
    channels = [weight.shape[0] for weight in weights]
    channels += [x.shape[1]] * (max_pool + avg_pool)
    like = {"device": x.device, "memory_format": memory_format(x)}
    made = [torch.empty((x.shape[0], c, *output_size(x, stride)), dtype=x.dtype, **like) for c in channels]
    if max_pool:
        made.append(torch.empty((x.shape[0], x.shape[1], *output_size(x, stride)), dtype=torch.uint8, **like))
    return made


@torch.library.custom_op("visnas::depthwise_bank_backward", mutates_args=())
def backward_op(
    x: Tensor,
    weights: Sequence[Tensor],
    dilations: Sequence[int],
    stride: int,
    relu: bool,
    conv_grads: Sequence[Tensor],
    max_grad: Tensor | None,
    codes: Tensor | None,
    avg_grad: Tensor | None,
    need_weights: bool,
) -> list[Tensor]:
    """The gradient of x and, if needed, of each of the weights; conv_grads are M tensors."""
    from search.kernels.depthwise_bank import launch

    x_grad, *weight_grads = made = _gradients(
        x, weights, dilations, stride, relu, conv_grads, max_grad, codes, avg_grad, need_weights
    )
    launch.backward(x, weights, dilations, stride, relu, conv_grads, max_grad, codes, avg_grad, x_grad, weight_grads)
    return made


@backward_op.register_fake
def _gradients(x, weights, dilations, stride, relu, conv_grads, max_grad, codes, avg_grad, need_weights):
    made = [torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=memory_format(x))]
    return made + [torch.empty(w.shape, dtype=w.dtype, device=w.device) for w in (weights if need_weights else ())]


def _save(ctx, inputs, output):
    x, weights, dilations, stride, relu, max_pool, avg_pool = inputs
    codes = output[-1] if max_pool else None
    ctx.save_for_backward(x, codes, *weights)
    # an output that nothing used brings no gradient and is left out of the sum
    ctx.set_materialize_grads(False)
    ctx.options = dilations, stride, relu, max_pool, avg_pool


def _backward(ctx, grads):
    x, codes, *weights = ctx.saved_tensors
    dilations, stride, relu, max_pool, avg_pool = ctx.options
    count = len(weights)
    conv_grads, rest = grads[:count], iter(grads[count:])
    max_grad, avg_grad = (next(rest) if asked else None for asked in (max_pool, avg_pool))
    used = [m for m, grad in enumerate(conv_grads) if grad is not None]
    x_grad, *weight_grads = backward_op(
        x,
        [weights[m] for m in used],
        [dilations[m] for m in used],
        stride,
        relu,
        [grad for grad in conv_grads if grad is not None],
        max_grad,
        None if max_grad is None else codes,
        avg_grad,
        bool(used) and _weights_asked_for(ctx),
    )
    of = dict(zip(used, weight_grads, strict=False))
    # an empty list of dilations is, to torch, a list of tensors, and wants a list of gradients
    return x_grad, [of.get(m) for m in range(len(weights))], None if dilations else [], None, None, None, None


def _weights_asked_for(ctx) -> bool:
    # the nodes: of x, then of the weights
    return any(
        needed and runs(node) for needed, (node, _) in zip(ctx.needs_input_grad[1], ctx.next_functions[1:], strict=False)
    )


forward_op.register_autograd(_backward, setup_context=_save)


def _under_autocast(device_type):
    def run(x, weights, *options):
        x, weights = cast_for_autocast(x, weights)
        with torch.autocast(device_type, enabled=False):
            return forward_op(x, weights, *options)

    return run


# not torch.library.register_autocast: its one dtype is fixed when this file is imported
_LIBRARY = torch.library.Library("visnas", "FRAGMENT")
for _device in ("cpu", "cuda"):
    _LIBRARY.impl("depthwise_bank", _under_autocast(_device), f"Autocast{_device.upper()}")


@register_flop_formula(torch.ops.visnas.depthwise_bank)
def _forward_flops(x, weights, dilations, stride, *_, **__) -> int:
    """Two operations a multiply-add of the convolutions, as torch counts them; pools count nothing."""
    batch, _, height, width = x
    positions = batch * ((height + stride - 1) // stride) * ((width + stride - 1) // stride)
    return 2 * positions * sum(rows * size * size for rows, _, size, _ in weights)


@register_flop_formula(torch.ops.visnas.depthwise_bank_backward)
def _backward_flops(x, weights, dilations, stride, relu, conv_grads, max_grad, codes, avg_grad, need_weights, **_) -> int:
    """The forward's count for the gradient of x, and again for the weights'."""
    return _forward_flops(x, weights, dilations, stride) * (1 + bool(need_weights))
