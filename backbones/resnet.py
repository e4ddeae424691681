"""ResNet-50 (arXiv 1512.03385) with the stride on the 3x3 convolution ("v1.5"), as the slimmable networks (1812.08928) scale
it and AutoSlim (1903.11728) searches its widths; and with it on the first one, as in the paper.

Facts are from the authors' code, JiahuiYu/slimmable_networks at 5dc14d0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from backbones.blocks import ACTIVATIONS, block, conv
from backbones.spec import classifier, listed_channels, schema

# blocks of each stage, and the width inside them; four times as many channels leave them
REPEATS = (3, 4, 6, 3)
WIDTHS = (64, 128, 256, 512)
EXPANSION = 4


@block("bottleneck")
class Bottleneck(nn.Module):
    """1x1, 3x3 with the stride, 1x1, added to a shortcut (section 4.1, figure 5).

    Torchvision's block has one width for both inner convolutions, a quarter of c_out; this one has what `hidden` says: one
    width or two. `project`: whether the shortcut is a 1x1 convolution, by default where shapes differ. `early`: whether the
    first convolution has the stride.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        stride: int,
        *,
        hidden: int | tuple[int, int],
        project: bool | None = None,
        early: bool = False,
        activation: str = "relu",
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        first, second = (hidden, hidden) if isinstance(hidden, int) else hidden
        differ = c_in != c_out or stride > 1
        if differ and project is False:
            raise ValueError(f"from {c_in} to {c_out} channels at stride {stride} a shortcut has to project")
        self.layers = nn.Sequential(
            conv(c_in, first, 1, stride if early else 1, activation),
            conv(first, second, 3, 1 if early else stride, activation),
            conv(second, c_out, 1, 1, "identity"),
        )
        projects = differ if project is None else project
        self.shortcut = conv(c_in, c_out, 1, stride, "identity") if projects else nn.Identity()
        self.drop_path = StochasticDepth(drop_path, "row")
        self.activation = ACTIVATIONS[activation]()

    def forward(self, x: Tensor) -> Tensor:
        """[B, c_in, H, W] -> [B, c_out, H', W']."""
        return self.activation(self.shortcut(x) + self.drop_path(self.layers(x)))


@schema("resnet50_v1.5")
def resnet50(spec: Mapping) -> dict:
    """`width_mult` scales all channels, cut to whole numbers."""
    return classifier(resnet(REPEATS, spec["width_mult"]), spec)


def resnet(repeats: Sequence[int], width: float = 1.0, early: bool = False) -> dict:
    """The config of a ResNet of bottlenecks, so many in each of its four stages; levels 0 to 3 have strides 4 to 32.

    `early`: with the strides on blocks' first convolutions.
    """
    stages = []
    for index, (repeat, channels) in enumerate(zip(repeats, WIDTHS, strict=True)):
        out = int(EXPANSION * channels * width)
        ops = dict(type="bottleneck", hidden=out // EXPANSION, **(dict(early=True) if early else {}))
        stages.append(dict(channels=out, stride=1 if index == 0 else 2, depth=repeat, ops=ops))
    return _chain(int(WIDTHS[0] * width), stages)


@schema("autoslim_resnet")
def autoslim_resnet(spec: Mapping) -> dict:
    """`channels` of the stem, then per stage of its shortcut and per block of its three convolutions, then the classes."""
    # stem, classes, a shortcut for each stage, three for each block
    stem, *rest, classes = listed_channels(spec, 2 + len(REPEATS) + 3 * sum(REPEATS))
    widths, stages = iter(rest), []
    for index, repeat in enumerate(REPEATS):
        shortcut = next(widths)
        for b in range(repeat):
            first, second, out = next(widths), next(widths), next(widths)
            if out != shortcut:
                raise ValueError(f"stage {index}: block {b} ends in {out} channels, to be added to a shortcut of {shortcut}")
            ops = dict(type="bottleneck", hidden=(first, second), project=b == 0)
            stages.append(dict(channels=out, stride=2 if index > 0 and b == 0 else 1, ops=ops))
    return classifier(_chain(stem, stages), {"num_classes": classes, **spec})


def _chain(stem: int, stages: list[dict]) -> dict:
    return dict(type="search.ChainNet", stem=dict(channels=stem, kernel=7, pool=True), stages=stages)
