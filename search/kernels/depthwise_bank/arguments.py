"""What the depthwise bank takes, and how its tensors lie in memory. Shapes as in operator.py."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

POOLS = ("max", "avg")


def cast_for_autocast(x: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """The rule under autocast: as convolutions have it, everything in autocast's dtype (float64 stays)."""
    if not torch.is_autocast_enabled(x.device.type) or x.dtype == torch.float64:
        return x, list(weights)
    dtype = torch.get_autocast_dtype(x.device.type)
    return x.to(dtype), [weight.to(dtype) for weight in weights]


def check(x: Tensor, weights: Sequence[Tensor], dilations: Sequence[int], stride: int, pools: Sequence[str]) -> None:
    """ValueError for what is no bank."""
    if x.dim() != 4 or not x.shape[1:].numel():
        raise ValueError(f"x must have shape [B, C, H, W] with C, H and W above zero, not {list(x.shape)}.")
    if stride not in (1, 2):
        raise ValueError(f"stride={stride} must be 1 or 2.")
    if len(weights) != len(dilations) or any(d not in (1, 2) for d in dilations):
        raise ValueError(f"dilations={list(dilations)} for {len(weights)} weights: give 1 or 2 for each.")
    if any(pool not in POOLS for pool in pools) or len(set(pools)) != len(pools):
        raise ValueError(f"pools={list(pools)} must name 'max' and 'avg' at most once each.")
    if not weights and not pools:
        raise ValueError("the bank has neither weights nor pools: give at least one.")
    for weight in weights:
        if (
            weight.dim() != 4
            or weight.shape[1] != 1
            or weight.shape[2] != weight.shape[3]
            or weight.shape[2] not in (3, 5, 7)
            or weight.shape[0] % x.shape[1]
            or not weight.shape[0]
        ):
            raise ValueError(
                f"a weight of shape {list(weight.shape)} beside {x.shape[1]} channels: it must be [T * {x.shape[1]}, 1, k, k] "
                "with T targets and k of 3, 5 or 7."
            )
        if weight.dtype != x.dtype or weight.device != x.device:
            raise ValueError(f"x is {x.dtype} on {x.device}, a weight {weight.dtype} on {weight.device}: they must be alike.")


def is_channels_last(x: Tensor) -> bool:
    """Whether the channels of a pixel lie side by side, in x or in what x is a channel slice of."""
    return x.shape[1] > 1 and x.stride(1) == 1


def memory_format(x: Tensor) -> torch.memory_format:
    """The layout of everything that is made from x."""
    return torch.channels_last if is_channels_last(x) else torch.contiguous_format


def output_size(x: Tensor, stride: int) -> tuple[int, int]:
    """(H', W')."""
    return (x.shape[2] + stride - 1) // stride, (x.shape[3] + stride - 1) // stride


def targets(x: Tensor, weights: Sequence[Tensor]) -> tuple[int, ...]:
    """T_m of each weight."""
    return tuple(weight.shape[0] // x.shape[1] for weight in weights)
