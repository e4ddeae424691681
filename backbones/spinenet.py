"""SpineNet (arXiv 1912.05027): a backbone whose blocks come in a searched order of resolutions, and need no feature pyramid.

Every block takes the sum of two earlier blocks' maps, each brought to its resolution and channels by a resampling (section 3.1,
figure 5); five of them are the levels P3 to P7. Official code: tensorflow/tpu@7dc921f8, models/official/detection/modeling/
architecture/spinenet.py, whose tables are `BLOCKS`, `FILTER_SIZE` and `SCALES` here.

Level l is a resolution: a map of level l has ceil(H / 2^l) rows for an image of H. Node n is the n-th map, counted from the
two blocks of the base (nodes 0 and 1, level 2); block b makes node b + 2.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from backbones.blocks import ACTIVATIONS, conv
from backbones.features import FeatureBackbone
from backbones.heads import retinanet, separate_norms
from backbones.operations import set_norms
from backbones.resnet import Bottleneck
from backbones.spec import classifier, schema
from search.registry import MODELS

# (level, kind, parents, whether it is an output)
BLOCKS = (
    (2, "bottleneck", (0, 1), False),
    (4, "residual", (0, 1), False),
    (3, "bottleneck", (2, 3), False),
    (4, "bottleneck", (2, 4), False),
    (6, "residual", (3, 5), False),
    (4, "bottleneck", (3, 5), False),
    (5, "residual", (6, 7), False),
    (7, "residual", (6, 8), False),
    (5, "bottleneck", (8, 9), False),
    (5, "bottleneck", (8, 10), False),
    (4, "bottleneck", (5, 10), True),
    (3, "bottleneck", (4, 10), True),
    (5, "bottleneck", (7, 12), True),
    (7, "bottleneck", (5, 14), True),
    (6, "bottleneck", (12, 14), True),
)
FILTER_SIZE = {1: 32, 2: 64, 3: 128, 4: 256, 5: 256, 6: 256, 7: 256}
SCALES = {
    "49S": dict(endpoints_channels=128, filter_scale=0.65, resample_alpha=0.5, block_repeats=1),
    "49": dict(endpoints_channels=256, filter_scale=1.0, resample_alpha=0.5, block_repeats=1),
    "96": dict(endpoints_channels=256, filter_scale=1.0, resample_alpha=0.5, block_repeats=2),
    "143": dict(endpoints_channels=256, filter_scale=1.0, resample_alpha=1.0, block_repeats=3),
    "190": dict(endpoints_channels=512, filter_scale=1.3, resample_alpha=1.0, block_repeats=4),
}
# of the detectors (official code, configs/base_config.py)
NORM = dict(eps=1e-4, momentum=0.003)
DROP_PATH = 0.2
# the printed accuracies of these are of ReLU and no drop path (headers of configs/spinenet/*_classification.yaml)
RELU_CLASSIFIERS = ("49", "96", "143")
# times its filters that a block gives out
EXPANSION = {"bottleneck": 4, "residual": 1}
STEM_CHANNELS = 64
BASE_LEVEL = 2
_REFERENCE = re.compile(r"blocks as in the SpineNet-(\w+) RetinaNet entry")


class Node(NamedTuple):
    """A map of a scale-permuted network: what it is made of, and the nodes it is made from."""

    level: int
    kind: str
    channels: int
    parents: tuple[int, ...] = ()
    added: tuple[int, ...] = ()
    output: bool = False


def wire(blocks: Sequence[Mapping | Sequence], sizes: Mapping[int, int]) -> list[Node]:
    """The nodes of `blocks`, the base's two first; `sizes` are filters by level.

    A node without successors is added to the next output of its resolution and channels. Raises ValueError for what can't be.
    """
    nodes = [Node(BASE_LEVEL, "bottleneck", sizes[BASE_LEVEL] * EXPANSION["bottleneck"])] * 2
    used: set[int] = set()
    for n, block in enumerate(blocks, 2):
        values = (block[key] for key in ("level", "kind", "parents", "output")) if isinstance(block, Mapping) else block
        level, kind, parents, output = values
        if kind not in EXPANSION or level not in sizes:
            raise ValueError(f"node {n}: kind {kind!r} at level {level} is none of {', '.join(EXPANSION)} at {sorted(sizes)}")
        if not parents or not all(0 <= parent < n for parent in parents):
            raise ValueError(f"node {n} has parents {list(parents)}: they must be earlier nodes, 0 to {n - 1}")
        if output and any(node.output and node.level == level for node in nodes):
            raise ValueError(f"node {n} is a second output of level {level}")
        channels = sizes[level] * EXPANSION[kind]
        used |= set(parents)
        added = ()
        if output:
            same = [i for i, node in enumerate(nodes) if (node.level, node.channels) == (level, channels)]
            added = tuple(i for i in same if i not in used)
            used |= set(added)
        nodes.append(Node(level, kind, channels, tuple(parents), added, bool(output)))
    return nodes


class BasicBlock(nn.Module):
    """ResNet's two 3x3 convolutions with a shortcut, any activation. [B, C, H, W] -> [B, C, H, W]."""

    def __init__(self, channels: int, activation: str, drop_path: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(conv(channels, channels, 3, 1, activation), conv(channels, channels, 3, 1, "identity"))
        self.drop_path = StochasticDepth(drop_path, "row")
        self.activation = ACTIVATIONS[activation]()

    def forward(self, x: Tensor) -> Tensor:
        """Activation of input plus residual."""
        return self.activation(x + self.drop_path(self.layers(x)))


def _group(c_in: int, c_out: int, kind: str, repeats: int, activation: str, drop_path: float) -> nn.Sequential:
    """A node's blocks; only a bottleneck changes channels, in the first block of the base."""
    if kind == "residual":
        return nn.Sequential(*(BasicBlock(c_out, activation, drop_path) for _ in range(repeats)))
    settings = dict(hidden=c_out // EXPANSION[kind], activation=activation, drop_path=drop_path)
    return nn.Sequential(*(Bottleneck(c_out if i else c_in, c_out, 1, **settings) for i in range(repeats)))


class Resample(nn.Module):
    """Bring a node's map to the resolution and channels of another (paper, figure 5).

    1x1 to alpha times the node's filters; down by a 3x3 convolution of stride 2 and, beyond 2, a max pool; up by nearest
    neighbour; 1x1 to the target's channels.
    """

    def __init__(self, source: Node, target: Node, alpha: float, activation: str) -> None:
        super().__init__()
        inner, down = int(source.channels // EXPANSION[source.kind] * alpha), target.level - source.level
        self.reduce = nn.Sequential(conv(source.channels, inner, 1, 1, activation))
        if down > 0:
            self.reduce.append(conv(inner, inner, 3, 2, activation))
        if down > 1:
            kernel = 3 if down == 2 else 5
            self.reduce.append(nn.MaxPool2d(kernel, 2 ** (down - 1), kernel // 2))
        self.expand = conv(inner, target.channels, 1, 1, "identity")

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """[B, C of the source, H, W] -> [B, C of the target, *size]."""
        x = self.reduce(x)
        if x.shape[2:] != size:
            x = F.interpolate(x, size, mode="nearest")
        return self.expand(x)


class PermutedBlock(nn.Module):
    """A node: its parents resampled and summed, other nodes added as they are, activation, blocks."""

    def __init__(self, node: Node, resample: nn.ModuleList, group: nn.Sequential, activation: str) -> None:
        super().__init__()
        self.level, self.parents, self.added = node.level, node.parents, node.added
        self.resample = resample
        self.activation = ACTIVATIONS[activation]()
        self.group = group

    def forward(self, nodes: Mapping[int, Tensor], size: tuple[int, int]) -> Tensor:
        """nodes: earlier maps by number; [B, C, *size]."""
        x = sum(resample(nodes[parent], size) for parent, resample in zip(self.parents, self.resample, strict=True))
        for other in self.added:
            x = x + nodes[other]
        return self.group(self.activation(x))


@MODELS.register_module()
class SpineNet(FeatureBackbone):
    """SpineNet-49 or, with other arguments, any scale-permuted network.

    Args:
        blocks: for each block its `level`, `kind` ("bottleneck" or "residual"), `parents` (nodes) and whether it is an
            `output`, as mappings or in this order.
        filter_size: filters of a block by its level; a bottleneck gives out four times as many.
        endpoints_channels: channels of the levels that are returned.
        filter_scale: multiplies the filters of all blocks.
        resample_alpha: multiplies the filters inside the resampling.
        block_repeats: blocks one after the other in each node.
        activation: of all of it: "relu", or "silu" as in the official 500-epoch models.
        drop_path: probability of dropping a residual in the last block; it grows linearly from the first.
        norm: `eps` and `momentum` of all batch norms.
        mean: return one map instead, the mean of the levels, each sum upsampled to the next finer level by nearest neighbour:
            what SpineNet's classifiers pool.
        out_indices: 0 is the base (stride 4), then the output levels from the finest, P3; by default all of these.
        frozen_stages: 0 freezes the base; from 1 on, all blocks (each level needs most of them) and levels up to this one.

    Blocks that no returned level needs aren't built. Raises ValueError for a wiring that can't be.
    """

    def __init__(
        self,
        blocks: Sequence[Mapping | Sequence] = BLOCKS,
        filter_size: Mapping[int | str, int] | None = None,
        endpoints_channels: int = 256,
        filter_scale: float = 1.0,
        resample_alpha: float = 0.5,
        block_repeats: int = 1,
        activation: str = "silu",
        drop_path: float = 0.0,
        norm: Mapping | None = None,
        mean: bool = False,
        out_indices: Sequence[int] | None = None,
        frozen_stages: int = -1,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        sizes = {int(level): int(c * filter_scale) for level, c in (filter_size or FILTER_SIZE).items()}
        nodes = wire(blocks, sizes)
        outputs = {node.level: n for n, node in enumerate(nodes) if node.output}
        levels = [dict(channels=nodes[1].channels, stride=2**BASE_LEVEL, module="base")]
        levels += [dict(channels=endpoints_channels, stride=2**n, module=f"endpoints.p{n}") for n in sorted(outputs)]
        self.mean = mean
        out_indices = range(1, len(levels)) if out_indices is None else out_indices
        returned = {n: node for i, (n, node) in enumerate(sorted(outputs.items()), 1) if i in out_indices}
        needed = set(returned.values())
        for n in reversed(range(2, len(nodes))):
            needed |= {*nodes[n].parents, *nodes[n].added} if n in needed else set()

        first = nodes[0].channels
        self.stem = nn.Sequential(conv(3, STEM_CHANNELS, 7, 2, activation), nn.MaxPool2d(3, 2, 1))
        self.base = nn.ModuleList(
            _group(c, first, "bottleneck", block_repeats, activation, 0.0) for c in (STEM_CHANNELS, first)
        )
        self.blocks = nn.ModuleDict()
        for n, node in enumerate(nodes[2:], 2):
            if n in needed:
                rate = drop_path * (n - 1) / (len(nodes) - 2)
                resample = nn.ModuleList(Resample(nodes[i], node, resample_alpha, activation) for i in node.parents)
                group = _group(node.channels, node.channels, node.kind, block_repeats, activation, rate)
                self.blocks[f"n{n}"] = PermutedBlock(node, resample, group, activation)
        self.endpoints = nn.ModuleDict()
        for level, n in returned.items():
            self.endpoints[f"p{level}"] = conv(nodes[n].channels, endpoints_channels, 1, 1, activation)
        self._returned = returned
        set_norms(self, norm)
        self._returns(levels, out_indices, frozen_stages)
        if mean and len(set(super().out_channels)) > 1:
            raise ValueError(f"levels {self.out_indices} have {super().out_channels} channels, which have no mean: leave 0 out")

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Channels of the returned maps."""
        return super().out_channels[:1] if self.mean else super().out_channels

    @property
    def out_strides(self) -> tuple[int, ...]:
        """Strides of the returned maps."""
        return (min(super().out_strides),) if self.mean else super().out_strides

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """[B, 3, H, W] -> the levels of `out_indices`, each [B, channels, ceil(H / stride), ceil(W / stride)]."""
        height, width = x.shape[2:]
        first = self.base[0](self.stem(x))
        nodes = {0: first, 1: self.base[1](first)}
        for name, block in self.blocks.items():
            # rounded up, as by convolutions of stride 2
            size = (-(-height // 2**block.level), -(-width // 2**block.level))
            nodes[int(name.removeprefix("n"))] = block(nodes, size)
        maps = {"base": nodes[1]}
        for level, n in self._returned.items():
            maps[f"endpoints.p{level}"] = self.endpoints[f"p{level}"](nodes[n])
        maps = [maps[name] for name in self._out_modules]
        if not self.mean:
            return tuple(maps)
        total, *finer = sorted(maps, key=lambda y: y.shape[2:].numel())
        for y in finer:
            total = y + F.interpolate(total, y.shape[2:], mode="nearest")
        return (total / len(maps),)

    def _up_to(self, module: str) -> list[nn.Module]:
        if module == "base":
            return [self.stem, self.base]
        endpoints = [endpoint for name, endpoint in self.endpoints.items() if f"endpoints.{name}" <= module]
        return [self.stem, self.base, self.blocks, *endpoints]


@schema("spinenet")
def spinenet(spec: Mapping) -> dict:
    """`blocks` and the numbers that scale them, or a `ref` naming a scale; with `retina_head` a detector, else a classifier.

    The head shares convolutions between levels, not norms, as the official one; its activations are mmdet's ReLU, officially
    SiLU.
    """
    match = _REFERENCE.fullmatch(spec["ref"]) if "ref" in spec else None
    if "ref" in spec:
        if match is None or match[1] not in SCALES:
            raise ValueError(f"{spec['ref']!r} names none of SpineNet-{', -'.join(SCALES)}")
        settings = dict(SCALES[match[1]])
    else:
        names = ("blocks", "filter_size", "endpoints_channels", "filter_scale", "resample_alpha", "block_repeats")
        settings = {name: spec[name] for name in names}
    if "retina_head" not in spec:
        modern = match is None or match[1] not in RELU_CLASSIFIERS
        training = dict(drop_path=DROP_PATH) if modern else dict(activation="relu")
        return classifier(dict(type="search.SpineNet", mean=True, **training, **settings), spec)
    backbone = dict(type="search.SpineNet", norm=NORM, drop_path=DROP_PATH, **settings)
    head = dict(
        separate_norms(spec["retina_head"]["channels"], spec["retina_head"]["convs"], NORM),
        in_channels=settings["endpoints_channels"],
    )
    return retinanet(backbone, head, spec["num_classes"])
