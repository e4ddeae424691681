"""Candidate operations of the DARTS space (arXiv 1806.09055, section 3.1 and A.1).

Every operation maps [B, C, H, W] to [B, C', H', W'], with H' = ceil(H / stride). `affine` says whether norms have learned
scale and shift; without (the search), pools are followed by such a norm too, as in the authors' search network.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search.supernet import Halves, Kind, Zero


def set_norms(network: nn.Module, norm: Mapping[str, float] | None) -> None:
    """Give all batch norms of a network `eps` and `momentum`, of which `norm` may have either. ValueError for another key."""
    if norm is None:
        return
    if not isinstance(norm, Mapping) or not set(norm) <= {"eps", "momentum"}:
        raise ValueError(f"norm={norm!r} may have eps and momentum of batch norms, such as dict(eps=1e-3), and nothing else")
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps, module.momentum = norm.get("eps", module.eps), norm.get("momentum", module.momentum)


class ReLUConvNorm(nn.Sequential):
    """ReLU, 1x1 convolution, norm: what aligns the channels of a cell's inputs."""

    def __init__(self, c_in: int, c_out: int, affine: bool = True) -> None:
        super().__init__(nn.ReLU(), nn.Conv2d(c_in, c_out, 1, bias=False), nn.BatchNorm2d(c_out, affine=affine))


class FactorizedReduce(nn.Module):
    """Halve the resolution: two 1x1 stride-2 convolutions of half width, the second on the map shifted by one pixel.

    An odd channel goes to the second one (TF-slim's nasnet_utils.py; the DARTS code refuses it). `relu`: whether the input is
    rectified first. Raises ValueError for fewer than two output channels.
    """

    def __init__(self, c_in: int, c_out: int, affine: bool = True, relu: bool = True) -> None:
        super().__init__()
        if c_out < 2:
            raise ValueError(f"a factorized reduction needs at least 2 output channels, not {c_out}")
        self.relu = relu
        self.conv_1 = nn.Conv2d(c_in, c_out // 2, 1, stride=2, bias=False)
        self.conv_2 = nn.Conv2d(c_in, c_out - c_out // 2, 1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(c_out, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        """[B, c_in, H, W] -> [B, c_out, ceil(H / 2), ceil(W / 2)]."""
        x = F.relu(x) if self.relu else x
        # an odd side has no pixel to shift to at its end: pad it with a zero
        shifted = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))[:, :, 1:, 1:]
        return self.norm(torch.cat((self.conv_1(x), self.conv_2(shifted)), dim=1))

    def kind(self) -> Kind:
        """What plans of execution know it as."""
        return Halves(self.conv_1, self.conv_2, self.norm, self.relu)


def _separable(c_in: int, channels: int, kernel: int, stride: int, dilation: int, affine: bool) -> list[nn.Module]:
    padding = dilation * (kernel - 1) // 2
    return [
        nn.ReLU(),
        nn.Conv2d(c_in, c_in, kernel, stride, padding, dilation=dilation, groups=c_in, bias=False),
        nn.Conv2d(c_in, channels, 1, bias=False),
        nn.BatchNorm2d(channels, affine=affine),
    ]


class SepConv(nn.Sequential):
    """(ReLU, depthwise, pointwise, norm) twice; the first carries the stride, and the change from `c_in` channels if given."""

    def __init__(
        self,
        channels: int,
        stride: int,
        kernel: int,
        affine: bool = True,
        *,
        c_in: int | None = None,
        dilation: int = 1,
    ) -> None:
        super().__init__(
            *_separable(c_in or channels, channels, kernel, stride, dilation, affine),
            *_separable(channels, channels, kernel, 1, dilation, affine),
        )


class DilConv(nn.Sequential):
    """ReLU, depthwise with dilation 2, pointwise, norm."""

    def __init__(self, channels: int, stride: int, kernel: int, affine: bool = True) -> None:
        super().__init__(*_separable(channels, channels, kernel, stride, 2, affine))


def max_pool(channels: int, stride: int, affine: bool = True) -> nn.Module:
    """3x3 max pooling; in the search (no affine norms) normalised."""
    return _normalised(nn.MaxPool2d(3, stride, 1), channels, affine)


def avg_pool(channels: int, stride: int, affine: bool = True) -> nn.Module:
    """3x3 average pooling that doesn't count padding; in the search (no affine norms) normalised."""
    return _normalised(nn.AvgPool2d(3, stride, 1, count_include_pad=False), channels, affine)


def _normalised(pool: nn.Module, channels: int, affine: bool) -> nn.Module:
    return pool if affine else nn.Sequential(pool, nn.BatchNorm2d(channels, affine=False))


def skip(channels: int, stride: int, affine: bool = True) -> nn.Module:
    """Identity, or a factorized reduction at stride 2."""
    return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels, affine)


def darts_candidates(affine: bool) -> Mapping[str, partial]:
    """The eight candidates in the order of the authors' code (it decides ties), each (channels, stride) -> module."""
    return {
        "none": lambda channels, stride: Zero(stride),
        "max_pool_3x3": partial(max_pool, affine=affine),
        "avg_pool_3x3": partial(avg_pool, affine=affine),
        "skip_connect": partial(skip, affine=affine),
        "sep_conv_3x3": partial(SepConv, kernel=3, affine=affine),
        "sep_conv_5x5": partial(SepConv, kernel=5, affine=affine),
        "dil_conv_3x3": partial(DilConv, kernel=3, affine=affine),
        "dil_conv_5x5": partial(DilConv, kernel=5, affine=affine),
    }
