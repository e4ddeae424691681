"""Partial channels (PC-DARTS, arXiv 1907.05737, section 3.1): only 1/K of a state's channels pass through an edge's candidates.

Which channels: the paper samples a mask at random; its official code (train_search.py / model_search.py) takes the first C/K
channels, always, and shuffles the channels of the edge's result in K groups, so that later edges see other ones. We do what
the code does: a random mask has no fixed weights per channel and the published results come from the code. At stride 2 the
untouched channels are max-pooled 2x2; we round odd sizes up, like the stride-2 candidates, where the code fails.

Where an edge leads from C to C' channels (the code has none such), its candidates turn C/K channels into C'/K, and the result's
others are the first C' - C'/K of the channels that they don't see, taken from the start again where there are fewer.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def split(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """[B, C, H, W] -> the first C/k channels and the rest."""
    taken = x.shape[1] // k
    return x[:, :taken], x[:, taken:]


def join(mixed: Tensor, rest: Tensor, k: int, stride: int) -> Tensor:
    """Put the mixed channels [B, C/k, H', W'] and the rest [B, C - C/k, H, W] together and shuffle: [B, C, H', W']."""
    return shuffle(torch.cat((mixed, bypass(rest, stride)), dim=1), k)


def through(op: Callable[[Tensor], Tensor], x: Tensor, k: int, stride: int = 1, channels: int | None = None) -> Tensor:
    """Any operation on the first C/k channels, the others untouched: [B, C, H, W] -> [B, C', H', W'].

    op: [B, C/k, H, W] -> [B, C'/k, H', W'], H' = ceil(H / stride); with k = 1 it sees all channels and nothing is shuffled.
    `channels`: C', by default C.
    """
    if k == 1:
        return op(x)
    taken, rest = split(x, k)
    return join(op(taken), fitted(rest, k, channels), k, stride)


def fitted(rest: Tensor, k: int, channels: int | None) -> Tensor:
    """Of the channels that no candidate sees those that a state of `channels` channels has room for, repeated if need be.

    [B, R, H, W] -> [B, channels - channels / k, H, W]; with None as it is.
    """
    have = rest.shape[1]
    need = have if channels is None else channels - channels // k
    if need <= have:
        return rest[:, :need]
    return rest[:, torch.arange(need, device=rest.device) % have]


def bypass(rest: Tensor, stride: int) -> Tensor:
    """What the channels that no candidate sees become on an edge: [B, C', H, W] -> [B, C', H', W']."""
    return F.max_pool2d(rest, 2, 2, ceil_mode=True) if stride == 2 else rest


def shuffle(x: Tensor, groups: int) -> Tensor:
    """Interleave `groups` groups of channels: channel g * (C / groups) + i moves to i * groups + g. [B, C, H, W] -> same."""
    b, c, h, w = x.shape
    return x.view(b, groups, c // groups, h, w).transpose(1, 2).reshape(b, c, h, w)
