"""An Auto-FPN-style neck: for every level of a feature pyramid a fusion cell of its own, searched by gradients.

After H. Xu et al., "Auto-FPN: Automatic Network Architecture Adaptation for Object Detection Beyond Classification", ICCV
2019. Of its search space the abstract alone is public, and no code: features of several levels are fused by searched
operations in place of the FPN's sums, and cells needn't repeat. All the rest is ours, so a network of this space reproduces
nothing of the paper:
- every level has a cell, a `MixedDag` whose given states are all fused levels' maps at that level's size;
- candidates are depthwise separable convolutions of 3x3 and 5x5, dilated ones of rate 2, the identity and none;
- each node keeps two inputs; a cell's nodes are concatenated and a 1x1 convolution brings them back to the pyramid's channels.

Shapes: B batch, C channels of the pyramid, H and W height and width of a level.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial as bind

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from backbones.merging_cell import resample
from backbones.nas_fpn import FIRST_LEVEL
from backbones.operations import DilConv, SepConv, set_norms, skip
from search.registry import MODELS
from search.space import Architecture
from search.supernet import MixedDag, Zero, reading

NAME = "fusion"


def fusion_candidates(affine: bool) -> Mapping[str, Callable[[int, int], nn.Module]]:
    """The candidates in the order that decides ties, each (channels, stride) -> module."""
    return {
        "none": lambda channels, stride: Zero(stride),
        "skip_connect": bind(skip, affine=affine),
        "sep_conv_3x3": bind(SepConv, kernel=3, affine=affine),
        "sep_conv_5x5": bind(SepConv, kernel=5, affine=affine),
        "dil_conv_3x3": bind(DilConv, kernel=3, affine=affine),
        "dil_conv_5x5": bind(DilConv, kernel=5, affine=affine),
    }


@MODELS.register_module()
class AutoFPN(BaseModule):
    """A searchable neck: a pyramid of `num_outs` levels from a backbone's maps; narrow with `arch`.

    The first `fused` levels are fused: those that the backbone doesn't have are its last one's, pooled. The other levels are
    the coarsest fused one's, pooled. Choices: `fusion_p<level>/n<j>/inputs` and `fusion_p<level>/n<j><-<i>`, where states 0
    to `fused` - 1 are the levels, from the finest.

    Args:
        in_channels: of all maps that the backbone gives.
        channels: C.
        fused: levels that are fused, 4 by default.
        nodes: of a cell.
        start_level: the first map that is read; the maps from it on are the finest levels.
        num_outs: levels that are returned.
        affine: cells' norms with scale and shift (derived networks); without in a search.
        norm: `eps` and `momentum` of all batch norms, by default torch's.
        partial: K of partial channels while searching; a derived network uses all channels.
        plan, memory: how the supernet's cells are executed, see `MixedDag`.
        arch: an architecture, its file, or None to be read by the building context.
        part: the name this module's choices go by in an architecture file.
        init_cfg: mmengine's initialisation; by default torch's own.

    Raises ValueError for an architecture of another space, for settings that can't be, and in a forward for a map of other
    channels than `in_channels` says.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int = 256,
        fused: int = 4,
        nodes: int = 2,
        start_level: int = 0,
        num_outs: int = 5,
        affine: bool = True,
        norm: Mapping | None = None,
        partial: int = 1,
        plan: str = "reference",
        memory: str = "fast",
        arch: Architecture | Mapping | str | os.PathLike | None = None,
        part: str = "neck",
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        _require_settings(in_channels, start_level, fused, num_outs)
        self.in_channels, self.channels, self.start_level, self.affine = tuple(in_channels), channels, start_level, affine
        taken = self.in_channels[start_level:]
        self.levels = tuple(range(FIRST_LEVEL, FIRST_LEVEL + fused))
        self.num_outs = num_outs
        self.laterals = nn.ModuleDict(
            {f"p{level}": _project(c, channels) for level, c in zip(self.levels, taken, strict=False)}
        )
        with reading(part, arch) as pick:
            self.cells = nn.ModuleDict(
                {
                    f"p{level}": MixedDag(
                        pick,
                        f"{NAME}_p{level}",
                        fusion_candidates(affine),
                        channels=channels,
                        inputs=fused,
                        nodes=nodes,
                        partial_channels=partial,
                        plan=plan,
                        memory=memory,
                    )
                    for level in self.levels
                }
            )
        self.outputs = nn.ModuleDict({f"p{level}": _project(nodes * channels, channels) for level in self.levels})
        set_norms(self, norm)

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Channels of the levels."""
        return (self.channels,) * self.num_outs

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The backbone's maps, each [B, in_channels, H, W] -> `num_outs` levels, each [B, C, H, W], H halved and rounded up."""
        found = tuple(x.shape[1] for x in maps)
        if found != self.in_channels:
            raise ValueError(f"in_channels={list(self.in_channels)} of the neck, but the backbone's maps have {list(found)}")
        given: dict[int, Tensor] = {}
        read = dict(zip(self.levels, maps[self.start_level :], strict=False))
        for level in self.levels:
            given[level] = self.laterals[f"p{level}"](read[level]) if level in read else _halved(given[level - 1])
        levels = []
        for level in self.levels:
            size = (given[level].shape[2], given[level].shape[3])
            nodes = self.cells[f"p{level}"](*(resample(x, own, level, size) for own, x in given.items()))
            levels.append(self.outputs[f"p{level}"](torch.cat(nodes, dim=1)))
        while len(levels) < self.num_outs:
            levels.append(_halved(levels[-1]))
        return tuple(levels)

    def without_counterpart(self) -> list[str]:
        """Parameters that a supernet of this class doesn't have: affine norms in cells."""
        norms = [name for name, m in self.cells.named_modules(prefix="cells") if isinstance(m, _BatchNorm)]
        return [f"{name}.{kind}" for name in norms for kind in ("weight", "bias")] if self.affine else []


def _project(c_in: int, channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(c_in, channels, 1, bias=False), nn.BatchNorm2d(channels))


def _halved(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 2, 2, ceil_mode=any(n % 2 for n in x.shape[2:]))


def _require_settings(in_channels: Sequence[int], start_level: int, fused: int, num_outs: int) -> None:
    maps = len(in_channels)
    if not 0 <= start_level < maps:
        raise ValueError(f"start_level={start_level}, but in_channels={list(in_channels)} are of {maps} maps")
    if not max(2, maps - start_level) <= fused <= num_outs:
        raise ValueError(
            f"fused={fused} must be from 2 to num_outs={num_outs}, and no fewer than the {maps - start_level} maps "
            "that are read"
        )
