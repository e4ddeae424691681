"""A cell of Auto-DeepLab's trellis (arXiv 1901.02985, sections 3.1 to 3.3): one node, which a layer reaches at one stride.

Where the network that the authors published (tensorflow/models, research/deeplab/core/nas_cell.py) differs from the search that
the paper describes, there are two *layouts* (`LAYOUTS`).

Shapes: B batch, C channels of a block of the cell, H and W height and width at the cell's stride.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial as bind

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.operations import DilConv, ReLUConvNorm, SepConv, avg_pool, max_pool
from search.supernet import MixedDag, Pick, Zero

# how a cell's inputs come to its stride, see `TrellisCell`
LAYOUTS = ("search", "published")
ATROUS = ("full", "depthwise")
RATE = 2

# height and width of a map
Size = tuple[int, int]


class Halve(nn.Module):
    """Bilinear resizing to half the resolution, corners aligned. [B, C, H, W] -> [B, C, ceil(H / 2), ceil(W / 2)]."""

    def forward(self, x: Tensor) -> Tensor:
        """Resize."""
        return resized(x, (-(-x.shape[2] // 2), -(-x.shape[3] // 2)))


def resized(x: Tensor, size: Size) -> Tensor:
    """Bilinear resizing with aligned corners, as the official code does; nothing where x has that size."""
    return x if x.shape[2:] == size else F.interpolate(x, size, mode="bilinear", align_corners=True)


def atrous_conv(channels: int, stride: int, kernel: int, affine: bool = True) -> nn.Sequential:
    """ReLU, a full convolution of rate 2, norm; at stride 2 resized by half first, with rate 1 (official code).

    The paper's table says "atrous convolution"; the published network's parameters show that it isn't depthwise.
    """
    rate = RATE if stride == 1 else 1
    conv = nn.Conv2d(channels, channels, kernel, padding=rate * (kernel // 2), dilation=rate, bias=False)
    layers = [nn.ReLU(), conv, nn.BatchNorm2d(channels, affine=affine)]
    return nn.Sequential(*layers[:1], *([Halve()] if stride == 2 else []), *layers[1:])


def skip(channels: int, stride: int, affine: bool = True) -> nn.Module:
    """Identity; at stride 2 ReLU, 1x1 convolution, norm (official code)."""
    if stride == 1:
        return nn.Identity()
    conv = nn.Conv2d(channels, channels, 1, stride, bias=False)
    return nn.Sequential(nn.ReLU(), conv, nn.BatchNorm2d(channels, affine=affine))


def candidates(affine: bool, atrous: str = "full") -> Mapping[str, Callable[[int, int], nn.Module]]:
    """The eight candidates in the order of the paper's table (it decides ties), each (channels, stride) -> module.

    `atrous`: "full" as the published network's convolutions, or "depthwise", what the open search code
    (NoamRosenberg/autodeeplab) has in their place. Without affine norms (the search) pools are followed by a norm.
    """
    dilated = atrous_conv if atrous == "full" else DilConv
    return {
        "sep_conv_3x3": bind(SepConv, kernel=3, affine=affine),
        "sep_conv_5x5": bind(SepConv, kernel=5, affine=affine),
        "atrous_conv_3x3": bind(dilated, kernel=3, affine=affine),
        "atrous_conv_5x5": bind(dilated, kernel=5, affine=affine),
        "avg_pool_3x3": bind(avg_pool, affine=affine),
        "max_pool_3x3": bind(max_pool, affine=affine),
        "skip_connect": bind(skip, affine=affine),
        "none": lambda channels, stride: Zero(stride),
    }


class TrellisCell(nn.Module):
    """The cell at one node (layer, stride s): for every incoming stride its blocks' concatenation, weighted and summed (eq. 6).

    The cell runs once for each incoming stride, never on a mixture of them. Its operations, with their weights and norms, are
    the same for all of these; each incoming stride has a preprocessing of its own. The paper doesn't say whether they are
    shared; the open search code does it so.

    H^{l-1} is the last layer's map, H^{l-2} the one before. Layouts:
        "search": the paper's. H^{l-1} comes to stride s by a 3x3 convolution of stride 2 from s/2 (the paper says no kernel),
            by a 1x1 from s, by bilinear upsampling and a 1x1 from 2s. H^{l-2} is that of stride s; where no such map exists, or
            none runs, the edges that leave it are left out, as in the open search code (the paper has no rule).
        "published": the official code's. Both inputs come to the finer of s and H^{l-1}'s stride, each by bilinear resizing
            and a 1x1; from s/2 the operations on them have stride 2, and are others than those of stride 1. H^{l-2} is the
            running map nearest to that stride (of two the finer): in a derived network the one on its path.

    Args:
        candidates: see `candidates`.
        stride, channels: s and C.
        last, before_last: channels of the maps that H^{l-1} and H^{l-2} can be, by their strides.
        layout: one of `LAYOUTS`.
        blocks, partial, plan, memory: see `MixedDag`.
    """

    def __init__(
        self,
        pick: Pick,
        candidates: Mapping[str, Callable[[int, int], nn.Module]],
        *,
        stride: int,
        channels: int,
        last: Mapping[int, int],
        before_last: Mapping[int, int],
        layout: str,
        blocks: int,
        affine: bool,
        partial: int,
        plan: str,
        memory: str,
    ) -> None:
        super().__init__()
        self.stride = stride
        self.published = layout == "published"
        self.before_last = nn.ModuleDict({f"s{s}": ReLUConvNorm(c, channels, affine) for s, c in before_last.items()})
        self.last = nn.ModuleDict()
        for s, c in last.items():
            halving = s < stride and not self.published
            self.last[f"s{s}"] = _halving(c, channels, affine) if halving else ReLUConvNorm(c, channels, affine)
        make = bind(
            MixedDag,
            pick,
            "cell",
            candidates,
            channels=channels,
            nodes=blocks,
            absent=() if before_last else (0,),
            # also at stride 2, where it is a convolution
            never_dropped=("skip_connect",),
            partial_channels=partial,
            plan=plan,
            memory=memory,
        )
        # by the stride of the edges that leave the two inputs
        steps = sorted({2 if self.published and s < stride else 1 for s in last})
        self.dags = nn.ModuleDict({f"stride{step}": make(stride=step) for step in steps})
        self.out_channels = blocks * channels

    def forward(
        self,
        last: Sequence[tuple[int, Tensor, Tensor | None]],
        before_last: Mapping[int, Tensor],
        sizes: Mapping[int, Size],
    ) -> Tensor:
        """[B, blocks * C, H, W] of the running maps.

        last: (stride, map, the move's weight; None is 1) of each incoming one. before_last: maps by stride. sizes: of a map of
        each stride.
        """
        # by the stride that the inputs come to: state 1 of each pass, and the move's weight
        passes: dict[int, list[tuple[Tensor, Tensor | None]]] = {}
        for source, x, weight in last:
            at = min(source, self.stride) if self.published else self.stride
            # a convolution of stride 2 brings it here from a finer stride
            x = self.last[f"s{source}"](x if source < self.stride else resized(x, sizes[at]))
            passes.setdefault(at, []).append((x, weight))
        total = None
        for at, inputs in passes.items():
            dag = self.dags[f"stride{2 if at < self.stride else 1}"]
            before = self._before_last(before_last, at, sizes[at])
            for nodes, (_, weight) in zip(dag.passes([(before, x) for x, _ in inputs]), inputs, strict=True):
                y = torch.cat(nodes, dim=1)
                y = y if weight is None else weight * y
                total = y if total is None else total + y
        assert total is not None, "a cell that no move reaches"
        return total

    def _before_last(self, maps: Mapping[int, Tensor], at: int, size: Size) -> Tensor | None:
        """State 0 at stride `at`, or None where the layout has none."""
        if self.published:
            nearest = min(maps, key=lambda s: (max(s, at) / min(s, at), s))
        elif at in maps and f"s{at}" in self.before_last:
            nearest = at
        else:
            return None
        return self.before_last[f"s{nearest}"](resized(maps[nearest], size))


def _halving(c_in: int, c_out: int, affine: bool) -> nn.Sequential:
    conv = nn.Conv2d(c_in, c_out, 3, stride=2, padding=1, bias=False)
    return nn.Sequential(nn.ReLU(), conv, nn.BatchNorm2d(c_out, affine=affine))
