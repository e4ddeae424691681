"""The arguments of the normalised weighted sum, checked and brought to one form. Shapes as in reference.py."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# one vector [C] per candidate (None: ones or zeros), or all of them as [N, C]
Rows = Tensor | Sequence[Tensor | None] | None


@dataclass(frozen=True)
class Arguments:
    """``zs``: N tensors [B, C, H, W] of one dtype; ``weight`` [N]; the others [N, C] or None; ``normalise``: N flags.

    ``running_mean`` and ``running_var`` are both None where the batch's statistics normalise.
    """

    zs: list[Tensor]
    weight: Tensor
    gamma: Tensor | None
    beta: Tensor | None
    running_mean: Tensor | None
    running_var: Tensor | None
    normalise: list[bool]


def prepare(
    zs: Sequence[Tensor],
    weight: Tensor,
    gammas: Rows,
    betas: Rows,
    running: tuple[Rows, Rows] | None,
    eps: float,
    normalise: Sequence[bool] | None,
) -> Arguments:
    """Checks what a caller gives to `norm_sum`; ValueError in one sentence for what can't be computed."""
    zs = cast_for_autocast(zs)
    if not zs or zs[0].dim() != 4:
        raise ValueError(f"zs must be at least one tensor [B, C, H, W], not {[tuple(z.shape) for z in zs]}.")
    odd = [z for z in zs if z.shape != zs[0].shape or z.dtype != zs[0].dtype or z.device != zs[0].device]
    if odd:
        raise ValueError(f"zs must have one shape, dtype and device, not both {_describe(zs[0])} and {_describe(odd[0])}.")
    if weight.shape != (len(zs),):
        raise ValueError(f"weight must have shape [{len(zs)}], one number for each of the zs, not {list(weight.shape)}.")
    flags = [True] * len(zs) if normalise is None else [bool(flag) for flag in normalise]
    if len(flags) != len(zs):
        raise ValueError(f"normalise must have {len(zs)} flags, one for each of the zs, not {len(flags)}.")
    if eps < 0:
        raise ValueError(f"eps={eps} must not be negative.")
    shape = (len(zs), zs[0].shape[1])
    mean = var = None
    if running is not None:
        for n, flag in enumerate(flags):
            if flag and any(rows is None or n >= len(rows) or rows[n] is None for rows in running):
                raise ValueError(f"running holds no mean or no variance for zs[{n}], which is to be normalised.")
        mean, var = _stack(running[0], "running means", shape, 0), _stack(running[1], "running variances", shape, 1)
        # nothing to normalise: any statistics do
        mean = zs[0].new_zeros(shape) if mean is None else mean
        var = zs[0].new_ones(shape) if var is None else var
    elif any(flags) and zs[0].numel() <= zs[0].shape[1]:
        raise ValueError(
            f"zs of shape {list(zs[0].shape)} hold no two values a channel, so they have no batch statistics: pass running=."
        )
    gamma, beta = _stack(gammas, "gammas", shape, 1), _stack(betas, "betas", shape, 0)
    return Arguments(zs, weight, gamma, beta, mean, var, flags)


def cast_for_autocast(zs: Sequence[Tensor]) -> list[Tensor]:
    """The rule under autocast: activations in autocast's dtype; weights, affine parameters and statistics as given."""
    if not zs or not torch.is_autocast_enabled(zs[0].device.type):
        return list(zs)
    dtype = torch.get_autocast_dtype(zs[0].device.type)
    return [z if z.dtype == torch.float64 else z.to(dtype) for z in zs]


def memory_format(z: Tensor) -> torch.memory_format:
    """How y and the gradients lie: channels-last where the first of the zs does (or is a channel slice of such)."""
    return torch.channels_last if z.shape[1] > 1 and z.stride(1) == 1 else torch.contiguous_format


def _stack(rows: Rows, name: str, shape: tuple[int, int], fill: float) -> Tensor | None:
    if rows is None:
        return None
    if not isinstance(rows, Tensor):
        given = [row for row in rows if row is not None]
        if not given:
            return None
        if any(row.shape != shape[1:] for row in given):
            raise ValueError(f"{name} must be vectors [{shape[1]}], not {[list(row.shape) for row in given]}.")
        rows = torch.stack([torch.full_like(given[0], fill) if row is None else row for row in rows])
    if rows.shape != shape:
        raise ValueError(f"{name} must have shape {list(shape)}, a row for each of the zs, not {list(rows.shape)}.")
    return rows


def _describe(z: Tensor) -> str:
    return f"{list(z.shape)} {z.dtype} on {z.device}"
