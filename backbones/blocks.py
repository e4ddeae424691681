"""Blocks that several families share, composed of torchvision's, and the table of blocks that chains are made of.

A block is a class called as `Block(c_in, c_out, stride, **settings)` that maps [B, c_in, H, W] to
[B, c_out, ceil(H / stride), ceil(W / stride)]. A family with a block of its own registers it with `@block("name")`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import SqueezeExcitation, StochasticDepth
from torchvision.ops.misc import Conv2dNormActivation

ACTIVATIONS: dict[str, Callable[..., nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hardswish": nn.Hardswish,
    "silu": nn.SiLU,
    "identity": nn.Identity,
}
GATES: dict[str, Callable[..., nn.Module]] = {"sigmoid": nn.Sigmoid, "hardsigmoid": nn.Hardsigmoid}
BLOCKS: dict[str, Callable[..., nn.Module]] = {}


def block(name: str) -> Callable:
    """Register a block for chains: their data then says `dict(type=name, **settings)`."""

    def register(make: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
        assert name not in BLOCKS, f"two blocks are called {name!r}"
        BLOCKS[name] = make
        return make

    return register


def make_block(c_in: int, c_out: int, stride: int, type: str, **settings) -> nn.Module:
    """The block that a chain's data describes. ValueError for an unknown type or setting."""
    if type not in BLOCKS:
        raise ValueError(f"block type {type!r} is unknown; known are {', '.join(sorted(BLOCKS))}")
    try:
        return BLOCKS[type](c_in, c_out, stride, **settings)
    except TypeError as error:
        raise ValueError(f"block {type!r} can't be made of {settings}: {error}") from error


def round_channels(channels: float, divisor: int = 8, least: float = 0.9) -> int:
    """The nearest multiple of `divisor`, at least it, and never below the share `least` of `channels` (MobileNet's rule).

    ValueError for channels that aren't a positive number.
    """
    if not channels > 0:
        raise ValueError(f"{channels} channels can't be rounded to a multiple of {divisor}: give a positive number")
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < least * channels else rounded


def conv(
    c_in: int,
    c_out: int,
    kernel: int = 1,
    stride: int = 1,
    activation: str = "relu",
    *,
    groups: int = 1,
    dilation: int = 1,
    bias: bool = False,
) -> nn.Sequential:
    """Convolution that keeps H / stride, by default without bias, batch norm, activation (none for "identity").

    ValueError for numbers that aren't positive and whole, and for an unknown activation.
    """
    for name, number in dict(c_in=c_in, c_out=c_out, kernel=kernel, stride=stride, groups=groups, dilation=dilation).items():
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise ValueError(f"{name}={number!r} of a convolution must be a positive whole number")
    return Conv2dNormActivation(
        c_in,
        c_out,
        kernel,
        stride,
        groups=groups,
        dilation=dilation,
        activation_layer=None if activation == "identity" else _named(ACTIVATIONS, activation),
        inplace=True if activation != "identity" else None,
        bias=bias,
    )


def _named(table: dict, name: str):
    if name not in table:
        raise ValueError(f"{name!r} is none of {', '.join(table)}")
    return table[name]


