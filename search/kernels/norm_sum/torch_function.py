"""The normalised weighted sum without stored products, in plain PyTorch on any device. Shapes as in reference.py.

The architecture weight is the norm's affine weight, w_n * BN_n(z_n) = BN_n(z_n; w_n * gamma_n, w_n * beta_n), so one
batch-norm backward gives the gradients of z_n, w_n, gamma_n and beta_n, and what is kept is z_n and vectors.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from search.kernels.norm_sum.arguments import Rows, prepare


def norm_sum_torch(
    zs: Sequence[Tensor],
    weight: Tensor,
    gammas: Rows = None,
    betas: Rows = None,
    running: tuple[Rows, Rows] | None = None,
    eps: float = 1e-5,
    normalise: Sequence[bool] | None = None,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """y [B, C, H, W], mean [N, C], var [N, C]; arguments as in `norm_sum`.

    Kept for backward: the z_n, and vectors. Can be differentiated twice (exact second-order DARTS).
    """
    given = prepare(zs, weight, gammas, betas, running, eps, normalise)
    y, mean, var, _ = _NormSum.apply(
        given.weight, given.gamma, given.beta, given.running_mean, given.running_var, eps, given.normalise, *given.zs
    )
    return (y, mean, var) if given.running_mean is None else (y, None, None)


class _NormSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight, gamma, beta, running_mean, running_var, eps, normalise, *zs):
        exact = torch.promote_types(zs[0].dtype, torch.float32)
        scales = _affine(weight, gamma, exact)
        # two maps for all candidates: on CPU new memory costs more than the arithmetic
        y, centred, squares = (torch.empty_like(zs[0], dtype=exact) for _ in range(3))
        y.zero_()
        # not a matrix product: autocast would round it
        offset = y.new_zeros(y.shape[1]) if beta is None else _affine(weight, beta, exact).sum(0)
        means, variances, invstds = [], [], []
        for n, z in enumerate(zs):
            mean, var, invstd = y.new_zeros(y.shape[1]), y.new_ones(y.shape[1]), y.new_ones(y.shape[1])
            if not normalise[n]:
                centred.copy_(z)
            # centred before it is scaled: z * scale - mean * scale loses digits where the mean is large
            elif running_mean is None:
                mean, var, rest = _statistics(z, centred, squares)
                invstd = (var + eps).rsqrt()
                offset.addcmul_(scales[n] * invstd, rest, value=-1)
                values = z.numel() // z.shape[1]
                mean, var = mean + rest, var * (values / (values - 1))
            else:
                mean, var = running_mean[n].to(exact), running_var[n].to(exact)
                torch.sub(z, _channels(mean), out=centred)
                invstd = (var + eps).rsqrt()
            y.addcmul_(centred, _channels(scales[n] * invstd))
            means.append(mean)
            variances.append(var)
            invstds.append(invstd)
        y.add_(_channels(offset))
        mean, var, invstd = torch.stack(means), torch.stack(variances), torch.stack(invstds)
        ctx.save_for_backward(weight, gamma, beta, running_mean, running_var, mean, invstd, *zs)
        ctx.eps, ctx.normalise = eps, normalise
        ctx.mark_non_differentiable(mean, var, invstd)
        return y.to(zs[0].dtype), mean, var, invstd

    @staticmethod
    def backward(ctx, grad, *_):
        weight, gamma, beta, running_mean, running_var, mean, invstd, *zs = ctx.saved_tensors
        exact = torch.promote_types(grad.dtype, torch.float32)
        # half types in float32: the library's own kernel for them rounds on the way
        grad = grad.to(exact)
        scales = _affine(weight, gamma, exact).expand(-1, grad.shape[1])
        grads, products, total = [], [], grad.sum((0, 2, 3))
        for n, z in enumerate(zs):
            wanted = ctx.needs_input_grad[7 + n]
            if ctx.normalise[n]:
                running = (None, None) if running_mean is None else (running_mean[n].to(exact), running_var[n].to(exact))
                dz, product, _ = torch.ops.aten.native_batch_norm_backward(
                    grad,
                    z.to(exact),
                    scales[n].contiguous(),
                    *running,
                    mean[n],
                    invstd[n],
                    running_mean is None,
                    ctx.eps,
                    [wanted, True, False],
                )
            else:
                dz = grad * _channels(scales[n]) if wanted else None
                product = (grad * z).sum((0, 2, 3))
            grads.append(dz.to(z.dtype) if wanted else None)
            products.append(product)
        # [N, C]: sum of grad * normalised z
        product = torch.stack(products)
        per_channel = product if gamma is None else product * gamma.to(exact)
        if beta is not None:
            per_channel = per_channel + total * beta.to(exact)
        d_weight = per_channel.sum(1).to(weight.dtype)
        d_gamma = None if gamma is None else (product * weight.to(exact)[:, None]).to(gamma.dtype)
        d_beta = None if beta is None else (total * weight.to(exact)[:, None]).to(beta.dtype)
        return d_weight, d_gamma, d_beta, None, None, None, None, *grads


def _affine(weight: Tensor, rows: Tensor | None, dtype: torch.dtype) -> Tensor:
    """w_n * gamma_n (or beta_n): [N, C]; [N, 1] without gammas."""
    column = weight.to(dtype)[:, None]
    return column if rows is None else column * rows.to(dtype)


def _statistics(z: Tensor, centred: Tensor, squares: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A rounded mean, the biased variance and the mean of what is left, [C]; `centred` becomes z minus that mean.

    Two passes and a correction; several times the speed of the CPU kernel behind `batch_norm` on NCHW tensors.
    """
    mean = z.mean((0, 2, 3), dtype=centred.dtype)
    torch.sub(z, _channels(mean), out=centred)
    rest = centred.mean((0, 2, 3))
    var = torch.mul(centred, centred, out=squares).mean((0, 2, 3)) - rest.square()
    # a constant channel's variance may come out as minus a rounding error
    return mean, var.clamp_min_(0), rest


def _channels(row: Tensor) -> Tensor:
    """[C] -> [1, C, 1, 1]."""
    return row.view(1, -1, 1, 1)
