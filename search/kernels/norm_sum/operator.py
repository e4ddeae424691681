"""The normalised weighted sum as functional operators around the Triton kernels. Shapes as in reference.py."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from search.kernels.norm_sum.arguments import Rows, cast_for_autocast, memory_format, prepare
from search.kernels.norm_sum.torch_function import norm_sum_torch
from search.kernels.triton_package import HAS_TRITON, require_triton_package

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def norm_sum(
    zs: Sequence[Tensor],
    weight: Tensor,
    gammas: Rows = None,
    betas: Rows = None,
    running: tuple[Rows, Rows] | None = None,
    eps: float = 1e-5,
    normalise: Sequence[bool] | None = None,
    *,
    triton: bool | None = None,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """``y = sum_n weight_n * (gamma_n * norm_n(z_n) + beta_n)``, [B, C, H, W]; no product is stored.

    - zs: N tensors [B, C, H, W] of one dtype, NCHW or channels-last, also channel slices of such; not stacked.
    - weight: [N], the architecture weights.
    - gammas, betas: a vector [C] or None (ones, zeros) for each of the zs, or [N, C], or None.
    - running: None normalises by the batch's statistics (biased variance; training mode). A pair of means and
      variances, each like gammas, normalises by those (eval mode).
    - normalise: N flags; norm_n of an entry that is False is the identity (its norm is elsewhere). Default: all True.
    - triton: True runs the kernels (CUDA, or CPU tensors under TRITON_INTERPRET=1), False plain PyTorch; None takes
      the kernels where they can run: float32, bfloat16 or float16 on CUDA with triton installed.

    Returns y in the zs' dtype (sums in float32, rounded once) and, where the batch's statistics were used, mean and
    unbiased variance, both [N, C] without gradient, from which the caller moves running statistics (0 and 1 in rows
    that aren't normalised); else None, None.
    Gradients: zs, weight (through the norms), gammas, betas; the same bits in every run. Kept for backward: the zs and
    vectors. The kernels can be differentiated once: exact second order (not the finite-difference form of DARTS) needs
    ``triton=False``. Under autocast the zs are cast to its dtype and the vectors stay as they are.
    Raises ValueError for shapes that don't fit, fewer than two values a channel, or kernels that can't run.
    """
    if triton is None:
        kernels = HAS_TRITON and bool(zs) and zs[0].is_cuda and zs[0].dtype in _DTYPES and zs[0].numel() > 0
    else:
        kernels = triton
    if not kernels:
        return norm_sum_torch(zs, weight, gammas, betas, running, eps, normalise)
    given = prepare(zs, weight, gammas, betas, running, eps, normalise)
    if given.zs[0].dtype not in _DTYPES or not given.zs[0].numel():
        raise ValueError(
            f"the Triton kernels take float32, bfloat16 and float16 tensors with elements, not {given.zs[0].dtype} "
            f"{list(given.zs[0].shape)}: pass triton=None."
        )
    y, mean, var, _ = forward_op(
        given.zs, weight, given.gamma, given.beta, given.running_mean, given.running_var, eps, given.normalise
    )
    return (y, mean, var) if running is None else (y, None, None)


@torch.library.custom_op("visnas::norm_sum", mutates_args=())
def forward_op(
    zs: Sequence[Tensor],
    weight: Tensor,
    gamma: Tensor | None,
    beta: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    eps: float,
    normalise: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y [B, C, H, W]; mean, unbiased variance and inverse standard deviation, each [N, C] in float32."""
    require_triton_package()
    # imported where it runs: the package works without triton
    from search.kernels.norm_sum import launch

    return launch.forward(zs, weight, gamma, beta, running_mean, running_var, eps, normalise)


@torch.library.custom_op("visnas::norm_sum_backward", mutates_args=())
def backward_op(
    grad: Tensor,
    zs: Sequence[Tensor],
    weight: Tensor,
    gamma: Tensor | None,
    beta: Tensor | None,
    mean: Tensor,
    invstd: Tensor,
    batch_statistics: bool,
    normalise: Sequence[bool],
) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
    """Gradients of the zs (in their dtype), of weight [N], and of gamma and beta [N, C] (float32, given or not)."""
    from search.kernels.norm_sum import launch

    return launch.backward(grad, zs, weight, gamma, beta, mean, invstd, batch_statistics, normalise)


@forward_op.register_fake
def _(zs, weight, gamma, beta, running_mean, running_var, eps, normalise):
    y = torch.empty_like(zs[0], memory_format=memory_format(zs[0]))
    rows = [weight.new_empty((len(zs), zs[0].shape[1]), dtype=torch.float32) for _ in range(3)]
    return y, *rows


@backward_op.register_fake
def _(grad, zs, weight, gamma, beta, mean, invstd, batch_statistics, normalise):
    layout = memory_format(zs[0])
    d_zs = [torch.empty_like(z, memory_format=layout) for z in zs]
    return d_zs, torch.empty_like(weight), torch.empty_like(mean), torch.empty_like(mean)


def _save(ctx, inputs, output):
    zs, weight, gamma, beta, running_mean, _, _, normalise = inputs
    _, mean, var, invstd = output
    ctx.mark_non_differentiable(mean, var, invstd)
    # else three tensors of zeros come as their gradients
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(weight, gamma, beta, mean, invstd, *zs)
    ctx.batch_statistics, ctx.normalise = running_mean is None, normalise


def _backward(ctx, grad, *_):
    weight, gamma, beta, mean, invstd, *zs = ctx.saved_tensors
    d_zs, d_weight, d_gamma, d_beta = backward_op(
        grad, zs, weight, gamma, beta, mean, invstd, ctx.batch_statistics, ctx.normalise
    )
    d_gamma = None if gamma is None else d_gamma.to(gamma.dtype)
    d_beta = None if beta is None else d_beta.to(beta.dtype)
    return d_zs, d_weight, d_gamma, d_beta, None, None, None, None


forward_op.register_autograd(_backward, setup_context=_save)


def _under_autocast(device_type):
    def run(zs, *rest):
        zs = cast_for_autocast(zs)
        with torch.autocast(device_type, enabled=False):
            return forward_op(zs, *rest)

    return run


# not torch.library.register_autocast: its one dtype, fixed here, would also round weights and running statistics
_LIBRARY = torch.library.Library("visnas", "FRAGMENT")
for _device in ("cpu", "cuda"):
    _LIBRARY.impl("norm_sum", _under_autocast(_device), f"Autocast{_device.upper()}")


@register_flop_formula([torch.ops.visnas.norm_sum, torch.ops.visnas.norm_sum_backward])
def _no_multiply_adds(*_, **__) -> int:
    """0, as for the norms and sums it stands for: only convolutions and matrix products count (search/cost/count.py)."""
    return 0
