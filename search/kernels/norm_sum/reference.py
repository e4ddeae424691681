"""What the normalised weighted sum is, in plain PyTorch.

Shapes: N candidates, B batch, C channels, H and W height and width; M = B * H * W values a channel.

Sources: the mixed operation of DARTS (arXiv 1806.09055, eq. 2) over candidates that end in batch norms (arXiv
1502.03167, algorithm 1; the running variance is the unbiased one, algorithm 2).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from search.kernels.norm_sum.arguments import Rows, prepare


def norm_sum_reference(
    zs: Sequence[Tensor],
    weight: Tensor,
    gammas: Rows = None,
    betas: Rows = None,
    running: tuple[Rows, Rows] | None = None,
    eps: float = 1e-5,
    normalise: Sequence[bool] | None = None,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """y [B, C, H, W], mean [N, C], var [N, C]: the definition, every product stored; arguments as in `norm_sum`.

    Half types are computed in float32 and y is rounded once. Differentiable any number of times.
    """
    given = prepare(zs, weight, gammas, betas, running, eps, normalise)
    exact = torch.promote_types(given.zs[0].dtype, torch.float32)
    y = torch.zeros(given.zs[0].shape, dtype=exact, device=given.zs[0].device)
    means, variances = [], []
    for n, z in enumerate(given.zs):
        x = z.to(exact)
        mean, var = x.new_zeros(x.shape[1]), x.new_ones(x.shape[1])
        if given.normalise[n]:
            if given.running_mean is None:
                mean = x.mean((0, 2, 3))
                var = (x - _channels(mean)).square().mean((0, 2, 3))
            else:
                mean, var = given.running_mean[n].to(exact), given.running_var[n].to(exact)
            x = (x - _channels(mean)) * _channels((var + eps).rsqrt())
        if given.gamma is not None:
            x = x * _channels(given.gamma[n].to(exact))
        if given.beta is not None:
            x = x + _channels(given.beta[n].to(exact))
        y = y + given.weight[n].to(exact) * x
        if given.normalise[n] and given.running_mean is None:
            values = z.numel() // z.shape[1]
            var = var * (values / (values - 1))
        means.append(mean.detach())
        variances.append(var.detach())
    y = y.to(given.zs[0].dtype)
    return (y, torch.stack(means), torch.stack(variances)) if given.running_mean is None else (y, None, None)


def _channels(row: Tensor) -> Tensor:
    """[C] -> [1, C, 1, 1]."""
    return row.view(1, -1, 1, 1)
