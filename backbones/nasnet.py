"""NASNet (arXiv 1707.07012), PNASNet (1712.00559) and AmoebaNet (1802.01548): fixed cells of five pairwise sums.

Wiring and names follow the authors' code: tensorflow/models research/slim/nets/nasnet, and tensorflow/tpu at 7dc921f,
models/official/amoeba_net. What differs:
- strided convolutions and pools are padded alike on both sides (TensorFlow pads even maps at their end); sizes are equal;
- `dsep5`, printed as a dilated separable convolution, is dilated (the TPU code reads its name as an undilated one);
- the network ends in feature maps, which are rectified, because the authors rectify what the classifier pools.

Shapes: B batch, C channels of a cell's states, H and W height and width of the input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from backbones.blocks import conv
from backbones.features import FeatureBackbone
from backbones.fixed_cell import FixedCell, fit, grow_drop_path, pairs
from backbones.operations import ReLUConvNorm, SepConv, avg_pool, max_pool
from backbones.spec import classifier, schema
from search.registry import MODELS

# epsilon of the norms of ImageNet networks; the averages' decay of 0.9997 belongs to the authors' long training
IMAGENET_EPS = 1e-3


def _separable(c_in: int, c_out: int, stride: int, kernel: int, dilation: int = 1) -> nn.Module:
    return SepConv(c_out, stride, kernel, c_in=c_in, dilation=dilation)


def _pool(c_in: int, c_out: int, stride: int, make: Callable[[int, int], nn.Module]) -> nn.Module:
    pool = make(c_in, stride)
    return pool if c_in == c_out else nn.Sequential(pool, conv(c_in, c_out, 1, 1, "identity"))


def _max_pool_2x2(channels: int, stride: int) -> nn.Module:
    pool = nn.MaxPool2d(2, stride, ceil_mode=True)
    # at stride 1 a map keeps its size
    return pool if stride == 2 else nn.Sequential(nn.ConstantPad2d((0, 1, 0, 1), float("-inf")), pool)


def _pointwise(c_in: int, c_out: int, stride: int) -> nn.Module:
    return nn.Sequential(nn.ReLU(), conv(c_in, c_out, 1, stride, "identity"))


def _none(c_in: int, c_out: int, stride: int) -> nn.Module:
    return nn.Identity() if stride == 1 and c_in == c_out else _pointwise(c_in, c_out, stride)


def _bottleneck(c_in: int, c_out: int, stride: int, kernels: Sequence[tuple[int, int]]) -> nn.Module:
    """1x1 to a quarter of the channels, convolutions of `kernels` that share the stride by axis, 1x1."""
    inner = max(1, c_out // 4)
    layers = [nn.ReLU(), conv(c_in, inner)]
    for height, width in kernels:
        steps = (stride if height > 1 else 1, stride if width > 1 else 1)
        middle = nn.Conv2d(inner, inner, (height, width), steps, (height // 2, width // 2), bias=False)
        layers += [middle, nn.BatchNorm2d(inner), nn.ReLU()]
    return nn.Sequential(*layers, conv(inner, c_out, 1, 1, "identity"))


# (channels in, channels out, stride) -> module
OPERATIONS: Mapping[str, Callable[[int, int, int], nn.Module]] = {
    "none": _none,
    "1x1": _pointwise,
    "3x3": partial(_bottleneck, kernels=((3, 3),)),
    "1x7_7x1": partial(_bottleneck, kernels=((1, 7), (7, 1))),
    "sep3": partial(_separable, kernel=3),
    "sep5": partial(_separable, kernel=5),
    "sep7": partial(_separable, kernel=7),
    "dsep5": partial(_separable, kernel=5, dilation=2),
    "avg": partial(_pool, make=avg_pool),
    "max": partial(_pool, make=max_pool),
    "max2": partial(_pool, make=_max_pool_2x2),
}


def nasnet_cell(
    description: Mapping, channels: int, c_current: int, c_previous: int | None, halve_previous: bool, stride: int
) -> FixedCell:
    """A cell of (current, previous): state 0 is the current input after a 1x1 convolution, state 1 the previous one, fitted.

    Without a previous input (`c_previous` None) state 1 is the current one as it is. Every two entries of `operations` and
    `hiddenstate_indices` make a node; states that `used_hiddenstates` doesn't mark are concatenated.
    """
    operations, indices = description["operations"], description["hiddenstate_indices"]
    used = description["used_hiddenstates"]
    if len(operations) != len(indices) or len(used) != 2 + len(operations) // 2:
        raise ValueError(
            f"a cell of {len(operations)} operations needs as many hiddenstate_indices, not {len(indices)}, "
            f"and {2 + len(operations) // 2} used_hiddenstates, not {len(used)}"
        )
    if unknown := set(operations) - set(OPERATIONS):
        raise ValueError(f"operation {sorted(unknown)[0]!r} is none of {', '.join(OPERATIONS)}")
    previous = nn.Identity() if c_previous is None else fit(c_previous, channels, halve_previous)
    widths = [channels, c_current if c_previous is None else channels]

    def edge(source: int, name: str) -> tuple[int, nn.Module]:
        given = source < 2
        return source, OPERATIONS[name](widths[source] if given else channels, channels, stride if given else 1)

    nodes = [[edge(*end) for end in node] for node in pairs(list(zip(indices, operations, strict=True)))]
    ends = {
        state: fit(widths[state], channels, stride > 1, relu=False) if state < 2 else nn.Identity()
        for state, mark in enumerate(used)
        if not mark
    }
    return FixedCell((ReLUConvNorm(c_current, channels), previous), nodes, ends, channels)


@MODELS.register_module()
class NASNet(FeatureBackbone):
    """A stem, normal cells, and a reduction before the cells at `reductions`.

    Args:
        normal: `operations`, `hiddenstate_indices` and `used_hiddenstates` of the normal cell, see `nasnet_cell`.
        reduction: the same of the reduction cell, put in before the cells at `reductions`; None if the normal cells there have
            stride 2 themselves (PNASNet).
        num_conv_filters: C of the cells at first; `filter_scaling_rate` times as many after each reduction.
        num_cells: number of normal cells.
        reductions: by default at 1/3 and 2/3 of them.
        stem: "imagenet" (a 3x3 convolution of stride 2 without padding, then two cells of stride 2, of C / rate^2 and
            C / rate), or "cifar" (a 3x3 convolution).
        stem_multiplier: the stem's convolution has this times 32 channels ("imagenet") or times C ("cifar").
        skip_reduction_layer_input: what the cell after a reduction reads as previous: what the reduction did, rather than the
            reduction's input.
        norm_eps: of all batch norms.
        drop_path: probability of dropping a path in the last cell at the end of training, see `set_progress`.
        out_indices: which levels to return: 0 the stem's convolution, then one per resolution of cells; by default the last.
        frozen_stages: levels up to this one aren't trained.

    Raises ValueError for data that make no cell.
    """

    def __init__(
        self,
        normal: Mapping,
        reduction: Mapping | None = None,
        num_conv_filters: int = 44,
        num_cells: int = 12,
        reductions: Sequence[int] | None = None,
        stem: str = "imagenet",
        stem_multiplier: float = 1.0,
        skip_reduction_layer_input: bool = False,
        filter_scaling_rate: float = 2.0,
        norm_eps: float = 1e-5,
        drop_path: float = 0.0,
        out_indices: Sequence[int] | None = None,
        frozen_stages: int = -1,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        reductions = (num_cells // 3, 2 * num_cells // 3) if reductions is None else tuple(reductions)
        if stem not in ("imagenet", "cifar"):
            raise ValueError(f"stem={stem!r} is neither imagenet nor cifar")
        if sorted(set(reductions) & set(range(num_cells))) != list(reductions):
            raise ValueError(f"reductions={reductions} must be rising indices of the {num_cells} cells")
        if not 0 <= drop_path < 1:
            raise ValueError(f"drop_path={drop_path} is not a probability below 1")
        self.drop_path = drop_path
        stem_channels = int((32 if stem == "imagenet" else num_conv_filters) * stem_multiplier)
        self.stem = nn.Sequential(
            nn.Conv2d(3, stem_channels, 3, 2, 0, bias=False)
            if stem == "imagenet"
            else nn.Conv2d(3, stem_channels, 3, 1, 1, bias=False),
            nn.BatchNorm2d(stem_channels),
        )
        self.cells = nn.ModuleList()
        # whether a cell reads as previous what the cell before it did
        self._again: list[bool] = []
        halvings = 1 if stem == "imagenet" else 0
        levels = [dict(channels=stem_channels, stride=2**halvings, module="stem")]
        # (channels, halvings of the input) of what a cell may read
        previous, before, current = None, None, (stem_channels, halvings)
        for description, scale, stride, again in _sequence(
            normal, reduction, num_cells, reductions, 2 if stem == "imagenet" else 0, skip_reduction_layer_input
        ):
            previous = previous if again else before
            gap = 0 if previous is None else current[1] - previous[1]
            if gap > 1:
                raise ValueError(
                    f"cell {len(self.cells)} would read a map {2**gap} times its size: put reductions further apart"
                )
            channels = int(num_conv_filters * filter_scaling_rate**scale)
            cell = nasnet_cell(description, channels, current[0], previous and previous[0], gap == 1, stride)
            before, current = current, (cell.out_channels, current[1] + (stride > 1))
            if stride > 1 or len(levels) == 1:
                levels.append({})
            levels[-1] = dict(channels=cell.out_channels, stride=2 ** current[1], module=f"cells.{len(self.cells)}")
            self.cells.append(cell)
            self._again.append(again)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = norm_eps
        self._returns(levels, out_indices, frozen_stages)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """[B, 3, H, W] -> the levels of `out_indices`, rectified, each [B, channels, ceil(H' / stride'), ceil(W' / stride')].

        H', W' and stride' are those of the stem's map: [(H - 1) // 2, (W - 1) // 2] at stride 2 for "imagenet".
        """
        features = {"stem": self.stem(x)}
        previous = before = current = features["stem"]
        for index, (cell, again) in enumerate(zip(self.cells, self._again, strict=True)):
            previous = previous if again else before
            before, current = current, cell(current, previous)
            if f"cells.{index}" in self._out_modules:
                features[f"cells.{index}"] = current
        return tuple(F.relu(features[name]) for name in self._out_modules)

    def set_progress(self, fraction: float) -> None:
        """Training has come this far (0 to 1): drop path grows linearly with it, and with depth, to its final probability."""
        grow_drop_path(self.cells, self.drop_path * fraction)


def _sequence(normal: Mapping, reduction: Mapping | None, cells: int, reductions: Sequence[int], stems: int, skip: bool):
    """For each cell its description, its scale as a power of the rate, its stride, whether it reads the same previous again."""
    for s in range(stems):
        yield normal if reduction is None else reduction, s - stems, 2, False
    for index in range(cells):
        scale = sum(r <= index for r in reductions)
        reduces = index in reductions
        if reduction is None:
            yield normal, scale, 2 if reduces else 1, reduces and not skip
            continue
        if reduces:
            yield reduction, scale, 2, False
        yield normal, scale, 1, reduces and skip


@schema("slim_cell")
def slim_cell(spec: Mapping) -> dict:
    """`cell` with the `normal` and `reduction` descriptions (null in PNASNet) and the authors' hyper-parameters."""
    cells = spec["cell"]
    if (cells["reduction"] is None) != spec["pnas_style_reduction"]:
        raise ValueError("a slim_cell specification has a reduction cell, or pnas_style_reduction, not both or neither")
    backbone = dict(
        type="search.NASNet",
        normal=cells["normal"],
        reduction=cells["reduction"],
        num_conv_filters=spec["num_conv_filters"],
        num_cells=spec["num_cells"],
        reductions=spec["reduction_positions"],
        stem=spec["stem"],
        stem_multiplier=spec["stem_multiplier"],
        skip_reduction_layer_input=bool(spec["skip_reduction_layer_input"]),
        filter_scaling_rate=spec["filter_scaling_rate"],
        norm_eps=IMAGENET_EPS if spec["stem"] == "imagenet" else 1e-5,
    )
    return classifier(backbone, spec)
