"""DPC, the dense prediction cell (arXiv 1809.04184): a searched context module on a backbone's last map.

Section 3: each of B = 5 branches applies one of 81 operations to the backbone's map or to an earlier branch's output; the
branches are concatenated. Which makes B! x 81^B = 4.2 x 10^11 cells. Official code, of found cells only: tensorflow/models,
research/deeplab/core/dense_prediction_cell.py@52e29527. What differs:
- pyramid pooling averages over the cells of a grid, as the paper says; the official code averages over windows of a grid cell's
  size at every position, and brings fewer rows and columns than the map's back to its size;
- paddings are torch's, symmetric ones, which for odd kernels of stride 1 are the same.

Its operations end with ReLU, so their sum can't be made of the norms' inputs, and plans of execution run each as the module it
is. With partial channels a node's sum, concatenation and shuffle are one operation; `memory="small"` keeps for
backward the cell's input alone; otherwise time and bytes are the reference plan's.

Shapes: B batch, H and W height and width of the backbone's map.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial as bind

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from backbones.heads import segmentor
from backbones.operations import set_norms
from backbones.published import find
from backbones.spec import model_config, schema
from search.registry import MODELS
from search.space import Architecture
from search.supernet import MixedDag, reading

RATES = (1, 3, 6, 9, 12, 15, 18, 21)
GRIDS = (1, 2, 4, 8)
# of the official code
NORM = dict(eps=1e-5, momentum=3e-4)
# how rows of tables say what is below the cell
_BACKBONE = re.compile(r"(MobileNetV2 [\d.]+), output stride (\d+) \(no stage-7 head\)")


def conv_norm(c_in: int, channels: int, affine: bool, kernel: int = 1, rate: tuple[int, int] = (1, 1)) -> nn.Sequential:
    """Convolution, norm, ReLU at the map's size; kernels above 1 are depthwise."""
    padding = tuple(r * (kernel // 2) for r in rate)
    groups = 1 if kernel == 1 else c_in
    conv = nn.Conv2d(c_in, channels, kernel, padding=padding, dilation=rate, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels, affine=affine), nn.ReLU())


def pointwise(channels: int, stride: int, *, affine: bool, c_in: int | None = None) -> nn.Sequential:
    """A 1x1 convolution."""
    return conv_norm(c_in or channels, channels, affine)


class AtrousSeparable(nn.Sequential):
    """Depthwise 3x3 of rates (height, width), pointwise; each with norm and ReLU. [B, c_in, H, W] -> [B, channels, H, W]."""

    def __init__(
        self, channels: int, stride: int, *, rate: tuple[int, int], affine: bool = True, c_in: int | None = None
    ) -> None:
        c_in = c_in or channels
        super().__init__(conv_norm(c_in, c_in, affine, 3, rate), conv_norm(c_in, channels, affine))


class GridPool(nn.Module):
    """Means over a (height, width) grid, 1x1 convolution, bilinear resizing. [B, c_in, H, W] -> [B, channels, H, W]."""

    def __init__(
        self, channels: int, stride: int, *, grid: tuple[int, int], affine: bool = True, c_in: int | None = None
    ) -> None:
        super().__init__()
        self.grid = grid
        self.conv = conv_norm(c_in or channels, channels, affine)

    def forward(self, x: Tensor) -> Tensor:
        """Pool, convolve, resize with aligned corners."""
        pooled = self.conv(F.adaptive_avg_pool2d(x, self.grid))
        return F.interpolate(pooled, x.shape[2:], mode="bilinear", align_corners=True)


def candidates(
    affine: bool, rates: Sequence[int] = RATES, grids: Sequence[int] = GRIDS, rate_multiplier: int = 1
) -> Mapping[str, Callable[..., nn.Module]]:
    """The operations by name, each (channels, stride, c_in=) -> module: 1 + len(rates)^2 + len(grids)^2 of them."""
    made: dict[str, Callable[..., nn.Module]] = {"conv_1x1": bind(pointwise, affine=affine)}
    for h in rates:
        for w in rates:
            rate = (h * rate_multiplier, w * rate_multiplier)
            made[atrous_name(h, w)] = bind(AtrousSeparable, rate=rate, affine=affine)
    for h in grids:
        for w in grids:
            made[pool_name(h, w)] = bind(GridPool, grid=(h, w), affine=affine)
    return made


def atrous_name(height: int, width: int) -> str:
    """The name of the atrous separable convolution of these rates."""
    return f"atrous_3x3_rate_{height}x{width}"


def pool_name(height: int, width: int) -> str:
    """The name of the pyramid pooling with a grid of so many cells."""
    return f"pool_grid_{height}x{width}"


@MODELS.register_module()
class DensePredictionCell(BaseModule):
    """A searchable neck: puts the cell's output in the place of one of the backbone's maps; narrow with `arch`.

    The backbone's map is state 0 of a `MixedDag`, branch i state i, and each branch keeps one input. Branches are concatenated,
    then a 1x1 convolution brings them to `channels`.

    Args:
        in_channels: of all maps that the backbone gives.
        in_index: the map that the cell reads and replaces; the others are passed on.
        channels: of each branch and of the output.
        branches: B.
        rates: heights and widths that rates of the atrous convolutions may have; the paper's by default.
        grids: heights and widths that grids of the pyramid pooling may have; the paper's by default.
        rate_multiplier: of the rates, 2 where the map has stride 8 instead of 16 (official code).
        dropout: of the concatenated branches, for single features.
        affine: branches' norms with scale and shift (derived networks); without in a search.
        norm: `eps` and `momentum` of all batch norms, by default torch's.
        partial: K of partial channels while searching; a derived network uses all channels.
        plan, memory: how the supernet's cell is executed, see `MixedDag`.
        arch: an architecture, its file, or None to be read by the building context.
        part: the name this module's choices go by in an architecture file.
        init_cfg: mmengine's initialisation; by default torch's own.

    Raises ValueError for an architecture of another space, for settings that can't be, and in a forward for a map of other
    channels than `in_channels` says.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        in_index: int = -1,
        channels: int = 256,
        branches: int = 5,
        rates: Sequence[int] = RATES,
        grids: Sequence[int] = GRIDS,
        rate_multiplier: int = 1,
        dropout: float = 0.1,
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
        for name, values in (
            ("rates", rates),
            ("grids", grids),
            ("branches", [branches]),
            ("rate_multiplier", [rate_multiplier]),
        ):
            _require_counts(name, values)
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout={dropout} is not a probability below 1")
        self.in_channels = tuple(in_channels)
        if not -len(self.in_channels) <= in_index < len(self.in_channels):
            raise ValueError(f"in_index={in_index}, but in_channels={list(in_channels)} are of {len(self.in_channels)} maps")
        self.in_index = in_index % len(self.in_channels)
        self.affine = affine
        self.channels = channels
        with reading(part, arch) as pick:
            self.dag = MixedDag(
                pick,
                "dpc",
                candidates(affine, rates, grids, rate_multiplier),
                channels=channels,
                inputs=1,
                nodes=branches,
                keep=1,
                given_channels=[self.in_channels[self.in_index]],
                relax_only=(),
                partial_channels=partial,
                plan=plan,
                memory=memory,
            )
        self.dropout = nn.Dropout(dropout)
        self.project = conv_norm(branches * channels, channels, affine=True)
        set_norms(self, norm)

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Channels of the maps that are passed on."""
        return tuple(self.channels if i == self.in_index else c for i, c in enumerate(self.in_channels))

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The backbone's maps, each [B, in_channels, H, W] -> the same, the one at `in_index` [B, channels, H, W]."""
        found = tuple(x.shape[1] for x in maps)
        if found != self.in_channels:
            raise ValueError(f"in_channels={list(self.in_channels)} of the neck, but the backbone's maps have {list(found)}")
        context = self.project(self.dropout(torch.cat(self.dag(maps[self.in_index]), dim=1)))
        return tuple(context if i == self.in_index else x for i, x in enumerate(maps))

    def without_counterpart(self) -> list[str]:
        """Parameters that a supernet of this class doesn't have: affine norms in branches."""
        norms = [name for name, m in self.dag.named_modules(prefix="dag") if isinstance(m, _BatchNorm)]
        return [f"{name}.{kind}" for name in norms for kind in ("weight", "bias")] if self.affine else []


def _require_counts(name: str, values: Sequence[int]) -> None:
    wrong = [v for v in values if not isinstance(v, int) or isinstance(v, bool) or v < 1]
    if wrong or len(set(values)) < len(values):
        raise ValueError(f"{name}={values!r} must be positive whole numbers, each once")


@schema("dpc")
def dpc(spec: Mapping) -> dict:
    """`cell` in the official code's form; `backbone` in words, which mean MobileNetV2 without its last 1x1 convolution."""
    named = _BACKBONE.fullmatch(spec["backbone"])
    if named is None:
        raise ValueError(f"backbone {spec['backbone']!r} must read like 'MobileNetV2 1.0, output stride 16 (no stage-7 head)'")
    backbone = model_config(find(f"{named[1]} @224")["spec"])["backbone"] | dict(output_stride=int(named[2]))
    del backbone["last"]
    neck = dict(
        type="search.DensePredictionCell",
        in_channels=[backbone["stages"][-1]["channels"]],
        branches=len(spec["cell"]),
        rate_multiplier=16 // int(named[2]),
        norm=NORM,
        arch=found_architecture(spec["cell"]),
    )
    head = dict(
        type="mmseg.FCNHead",
        in_channels=256,
        channels=256,
        # the logits' 1x1 convolution alone
        num_convs=0,
        concat_input=False,
        dropout_ratio=0.0,
        align_corners=True,
    )
    return segmentor(backbone, head, spec["num_classes"], neck)


def found_architecture(cell: Sequence[Mapping]) -> dict:
    """The choices of `DensePredictionCell` that a cell of the official code's form is, there -1 is the backbone's map.

    Raises ValueError for an operation that the space doesn't have, and for a branch that reads no earlier one.
    """
    choices: dict = {}
    for number, branch in enumerate(cell):
        source = branch["input"] + 1
        if not 0 <= source <= number:
            raise ValueError(f"branch {number} reads {branch['input']}, which is neither -1 nor an earlier branch")
        choices[f"dpc/n{number + 1}/inputs"] = (source,)
        choices[f"dpc/n{number + 1}<-{source}"] = _operation(branch)
    return choices


def _operation(branch: Mapping) -> str:
    kind, kernel = branch.get("op", "conv"), branch.get("kernel")
    if kind == "pyramid_pooling":
        return pool_name(*branch["grid_size"])
    if kind == "conv" and kernel in (1, [1, 1]):
        return "conv_1x1"
    if kind == "conv" and kernel in (3, [3, 3]):
        return atrous_name(*branch["rate"])
    raise ValueError(f"operation {kind!r} with kernel {kernel!r} isn't one of this space")
