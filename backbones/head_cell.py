"""A detection head's cell, searched by gradients, in an Auto-FPN-style search (see auto_fpn.py: all but the idea is ours).

It stands in the place of a head's convolutions, over a level of the pyramid or over the maps of regions. Candidates are those
of the fusion cells; each node keeps one input, so that a cell can be a row of operations, and all nodes are concatenated. Norms
are group norms, because one head reads maps of all levels, whose statistics differ, and one image or many.

The batched plan runs all separable candidates that leave a state together, as with batch norms, where norms have no scale and
shift (a search); with them each candidate runs as the module it is, and nothing is gained but by `memory="small"`. Under the
Triton plan the normalised sums and the nodes are kernels; heads have no fused operation.

Shapes: B batch, C channels, H and W height and width.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from backbones.auto_fpn import fusion_candidates
from search.registry import MODELS
from search.space import Architecture
from search.supernet import MixedDag, reading

# of a group norm
GROUP = 8


@MODELS.register_module()
class HeadCell(nn.Module):
    """A searchable part of a detection head: [B, in_channels, H, W] -> [B, channels, H, W]; narrow with `arch`.

    Choices: `<part>/n<j>/inputs` and `<part>/n<j><-<i>`, where state 0 is the head's input, brought to C channels.

    Args:
        in_channels: of the head's input.
        channels: C.
        nodes: of the cell.
        affine: norms with scale and shift (derived networks); without in a search.
        partial: K of partial channels while searching; a derived network uses all channels.
        plan, memory: how the supernet's cell is executed, see `MixedDag`.
        arch: an architecture, its file, or None to be read by the building context.
        part: the name this module's choices go by in an architecture file, and begin with.

    Raises ValueError for an architecture of another space and for settings that can't be.
    """

    def __init__(
        self,
        in_channels: int = 256,
        channels: int = 256,
        nodes: int = 2,
        affine: bool = True,
        partial: int = 1,
        plan: str = "reference",
        memory: str = "fast",
        arch: Architecture | Mapping | str | os.PathLike | None = None,
        part: str = "head",
    ) -> None:
        super().__init__()
        self.affine = affine
        self.out_channels = channels
        self.lateral = _project(in_channels, channels)
        made = {name: _with_group_norms(make) for name, make in fusion_candidates(affine).items()}
        with reading(part, arch) as pick:
            self.cell = MixedDag(
                pick,
                part,
                made,
                channels=channels,
                inputs=1,
                nodes=nodes,
                keep=1,
                partial_channels=partial,
                plan=plan,
                memory=memory,
            )
        self.output = nn.Sequential(_project(nodes * channels, channels), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return self.output(torch.cat(self.cell(self.lateral(x)), dim=1))

    def without_counterpart(self) -> list[str]:
        """Parameters that a supernet of this class doesn't have: affine norms in the cell."""
        norms = [name for name, m in self.cell.named_modules(prefix="cell") if isinstance(m, nn.GroupNorm)]
        return [f"{name}.{kind}" for name in norms for kind in ("weight", "bias")] if self.affine else []


def _project(c_in: int, channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(c_in, channels, 1, bias=False), _group_norm(channels, affine=True))


def _group_norm(channels: int, affine: bool) -> nn.GroupNorm:
    return nn.GroupNorm(channels // math.gcd(channels, GROUP), channels, affine=affine)


def _with_group_norms(make: Callable[[int, int], nn.Module]) -> Callable[[int, int], nn.Module]:
    """A candidate with a group norm in the place of every batch norm."""

    def made(channels: int, stride: int) -> nn.Module:
        module = make(channels, stride)
        for parent in list(module.modules()):
            for name, child in parent.named_children():
                if isinstance(child, nn.BatchNorm2d):
                    setattr(parent, name, _group_norm(child.num_features, child.affine))
        return module

    return made
