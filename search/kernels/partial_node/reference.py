"""Partial-channel node, as PC-DARTS (arXiv 1907.05737, section 3.1 and eq. 2) states it, in plain PyTorch.

An edge e into a node gives ``shuffle(cat(mixed_e, pool(rest_e)))``: mixed_e are the C / K channels that its candidates made,
rest_e the channels of its source that they didn't see, max-pooled 2x2 where the edge has stride 2. A node weights its edges and
sums them. Shuffle and concatenation are linear, so they are done once, after the sums.

Shapes: B batch, K groups, T = C / K channels that the candidates see, R = C - T the rest, H and W size of the node.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def partial_node_reference(
    mixed: Sequence[Tensor],
    rests: Sequence[Tensor],
    k: int,
    *,
    mixed_weights: Tensor | None = None,
    rest_weights: Tensor | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    """As `partial_node`: mixed [B, T, H, W] each, rests [B, R, H or up to 2 H, W or up to 2 W] each -> [B, C, H, W].

    Half types are summed in float32. The arguments aren't checked.
    """
    strides = strides or (1,) * len(rests)
    pooled = [F.max_pool2d(r, 2, 2, ceil_mode=True) if s == 2 else r for r, s in zip(rests, strides, strict=True)]
    parts = [_weighted_sum(xs, w) for xs, w in ((mixed, mixed_weights), (pooled, rest_weights)) if len(xs)]
    y = torch.cat(parts, dim=1)
    b, c, h, w = y.shape
    return y.view(b, k, c // k, h, w).transpose(1, 2).reshape(b, c, h, w).to((*mixed, *rests)[0].dtype)


def _weighted_sum(xs: Sequence[Tensor], weights: Tensor | None) -> Tensor:
    total = None
    for e, x in enumerate(xs):
        x = x.to(wide(x.dtype))
        x = x if weights is None else weights[e] * x
        total = x if total is None else total + x
    assert total is not None
    return total


def wide(dtype: torch.dtype) -> torch.dtype:
    """The type that values of `dtype` are summed in: float32 for half types."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
