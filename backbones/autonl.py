"""AutoNL (arXiv 2004.01961): inverted residuals with lightweight non-local blocks, found by search.

Facts of the block: paper, section 3.1; meijieru/yet_another_mobilenet_series at 6715961. There the affinities are divided by
the height and multiplied by the width, which is one for square maps; here, as in the paper, by the number of positions.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from backbones.blocks import InvertedResidual, block
from backbones.spec import classifier, schema


class LightNonLocal(nn.Module):
    """x + norm(depthwise(theta(x) phi(x)^T g(x) / positions)), without 1x1 convolutions (paper, eq. 4).

    theta and phi are the first `ratio` of the channels, phi and g are taken every `step` pixels; the products are done in
    the order of fewer multiply-adds. The norm's scale starts at zero, so the block starts as the identity. ValueError for a
    ratio that isn't above 0 and up to 1, and a step that isn't a positive whole number.
    """

    def __init__(self, channels: int, ratio: float, step: int) -> None:
        super().__init__()
        if not 0 < ratio <= 1 or not isinstance(step, int) or step < 1:
            raise ValueError(f"ratio={ratio} must be a share of the channels, and step={step} a positive whole number")
        self.inner = int(ratio * channels)
        self.step = step
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> the same shape."""
        g = x[:, :, :: self.step, :: self.step].flatten(2)
        theta, phi = x[:, : self.inner].flatten(2), g[:, : self.inner]
        channels, few = g.shape[1:]
        positions = theta.shape[2]
        if positions * few * (self.inner + channels) < channels * self.inner * (few + positions):
            y = g @ (phi.transpose(1, 2) @ theta)
        else:
            y = (g @ phi.transpose(1, 2)) @ theta
        return x + self.norm(self.depthwise((y / positions).view_as(x)))


@block("nonlocal")
class NonLocalResidual(nn.Module):
    """An inverted residual with a `LightNonLocal` (`ratio`, `step`) before its shortcut; `settings` as InvertedResidual's."""

    def __init__(self, c_in: int, c_out: int, stride: int, *, ratio: float, step: int, **settings) -> None:
        super().__init__()
        self.residual = InvertedResidual(c_in, c_out, stride, shortcut=False, **settings)
        self.attention = LightNonLocal(c_out, ratio, step)
        self.shortcut = c_in == c_out and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        """[B, c_in, H, W] -> [B, c_out, H', W']."""
        y = self.attention(self.residual(x))
        return x + y if self.shortcut else y


@schema("autonl")
def autonl(spec: Mapping) -> dict:
    """`blocks` as [expand, out, repeat, stride, kernels, non-local channel ratio and step, squeeze ratio of the input]."""
    channels, stages = spec["stem"], []
    for expand, out, repeat, stride, (kernel,), ratio, step, squeezed in spec["blocks"]:
        for position in range(repeat):
            ops = dict(type="mbconv", kernel=kernel, expand=expand, squeeze=round(channels * squeezed))
            if ratio:
                ops |= dict(type="nonlocal", ratio=ratio, step=step)
            stages.append(dict(channels=out, stride=stride if position == 0 else 1, ops=ops))
            channels = out
    backbone = dict(
        type="search.ChainNet",
        stem=dict(channels=spec["stem"]),
        stages=stages,
        last=dict(channels=spec["last"]),
        activation="silu",
    )
    return classifier(backbone, spec)
