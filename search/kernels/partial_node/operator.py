"""The partial-channel node as a `torch.library` operator, and the public functions, which pick it on a GPU.

The operator's results mutate nothing; everything kept for backward goes through `save_for_backward`. It adds and scales, so its
floating-point operations count 0 where convolutions and matrix products alone are counted. Under autocast it does what
`torch.cat` does there: the widest type of the inputs (weights are read in their own), so it needs no cast of its own.
Its backward can't be differentiated again: exact second order belongs to the plain path.

Shapes: B batch, K groups, T = C / K channels that the candidates see, R = C - T the rest, H and W size of the node.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from search.kernels.partial_node import arguments
from search.kernels.partial_node.torch_path import max_pool_2x2_torch, partial_node_torch
from search.kernels.triton_package import HAS_TRITON, require_triton_package

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def partial_node(
    mixed: Sequence[Tensor],
    rests: Sequence[Tensor],
    k: int,
    *,
    mixed_weights: Tensor | None = None,
    rest_weights: Tensor | None = None,
    strides: Sequence[int] | None = None,
    triton: bool | None = None,
) -> Tensor:
    """Weighted sum of a node's edges with partial channels (PC-DARTS, arXiv 1907.05737), shuffled in K groups: [B, C, H, W].

    mixed: [B, T, H, W] each, what the edges' candidates made. rests: [B, R, H_e, W_e] each, the other channels of the edges'
    sources, `x[:, T:]`; where `strides` (default 1) has 2 they are of twice the size, odd sizes rounded up, and max-pooled 2x2.
    With k=1 there are none. Weights: [number of mixed], [number of rests]; None stands for ones. The edges' weights go to both,
    or to the rests alone where the mixed tensors are weighted already, and these may be added up before: a list of one.

    Take the rests by `x.split((T, R), dim=1)`: its backward writes the state's gradient in one pass, that of a slice makes a
    tensor of zeros for each. A state of stride 2 that several nodes read is cheaper pooled once, by `max_pool_2x2`.

    triton: True runs the kernels (CUDA, or CPU tensors under TRITON_INTERPRET=1), False plain PyTorch; None takes the kernels
    where they can run: float32, bfloat16 or float16 on CUDA with triton installed. The kernels can be differentiated once,
    plain PyTorch any number of times; both give the same bits in every run.

    Raises ValueError for shapes, strides or weights that make no node, or kernels that can't run.
    """
    mixed, rests, strides = arguments.checked(mixed, rests, k, mixed_weights, rest_weights, strides)
    if not _use_triton(mixed[0], triton):
        return partial_node_torch(mixed, rests, k, mixed_weights=mixed_weights, rest_weights=rest_weights, strides=strides)
    # rests whose weights take a gradient are read again in backward, which says the positions too
    keep = _recorded(*mixed, *rests, mixed_weights) and not _recorded(rest_weights)
    return forward_op(mixed, rests, mixed_weights, rest_weights, k, strides, keep)[0]


def max_pool_2x2(x: Tensor, triton: bool | None = None) -> Tensor:
    """Max pool 2x2 of stride 2 with odd sizes rounded up: [B, C, H, W] -> [B, C, ceil(H / 2), ceil(W / 2)].

    Keeps one byte for each output. Ties and NaN as in torch: the first maximum in row-major order wins, or the last NaN.
    `triton` as in `partial_node`.
    """
    if not _use_triton(x, triton):
        return max_pool_2x2_torch(x)
    return forward_op([], [x], None, None, 1, [2], _recorded(x))[0]


@torch.library.custom_op("visnas::partial_node", mutates_args=())
def forward_op(
    mixed: Sequence[Tensor],
    rests: Sequence[Tensor],
    mixed_weights: Tensor | None,
    rest_weights: Tensor | None,
    k: int,
    strides: Sequence[int],
    keep_positions: bool,
) -> tuple[Tensor, Tensor]:
    """y [B, C, H, W]; positions in the pooling windows, uint8 [edges of stride 2, B, R, H, W], kept or [0, B, R, H, W].

    Without mixed tensors all channels are in the rests.
    """
    require_triton_package()
    # imported where it runs: the package works without triton
    from search.kernels.partial_node import launch

    y, positions = _outputs(mixed, rests, mixed_weights, rest_weights, k, strides, keep_positions)
    launch.forward(y, positions, mixed, rests, mixed_weights, rest_weights, k, strides)
    return y, positions


@forward_op.register_fake
def _outputs(mixed, rests, mixed_weights, rest_weights, k, strides, keep_positions):
    last = arguments.is_channels_last(mixed, rests)
    like = (*rests, *mixed)[0]
    height, width = mixed[0].shape[2:] if mixed else arguments.pooled_size(rests[0], strides[0])
    batch, channels = like.shape[0], sum(xs[0].shape[1] for xs in (mixed, rests) if xs)
    y = arguments.empty(like, (batch, channels, height, width), last)
    edges = sum(s == 2 for s in strides) if keep_positions else 0
    rest = rests[0].shape[1] if rests else 0
    if last:
        return y, y.new_empty((edges, batch, height, width, rest), dtype=torch.uint8).permute(0, 1, 4, 2, 3)
    return y, y.new_empty((edges, batch, rest, height, width), dtype=torch.uint8)


@torch.library.custom_op("visnas::partial_node_backward", mutates_args=())
def backward_op(
    grad: Tensor,
    mixed: Sequence[Tensor],
    rests: Sequence[Tensor],
    mixed_weights: Tensor | None,
    rest_weights: Tensor | None,
    positions: Tensor,
    k: int,
    count: int,
    strides: Sequence[int],
    sizes: Sequence[int],
    channels_last: bool,
) -> list[Tensor]:
    """Gradients of `count` mixed tensors, of a rest for each of `strides`, and float32 ones of the weights of what is given.

    `sizes`: height and width of each rest, one after the other.
    """
    from search.kernels.partial_node import launch

    made = _gradients(grad, mixed, rests, mixed_weights, rest_weights, positions, k, count, strides, sizes, channels_last)
    results = made[:count], made[count:-1], made[-1]
    launch.backward(grad, mixed, rests, mixed_weights, rest_weights, positions, k, strides, *results)
    return made


@backward_op.register_fake
def _gradients(grad, mixed, rests, mixed_weights, rest_weights, positions, k, count, strides, sizes, channels_last):
    batch, channels, height, width = grad.shape
    taken = channels // k if count else 0
    made = [arguments.empty(grad, (batch, taken, height, width), channels_last) for _ in range(count)]
    for e in range(len(strides)):
        made.append(arguments.empty(grad, (batch, channels - taken, *sizes[2 * e : 2 * e + 2]), channels_last))
    return [*made, grad.new_empty(len(mixed) + len(rests), dtype=torch.float32)]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    mixed, rests, mixed_weights, rest_weights, k, strides, keep_positions = inputs
    # a gradient of zeros for the positions would be as large as they are
    ctx.set_materialize_grads(False)
    ctx.keeps_mixed, ctx.keeps_rests = (w is not None and w.requires_grad for w in (mixed_weights, rest_weights))
    assert keep_positions or ctx.keeps_rests or 2 not in strides, "backward of a pool needs its positions or its input"
    ctx.counts = len(mixed), len(rests)
    ctx.k, ctx.strides = k, list(strides)
    ctx.sizes = [tuple(r.shape[2:]) for r in rests]
    ctx.channels_last = arguments.is_channels_last(mixed, rests)
    kept = [*(mixed if ctx.keeps_mixed else ()), *(rests if ctx.keeps_rests else ())]
    ctx.save_for_backward(mixed_weights, rest_weights, output[1], *kept)


def _backward(ctx: Any, grad: Tensor, _: None) -> tuple[Any, ...]:
    mixed_weights, rest_weights, positions, *kept = ctx.saved_tensors
    m, r = ctx.counts
    mixed, rests = (kept[:m], kept[m:]) if ctx.keeps_mixed else ([], kept)
    # unweighted tensors of one size have one and the same gradient, made once
    made_mixed = list(range(m)) if mixed_weights is not None else [0] * m
    if rest_weights is not None:
        made_rest = edges = list(range(r))
    else:
        plain = ctx.strides.index(1) if 1 in ctx.strides else None
        edges = [e for e in range(r) if ctx.strides[e] == 2 or e == plain]
        made_rest = [edges.index(e if ctx.strides[e] == 2 else plain) for e in range(r)]
    count = len(set(made_mixed))
    *grads, by_weights = backward_op(
        grad,
        mixed,
        rests,
        mixed_weights,
        rest_weights,
        positions,
        ctx.k,
        count,
        [ctx.strides[e] for e in edges],
        [n for e in edges for n in ctx.sizes[e]],
        ctx.channels_last,
    )
    return (
        [grads[i] for i in made_mixed],
        [grads[count + i] for i in made_rest],
        by_weights[: len(mixed)].to(mixed_weights.dtype) if ctx.keeps_mixed else None,
        by_weights[len(mixed) :].to(rest_weights.dtype) if ctx.keeps_rests else None,
        None,
        # torch takes an empty list of numbers for one of tensors
        None if ctx.strides else [],
        None,
    )


forward_op.register_autograd(_backward, setup_context=_setup_context)


@register_flop_formula([torch.ops.visnas.partial_node, torch.ops.visnas.partial_node_backward])
def _flops(*args: Any, **kwargs: Any) -> int:
    return 0


def _recorded(*xs: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in xs)


def _use_triton(x: Tensor, wanted: bool | None) -> bool:
    if wanted is None:
        return HAS_TRITON and x.is_cuda and x.dtype in _DTYPES
    if wanted and x.dtype not in _DTYPES:
        raise ValueError(f"the Triton kernels take float32, bfloat16 and float16, not {x.dtype}: pass triton=None.")
    return wanted
