"""All mixed operations that leave a state towards some targets, as functional operators around the Triton kernels.

Letters: B batch, C channels, H x W the state, H' x W' the targets; T targets; J chains, N maps that are summed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from search.kernels.mixed_state.structure import Structure
from search.kernels.triton_package import require_triton_package
from search.kernels.wanted import asked_for

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# statistics of a norm: of C channels in all, mean and unbiased variance [C]
Statistics = list[tuple[Tensor, Tensor]]


def mixed_state(
    x: Tensor,
    weights: Tensor,
    structure: Structure,
    gates: Tensor | None = None,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    inner_gamma: Tensor | None = None,
    inner_beta: Tensor | None = None,
    others: Sequence[Tensor] = (),
    eps: float = 1e-5,
) -> tuple[Tensor, Statistics]:
    """The sum over candidates of every target, gates times norms of maps, all norms by the batch's statistics (training).

    - x: [B, C, H, W] in float32, bfloat16 or float16; channels-last is copied.
    - weights: all convolutions' weights in x's dtype, flat: of each step the depthwise ones [T*C, k, k] of each chain, then the
      pointwise ones [T, C, C] of each (see `Structure.steps`).
    - gates: [N, T], or None for ones. The maps: of each chain, `others`, max pool, average pool, x itself.
    - gamma, beta: [N, T*C] of the last norms, or None. inner_gamma, inner_beta: of the norms between steps, flat: step by step,
      [T*C] of each chain that goes on.
    - others: maps [B, T*C, H', W'] made elsewhere, which are normalised and summed too.

    Returns y [B, T*C, H', W'] and, in the order of inner_gamma by steps and then of the last norms, what running statistics
    move towards: one pair for each step that another one follows, [chains * T*C], and one [N, T*C]; without gradient.
    Gradients: of everything given but structure and eps; of `weights` only where asked for. Differentiable once. Kept for
    backward: x, the input of each norm, a byte for each value of the max pool. Runs on CUDA, on CPU under TRITON_INTERPRET=1.
    Raises ValueError where the kernels can't run.
    """
    x, weights, *others = _for_autocast([x, weights, *others])
    if x.dtype not in _DTYPES:
        raise ValueError(f"the Triton kernels take float32, bfloat16 and float16, not {x.dtype}: set plan='batched'.")
    with torch.autocast(x.device.type, enabled=False):
        made = forward_op(x, weights, structure.numbers(), gates, gamma, beta, inner_gamma, inner_beta, others, eps)
    steps = max(structure.lengths, default=0)
    inner = made[4 + steps : 4 + steps + 4 * max(steps - 1, 0)]
    return made[0], [(m[0], v[0]) for m, v in zip(inner[::4], inner[1::4], strict=True)] + [(made[1], made[2])]


@torch.library.custom_op("visnas::mixed_state", mutates_args=())
def forward_op(
    x: Tensor,
    weights: Tensor,
    structure: Sequence[int],
    gates: Tensor | None,
    gamma: Tensor | None,
    beta: Tensor | None,
    inner_gamma: Tensor | None,
    inner_beta: Tensor | None,
    others: Sequence[Tensor],
    eps: float,
) -> list[Tensor]:
    """y and what `passes.Kept` lists; structure: `Structure.numbers`."""
    require_triton_package("plan='triton'", "set plan='batched'")
    # imported where it runs: the package works without triton
    from search.kernels.mixed_state import passes

    y, kept = passes.forward(
        _even(x), weights, Structure.of(structure), passes.Vectors(gates, gamma, beta, inner_gamma, inner_beta), others, eps
    )
    return [y, *kept.tensors()]


@torch.library.custom_op("visnas::mixed_state_backward", mutates_args=())
def backward_op(
    grad: Tensor,
    x: Tensor,
    weights: Tensor,
    structure: Sequence[int],
    gates: Tensor | None,
    gamma: Tensor | None,
    beta: Tensor | None,
    inner_gamma: Tensor | None,
    inner_beta: Tensor | None,
    others: Sequence[Tensor],
    kept: Sequence[Tensor],
    need_weights: bool,
) -> list[Tensor]:
    """Gradients, those that there are: x, weights if needed, gates, gamma, beta, inner gamma, inner beta, the others."""
    from search.kernels.mixed_state import passes

    form = Structure.of(structure)
    found = passes.backward(
        grad, _even(x), weights, form, passes.Vectors(gates, gamma, beta, inner_gamma, inner_beta), others,
        passes.Kept.of(kept, form), need_weights,
    )  # fmt: skip
    made = [found.x, found.weights, found.gates]
    made += [by.to(given.dtype) if given is not None else None for given, by in ((gamma, found.gamma), (beta, found.beta))]
    for given, parts in ((inner_gamma, found.inner_gamma), (inner_beta, found.inner_beta)):
        made.append(None if given is None else torch.cat(parts).to(given.dtype))
    return [tensor for tensor in made if tensor is not None] + found.others


@forward_op.register_fake
def _made(x, weights, structure, gates, gamma, beta, inner_gamma, inner_beta, others, eps):
    form = Structure.of(structure)
    batch, channels, height, width = x.shape
    height, width = ((n + form.stride - 1) // form.stride for n in (height, width))
    rows = form.targets * channels
    numbers = [x.new_empty((len(form.normalise()), rows), dtype=torch.float32) for _ in range(3)]
    steps = list(form.steps(channels))
    zs = [x.new_empty((len(step.sizes) * rows, batch, height, width)).transpose(0, 1) for step in steps]
    inner = []
    for step in steps[1:]:
        count = len(step.sizes) * rows
        inner += [x.new_empty((1, count), dtype=torch.float32) for _ in range(3)]
        inner.append(x.new_empty((1 if inner_beta is None else 2, 1, count), dtype=torch.float32))
    pools = []
    if form.max_pool:
        pools += [
            x.new_empty((batch, channels, height, width)),
            x.new_empty((batch, channels, height, width), dtype=torch.uint8),
        ]
    if form.avg_pool:
        pools.append(x.new_empty((batch, channels, height, width)))
    return [x.new_empty((batch, rows, height, width)), *numbers, *zs, *inner, *pools]


@backward_op.register_fake
def _gradients(grad, x, weights, structure, gates, gamma, beta, inner_gamma, inner_beta, others, kept, need_weights):
    made = [x.new_empty(x.shape)]
    given = [weights if need_weights else None, gates, gamma, beta, inner_gamma, inner_beta]
    made += [t.new_empty(t.shape) for t in given if t is not None]
    return made + [t.new_empty(t.shape) for t in others]


def _even(x: Tensor) -> Tensor:
    """x, whose rows follow one another, or such a copy."""
    _, _, height, width = x.shape
    even = (width == 1 or x.stride(3) == 1) and (height == 1 or x.stride(2) == width)
    return x if even else x.contiguous()


def _save(ctx, inputs, output):
    x, weights, structure, gates, gamma, beta, inner_gamma, inner_beta, others, _ = inputs
    ctx.mark_non_differentiable(*output[1:])
    # else a tensor of zeros comes for everything that is kept
    ctx.set_materialize_grads(False)
    vectors = (gates, gamma, beta, inner_gamma, inner_beta)
    ctx.save_for_backward(x, weights, *vectors, *others, *output[1:])
    ctx.structure, ctx.others = structure, len(others)


def _backward(ctx, grads):
    x, weights, *rest = ctx.saved_tensors
    vectors, others, kept = rest[:5], rest[5 : 5 + ctx.others], rest[5 + ctx.others :]
    need_weights = asked_for(ctx, 1)
    made = iter(backward_op(grads[0], x, weights, ctx.structure, *vectors, others, kept, need_weights))
    by_x = next(made)
    by_weights = next(made) if need_weights else None
    by_vectors = [None if vector is None else next(made) for vector in vectors]
    return by_x, by_weights, None, *by_vectors, list(made), None


forward_op.register_autograd(_backward, setup_context=_save)


def _for_autocast(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The rule under autocast: maps and weights in its dtype, vectors as they are."""
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device) or tensors[0].dtype == torch.float64:
        return list(tensors)
    return [tensor.to(torch.get_autocast_dtype(device)) for tensor in tensors]


