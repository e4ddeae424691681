"""What a candidate operation is made of, read off its modules, so that plans can run many of one kind together.

Known kinds: rows of (ReLU, depthwise, pointwise, norm), (ReLU, full convolution, norm), factorized reductions, pools with or
without a norm, the identity, and the zero. Norms are batch norms; those of the rows may also be group norms without scale and
shift whose groups have more than one channel. Anything else is `Other` and runs as the module it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

from torch import nn

from search.supernet.mixed import Zero

# (stride, padding, dilation) of a square convolution
Geometry = tuple[int, int, int]


@dataclass(frozen=True)
class Separable:
    """ReLU, depthwise, pointwise, norm."""

    depthwise: nn.Conv2d
    pointwise: nn.Conv2d
    norm: nn.BatchNorm2d | nn.GroupNorm

    @property
    def geometry(self) -> Geometry:
        """Of the depthwise convolution."""
        return _geometry(self.depthwise)


@dataclass(frozen=True)
class Chain:
    """Separable convolutions in a row; candidates of one `key` run together."""

    parts: tuple[Separable, ...]

    @property
    def key(self) -> tuple:
        """What must be equal for two chains to run together."""
        return tuple((p.depthwise.kernel_size, *p.geometry, p.pointwise.out_channels, *norm_key(p.norm)) for p in self.parts)


@dataclass(frozen=True)
class Dense:
    """ReLU, a convolution over all channels, norm."""

    conv: nn.Conv2d
    norm: nn.BatchNorm2d

    @property
    def geometry(self) -> Geometry:
        """Of the convolution."""
        return _geometry(self.conv)

    @property
    def key(self) -> tuple:
        """What must be equal for two to run together."""
        return self.conv.kernel_size, *self.geometry, self.conv.out_channels, *norm_key(self.norm)


@dataclass(frozen=True)
class Halves:
    """ReLU or not, two pointwise convolutions of stride 2, the second on the map shifted by a pixel, side by side, norm."""

    first: nn.Conv2d
    second: nn.Conv2d
    norm: nn.BatchNorm2d
    relu: bool

    @property
    def key(self) -> tuple:
        """What must be equal for two to run together."""
        return self.first.out_channels, self.second.out_channels, self.relu, *norm_key(self.norm)


@dataclass(frozen=True)
class Pool:
    """A pooling without parameters and the norm after it, if any; pools of one `key` are the same map."""

    pool: nn.Module
    norm: nn.BatchNorm2d | None

    @property
    def key(self) -> tuple:
        """What must be equal for two pools to be one."""
        return repr(self.pool), None if self.norm is None else norm_key(self.norm)


@dataclass(frozen=True)
class Other:
    """A module of any kind."""

    module: nn.Module


@dataclass(frozen=True)
class Same:
    """The identity."""

    key = ()


Kind = Chain | Dense | Halves | Pool | Same | Other | None


class SaysKind(Protocol):
    """A module with a forward of its own that says which kind it is."""

    def kind(self) -> Kind:
        """A kind that computes what the module's forward does."""
        ...


def kind_of(module: nn.Module) -> Kind:
    """The kind of a candidate; None for a zero."""
    if isinstance(module, Zero):
        return None
    if callable(getattr(module, "kind", None)):
        return cast(SaysKind, module).kind()
    if isinstance(module, nn.Identity):
        return Same()
    layers = _layers(module)
    if isinstance(layers[0], nn.MaxPool2d | nn.AvgPool2d):
        if len(layers) == 1:
            return Pool(layers[0], None)
        if len(layers) == 2 and isinstance(layers[1], nn.BatchNorm2d) and not layers[1].affine:
            return Pool(layers[0], layers[1])
    parts = [_separable(layers[i : i + 4]) for i in range(0, len(layers), 4)]
    if all(parts) and all(part.geometry[0] == 1 for part in parts[1:]):
        return Chain(tuple(parts))
    if len(layers) == 3 and type(layers[0]) is nn.ReLU and _is_plain(layers[1]) and type(layers[2]) is nn.BatchNorm2d:
        return Dense(layers[1], layers[2])
    return Other(module)


def norm_key(norm: nn.BatchNorm2d | nn.GroupNorm) -> tuple:
    """What must be equal for two norms to be computed as one."""
    if isinstance(norm, nn.GroupNorm):
        return norm.eps, norm.num_groups
    return norm.eps, norm.momentum, norm.affine, norm.running_mean is not None, norm.training, norm.track_running_stats


def _geometry(conv: nn.Conv2d) -> Geometry:
    return conv.stride[0], int(conv.padding[0]), conv.dilation[0]


def _is_plain(module: nn.Module) -> bool:
    """A convolution without bias, over all channels, the same in both directions."""
    return (
        type(module) is nn.Conv2d
        and module.bias is None
        and module.groups == 1
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
        and all(len(set(pair)) == 1 for pair in (module.kernel_size, module.stride, module.padding, module.dilation))
    )


def _layers(module: nn.Module) -> list[nn.Module]:
    """The layers of nested `nn.Sequential`s in order; subclasses with a forward of their own stay whole."""
    if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward and len(module):
        return [layer for child in module for layer in _layers(child)]
    return [module]


def _separable(layers: Sequence[nn.Module]) -> Separable | None:
    if len(layers) != 4:
        return None
    relu, depthwise, pointwise, norm = layers
    if type(relu) is not nn.ReLU:
        return None
    # groups of one channel may have a single value, which group norms take and batch norms don't
    groups = type(norm) is nn.GroupNorm and not norm.affine and norm.num_channels > norm.num_groups
    if type(norm) is not nn.BatchNorm2d and not groups:
        return None
    if not (type(depthwise) is nn.Conv2d and type(pointwise) is nn.Conv2d) or depthwise.bias is not None:
        return None
    channels = depthwise.in_channels
    kernel, stride, padding, dilation = depthwise.kernel_size, depthwise.stride, depthwise.padding, depthwise.dilation
    fits = (
        depthwise.groups == channels == depthwise.out_channels
        and all(len(set(pair)) == 1 for pair in (kernel, stride, dilation))
        and padding == (dilation[0] * (kernel[0] - 1) // 2,) * 2
        and depthwise.padding_mode == "zeros"
        and pointwise.kernel_size == (1, 1)
        and pointwise.stride == (1, 1)
        and pointwise.groups == 1
        and pointwise.bias is None
        and pointwise.out_channels == channels
    )
    return Separable(depthwise, pointwise, norm) if fits else None
