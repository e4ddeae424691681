"""ShuffleNet V1 (arXiv 1707.01083), V2 (1807.11164), and the one-shot space of V2's blocks that SPOS (1904.00420), DetNAS
(1903.10979) and ShuffleNetV2+ share.

Facts are the authors' code's, megvii-model/ShuffleNet-Series at aa91feb: where the resolution falls, V2's branch beside the
main one keeps all its input channels, and classifiers have no bias. Blocks where both branches have half of the channels, and
that shuffle at their end instead of splitting even from odd channels at the next one's beginning, are torchvision's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.shufflenetv2 import InvertedResidual

from backbones.blocks import ACTIVATIONS, block, conv
from backbones.spec import NotBuildable, classifier, schema

# the candidates of every block of the one-shot space (SPOS, section 4; DetNAS, section 3.2)
CANDIDATES: Mapping[str, dict] = {
    "k3": dict(type="shuffle", kernel=3),
    "k5": dict(type="shuffle", kernel=5),
    "k7": dict(type="shuffle", kernel=7),
    "xception": dict(type="shuffle_xception"),
}


@block("shuffle_v1")
class ShuffleV1(nn.Module):
    """Grouped 1x1 convolution, channel shuffle, depthwise 3x3, grouped 1x1 convolution (ShuffleNet V1, section 3.2, figure 2).

    A shortcut is added where shapes allow. At stride 2 the input, average-pooled, is concatenated in front instead, so c_out
    has to be larger than c_in. Both 1x1 convolutions have `groups`, the first one `first_groups` if given; between them are
    c_out / 4 channels.
    """

    def __init__(
        self, c_in: int, c_out: int, stride: int, *, groups: int, first_groups: int | None = None, activation: str = "relu"
    ) -> None:
        super().__init__()
        if stride == 1 and c_in != c_out:
            raise ValueError(f"a block of stride 1 keeps its channels, which isn't so from {c_in} to {c_out}")
        self.stride = stride
        made = _made(c_in, c_out) if stride > 1 else c_out
        hidden = c_out // 4
        if hidden % groups or made % groups:
            raise ValueError(f"groups={groups} don't divide the {hidden} inner and {made} outer channels")
        self.layers = nn.Sequential(
            conv(c_in, hidden, 1, 1, activation, groups=first_groups or groups),
            nn.ChannelShuffle(groups),
            conv(hidden, hidden, 3, stride, "identity", groups=hidden),
            conv(hidden, made, 1, 1, "identity", groups=groups),
        )
        self.activation = ACTIVATIONS[activation]()

    def forward(self, x: Tensor) -> Tensor:
        """[B, c_in, H, W] -> [B, c_out, H', W']."""
        y = self.layers(x)
        if self.stride == 1:
            return self.activation(x + y)
        return torch.cat([F.avg_pool2d(x, 3, self.stride, 1), self.activation(y)], dim=1)


class NormedSqueeze(nn.Sequential):
    """The weights of ShuffleNetV2+'s squeeze-excitation: a norm inside, no biases. [B, C, H, W] -> [B, C, 1, 1] in 0 to 1."""

    def __init__(self, channels: int) -> None:
        super().__init__(
            nn.AdaptiveAvgPool2d(1),
            conv(channels, channels // 4, 1, 1, "relu"),
            nn.Conv2d(channels // 4, channels, 1, bias=False),
            nn.Hardsigmoid(),
        )


class Excited(nn.Sequential):
    """Layers, the last of them a `NormedSqueeze` of what the others make. [B, C, H, W] -> [B, C', H', W']."""

    def forward(self, x: Tensor) -> Tensor:
        """The layers' output, weighted."""
        *layers, squeeze = self
        for layer in layers:
            x = layer(x)
        return x * squeeze(x)


@block("shuffle")
class Shuffle(nn.Module):
    """ShuffleNet V2's block (section 3.3, figure 3c and d) with a depthwise convolution of any kernel.

    Where channels and resolution stay, the even channels pass and the odd ones go through 1x1, depthwise, 1x1; where either
    changes, all channels go both ways, past through depthwise and 1x1. `squeeze`: ShuffleNetV2+'s squeeze-excitation.
    """

    def __init__(
        self, c_in: int, c_out: int, stride: int, *, kernel: int = 3, activation: str = "relu", squeeze: bool = False
    ) -> None:
        super().__init__()
        self.splits = stride == 1 and c_in == c_out
        if self.splits and c_in % 2:
            raise ValueError(f"{c_in} channels can't be split in halves")
        enters = c_in // 2 if self.splits else c_in
        made = _made(enters, c_out)
        layers = self.layers(enters, c_out // 2, made, stride, kernel, activation)
        self.main = Excited(*layers, NormedSqueeze(made)) if squeeze else nn.Sequential(*layers)
        self.past = nn.Sequential() if self.splits else nn.Sequential(*_separable(c_in, c_in, kernel, stride, activation))

    @staticmethod
    def layers(c_in: int, hidden: int, c_out: int, stride: int, kernel: int, activation: str) -> list[nn.Module]:
        """The main branch."""
        return [conv(c_in, hidden, 1, 1, activation), *_separable(hidden, c_out, kernel, stride, activation)]

    def forward(self, x: Tensor) -> Tensor:
        """[B, c_in, H, W] -> [B, c_out, H', W']."""
        past, enters = (x[:, 0::2], x[:, 1::2]) if self.splits else (x, x)
        return torch.cat([self.past(past), self.main(enters)], dim=1)


@block("shuffle_xception")
class ShuffleXception(Shuffle):
    """`Shuffle` whose main branch is three separable 3x3 convolutions, as in Xception (SPOS, section 4)."""

    def __init__(self, c_in: int, c_out: int, stride: int, *, activation: str = "relu", squeeze: bool = False) -> None:
        super().__init__(c_in, c_out, stride, activation=activation, squeeze=squeeze)

    @staticmethod
    def layers(c_in: int, hidden: int, c_out: int, stride: int, kernel: int, activation: str) -> list[nn.Module]:
        """The main branch."""
        return [
            *_separable(c_in, hidden, kernel, stride, activation),
            *_separable(hidden, hidden, kernel, 1, activation),
            *_separable(hidden, c_out, kernel, 1, activation),
        ]


@block("shuffle_torchvision")
class ShuffleTorchvision(InvertedResidual):
    """Torchvision's block of ShuffleNet V2, whose weights it takes. [B, c_in, H, W] -> [B, c_out, H', W']."""

    def __init__(self, c_in: int, c_out: int, stride: int, *, activation: str = "relu") -> None:
        if activation != "relu":
            raise ValueError(f"activation={activation!r}: torchvision's block has none but 'relu'")
        super().__init__(c_in, c_out, stride)


@block("conv_squeeze")
class ConvSqueeze(Excited):
    """A 1x1 convolution with norm and activation, and squeeze-excitation: ShuffleNetV2+'s last layer.

    There the excitation comes after the global pool, which is the same: a channel's weight doesn't depend on the position.
    """

    def __init__(self, c_in: int, c_out: int, stride: int, *, activation: str = "relu", bias: bool = False) -> None:
        super().__init__(*conv(c_in, c_out, 1, stride, activation, bias=bias), NormedSqueeze(c_out))


def _separable(c_in: int, c_out: int, kernel: int, stride: int, activation: str) -> list[nn.Module]:
    return [conv(c_in, c_in, kernel, stride, "identity", groups=c_in), conv(c_in, c_out, 1, 1, activation)]


def _made(kept: int, c_out: int) -> int:
    """Channels that the main branch makes beside those kept."""
    if c_out <= kept:
        raise ValueError(f"{c_out} channels leave none to make beside the {kept} kept")
    return c_out - kept


@schema("shufflenet_v1")
def shufflenet_v1(spec: Mapping) -> dict:
    """`channels` of the stem and the stages, `repeats`, `groups`; `first_pointwise_groups` of the very first block (1)."""
    ops = dict(type="shuffle_v1", groups=spec["groups"])
    stem, *channels = spec["channels"]
    stages = [dict(channels=c, stride=2, depth=n, ops=ops) for c, n in zip(channels, spec["repeats"], strict=True)]
    stages[0]["first"] = dict(ops, first_groups=spec.get("first_pointwise_groups", 1))
    backbone = dict(type="search.ChainNet", stem=dict(channels=stem, pool=True), stages=stages)
    return classifier(backbone, spec, bias=False)


@schema("shufflenet_v2")
def shufflenet_v2(spec: Mapping) -> dict:
    """`stem`, `channels` of the stages and the last convolution, `repeats`; `layout`: "authors" or "torchvision"."""
    layouts = {"authors": dict(type="shuffle"), "torchvision": dict(type="shuffle_torchvision")}
    layout = spec.get("layout", "authors")
    if layout not in layouts:
        raise ValueError(f"layout={layout!r} is none of {', '.join(layouts)}")
    *channels, last = spec["channels"]
    stages = [dict(channels=c, stride=2, depth=n, ops=layouts[layout]) for c, n in zip(channels, spec["repeats"], strict=True)]
    stem = dict(channels=spec["stem"], pool=True)
    backbone = dict(type="search.ChainNet", stem=stem, stages=stages, last=dict(channels=last))
    return classifier(backbone, spec, bias=layout == "torchvision")


@schema("shufflenet_oneshot")
def shufflenet_oneshot(spec: Mapping) -> dict:
    """A network of the one-shot space, as a `ChainNet` of that space with the architecture that it is.

    `channels` of the stem, the stages and the last convolution; `repeats`: blocks of each stage; `arch`: the operation of each
    block, as indices of `ops` (by default all `CANDIDATES`, in order). And where they are so:
    - `activation` ("relu"): one for all, or one for each of `channels`;
    - `se` (False), squeeze-excitation: for all but the stem, or one for each of the other `channels`;
    - `head_after_pool`: channels of a linear layer after pooling, with the last convolution's activation;
    - `biases` (False): the stem, the last convolution and the classifier have biases (DetNAS).
    """
    if "channels" not in spec or "repeats" not in spec:
        raise NotBuildable("this one-shot network's channels and repeats aren't given; ShuffleNetV2+ states them for each size")
    biases = spec.get("biases", False)
    backbone = oneshot_space(
        spec["channels"],
        spec["repeats"],
        ops=spec.get("ops", tuple(CANDIDATES)),
        activation=spec.get("activation", "relu"),
        squeeze=spec.get("se", False),
        bias=biases,
    )
    names = list(backbone["stages"][0]["ops"])
    places = [f"s{s}/b{b}" for s, n in enumerate(spec["repeats"]) for b in range(n)]
    if len(places) != len(spec["arch"]) or not all(i in range(len(names)) for i in spec["arch"]):
        raise ValueError(f"arch={spec['arch']} isn't an index below {len(names)} for each of {len(places)} blocks")
    backbone["arch"] = {place: names[i] for place, i in zip(places, spec["arch"], strict=True)}
    head: dict = dict(bias=biases)
    if "head_after_pool" in spec:
        head["hidden"] = dict(channels=spec["head_after_pool"], activation=backbone["last"]["activation"], bias=False)
    return classifier(backbone, spec, **head)


def oneshot_space(
    channels: Sequence[int],
    repeats: Sequence[int],
    ops: Sequence[str] = tuple(CANDIDATES),
    activation: str | Sequence[str] = "relu",
    squeeze: bool | Sequence[bool] = False,
    bias: bool = False,
) -> dict:
    """The one-shot space as a backbone's config: every block is one of `ops`, the choices are `s<stage>/b<block>`.

    `channels`: of the stem, each stage, and the last convolution; `activation`: one for all, or for each of these; `squeeze`:
    one for all, or for each of these but the stem, which has none. `bias`: of the first and the last convolution.
    ValueError where lengths don't fit, or for an operation that isn't in `CANDIDATES`.
    """
    if len(channels) != len(repeats) + 2:
        raise ValueError(f"{len(repeats)} stages need channels of stem, stages and last convolution, not {len(channels)}")
    if unknown := set(ops) - set(CANDIDATES):
        raise ValueError(f"operation {sorted(unknown)[0]!r} is none of {', '.join(CANDIDATES)}")
    activations = [activation] * len(channels) if isinstance(activation, str) else list(activation)
    squeezes = [squeeze] * (len(channels) - 1) if isinstance(squeeze, bool) else list(squeeze)
    if not len(activations) == len(squeezes) + 1 == len(channels):
        raise ValueError(
            f"{len(channels)} channels need as many activations, not {len(activations)}, "
            f"and one squeeze less, not {len(squeezes)}"
        )
    stages = [
        dict(
            channels=channels[i],
            stride=2,
            depth=n,
            ops={name: dict(CANDIDATES[name], activation=activations[i], squeeze=squeezes[i - 1]) for name in ops},
        )
        for i, n in enumerate(repeats, 1)
    ]
    kind = dict(type="conv_squeeze") if squeezes[-1] else {}
    return dict(
        type="search.ChainNet",
        stem=dict(channels=channels[0], activation=activations[0], bias=bias),
        stages=stages,
        last=dict(channels=channels[-1], activation=activations[-1], bias=bias, **kind),
    )