def _under_autocast(device_type):
    def run(x, weights, structure, gates, gamma, beta, inner_gamma, inner_beta, others, eps):
        x, weights, *others = _for_autocast([x, weights, *others])
        with torch.autocast(device_type, enabled=False):
            return forward_op(x, weights, structure, gates, gamma, beta, inner_gamma, inner_beta, others, eps)

    return run


# not torch.library.register_autocast: its one dtype is fixed when this file is imported
_LIBRARY = torch.library.Library("visnas", "FRAGMENT")
for _device in ("cpu", "cuda"):
    _LIBRARY.impl("mixed_state", _under_autocast(_device), f"Autocast{_device.upper()}")


@register_flop_formula(torch.ops.visnas.mixed_state)
def _forward_flops(x, weights, structure, *_, **__) -> int:
    """Two operations a multiply-add of the convolutions: each weight has one at every output position of every image."""
    stride = Structure.of(structure).stride
    positions = x[0] * ((x[2] + stride - 1) // stride) * ((x[3] + stride - 1) // stride)
    return 2 * positions * weights[0]


@register_flop_formula(torch.ops.visnas.mixed_state_backward)
def _backward_flops(grad, x, weights, structure, *rest, **_) -> int:
    """The forward's count for the gradient of x, and again for the weights'."""
    return _forward_flops(x, weights, structure) * (1 + bool(rest[-1]))