class MixedDepthwise(nn.Module):
    """Depthwise convolutions of several kernel sizes, each on its own channels (MixConv). [B, sum(channels), H, W]."""

    def __init__(self, channels: Sequence[int], kernels: Sequence[int], stride: int, activation: str) -> None:
        super().__init__()
        self.channels = tuple(channels)
        self.parts = nn.ModuleList(conv(c, c, k, stride, activation, groups=c) for c, k in zip(channels, kernels, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        """Split the channels, convolve, concatenate."""
        return torch.cat([part(y) for part, y in zip(self.parts, x.split(self.channels, dim=1), strict=True)], dim=1)


@block("mbconv")
class InvertedResidual(nn.Module):
    """Expansion 1x1, depthwise, squeeze-excitation, projection 1x1, and a shortcut where shapes allow.

    MobileNetV2 (arXiv 1801.04381) section 3.3, with the variations of its descendants: any kernel and activation,
    squeeze-excitation after the depthwise convolution (MnasNet, 1807.11626), grouped 1x1 convolutions with a channel shuffle
    between (FBNet, 1812.03443), dilation (SqueezeNAS, 1908.01748), several kernels side by side (MixNet, AtomNAS).

    Args:
        kernel: of the depthwise convolution; several with `hidden` given as a list of channels for each.
        expand: hidden channels are round(c_in * expand); `hidden` gives them directly.
        expansion: whether there is an expansion convolution, by default where hidden and input channels differ.
        squeeze: channels inside the squeeze-excitation; 0 for none.
        squeeze_activation, gate: its activations, by default the block's and "sigmoid" ("hardsigmoid" in MobileNetV3).
        groups: of both 1x1 convolutions.
        shuffle: whether grouped convolutions have a channel shuffle before the depthwise one, with or without an expansion.
        shortcut: by default where c_in equals c_out and the stride is 1.
        drop_path: probability of dropping the block, where it has a shortcut.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        stride: int,
        *,
        kernel: int | Sequence[int] = 3,
        expand: float = 1,
        hidden: int | Sequence[int] | None = None,
        expansion: bool | None = None,
        squeeze: int = 0,
        activation: str = "relu",
        squeeze_activation: str | None = None,
        gate: str = "sigmoid",
        groups: int = 1,
        shuffle: bool = True,
        dilation: int = 1,
        shortcut: bool | None = None,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        several = not isinstance(kernel, int)
        wide = sum(hidden) if several else (round(c_in * expand) if hidden is None else hidden)
        layers: list[nn.Module] = []
        if wide != c_in if expansion is None else expansion:
            layers.append(conv(c_in, wide, 1, 1, activation, groups=groups))
        if groups > 1 and shuffle:
            layers.append(nn.ChannelShuffle(groups))
        if several:
            layers.append(MixedDepthwise(hidden, kernel, stride, activation))
        else:
            layers.append(conv(wide, wide, kernel, stride, activation, groups=wide, dilation=dilation))
        if squeeze:
            inner = _named(ACTIVATIONS, squeeze_activation or activation)
            layers.append(SqueezeExcitation(wide, squeeze, inner, _named(GATES, gate)))
        layers.append(conv(wide, c_out, 1, 1, "identity", groups=groups))
        self.layers = nn.Sequential(*layers)
        fits = c_in == c_out and stride == 1
        self.shortcut = fits if shortcut is None else shortcut
        if self.shortcut and not fits:
            raise ValueError(f"a shortcut needs equal channels and stride 1, not {c_in} to {c_out} at stride {stride}")
        self.drop_path = StochasticDepth(drop_path, "row")

    def forward(self, x: Tensor) -> Tensor:
        """[B, c_in, H, W] -> [B, c_out, H', W']."""
        y = self.layers(x)
        return x + self.drop_path(y) if self.shortcut else y


@block("fused")
class FusedInvertedResidual(nn.Module):
    """An inverted residual whose expansion and depthwise convolutions are one full convolution (EfficientNetV2, 2104.00298)."""

    def __init__(
        self,
        c_in: int,
        c_out: int,
        stride: int,
        *,
        kernel: int = 3,
        expand: float = 1,
        activation: str = "relu",
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        hidden = round(c_in * expand)
        if expand == 1:
            self.layers = nn.Sequential(conv(c_in, c_out, kernel, stride, activation))
        else:
            self.layers = nn.Sequential(conv(c_in, hidden, kernel, stride, activation), conv(hidden, c_out, 1, 1, "identity"))
        self.shortcut = c_in == c_out and stride == 1
        self.drop_path = StochasticDepth(drop_path, "row")

    def forward(self, x: Tensor) -> Tensor:
        """[B, c_in, H, W] -> [B, c_out, H', W']."""
        y = self.layers(x)
        return x + self.drop_path(y) if self.shortcut else y


@block("separable")
class Separable(nn.Sequential):
    """Depthwise, then pointwise, both with norm and activation (MobileNet, arXiv 1704.04861).

    `final`: the activation after the pointwise convolution, by default the same.
    """

    def __init__(
        self, c_in: int, c_out: int, stride: int, *, kernel: int = 3, activation: str = "relu", final: str | None = None
    ) -> None:
        super().__init__(
            conv(c_in, c_in, kernel, stride, activation, groups=c_in), conv(c_in, c_out, 1, 1, final or activation)
        )


@block("conv")
class ConvBlock(nn.Sequential):
    """One convolution with norm and activation."""

    def __init__(
        self, c_in: int, c_out: int, stride: int, *, kernel: int = 3, activation: str = "relu", bias: bool = False
    ) -> None:
        super().__init__(*conv(c_in, c_out, kernel, stride, activation, bias=bias))


@block("skip")
class Skip(nn.Identity):
    """Nothing, where nothing is possible: a chain's layer that is left out."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        if c_in != c_out or stride != 1:
            raise ValueError(f"a layer can't be skipped from {c_in} to {c_out} channels at stride {stride}")
        super().__init__()
