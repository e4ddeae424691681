"""Networks of ENAS (arXiv 1802.03268), section 3.2: its micro space's two cells, its macro space's layers with skips.

Wiring follows the authors' code, melodyguan/enas at 4bcfd73, src/cifar10/micro_child.py and general_child.py, for a fixed
architecture ("fixed arc", whole channels). What differs:
- strided pools and convolutions are padded alike on both sides (TensorFlow pads even maps at their end); sizes are equal;
- a macro network's reduction that no later layer reads isn't built;
- the auxiliary head is DARTS', whose last convolution isn't padded.

Shapes: B batch, C channels, H and W height and width of the input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.cell_net import CellBackbone, doubling
from backbones.features import FeatureBackbone
from backbones.fixed_cell import FixedCell, fit, grow_drop_path, pairs
from backbones.operations import FactorizedReduce, ReLUConvNorm, SepConv, avg_pool, max_pool
from backbones.spec import classifier, schema
from search.registry import MODELS


def _identity(channels: int, stride: int) -> nn.Module:
    return fit(channels, channels, stride > 1, relu=False)


# by their number in an arc, (channels, stride) -> module
MICRO_OPERATIONS: Mapping[str, Callable[[int, int], nn.Module]] = {
    "sep_conv_3x3": partial(SepConv, kernel=3),
    "sep_conv_5x5": partial(SepConv, kernel=5),
    "avg_pool_3x3": avg_pool,
    "max_pool_3x3": max_pool,
    "identity": _identity,
}
# of the macro operations, by number: the authors' fixed layers make full convolutions of the separable ones, 1 and 3, too
MACRO_KERNELS = (3, 3, 5, 5)


def micro_cell(
    arc: Sequence[int], c_before_last: int, c_last: int, channels: int, *, reduction: bool, after_reduction: bool
) -> FixedCell:
    """A cell of an arc: four numbers a node, (state, operation) twice. States nobody reads are concatenated.

    State 0 is the output of the cell before last, fitted; state 1 that of the last, fitted where its channels differ and then
    through a 1x1 convolution.
    """
    if len(arc) % 4 or not arc or not all(0 <= op < len(MICRO_OPERATIONS) for op in arc[1::2]):
        raise ValueError(f"an arc has (state, operation 0 to {len(MICRO_OPERATIONS) - 1}) twice a node, unlike {list(arc)}")
    make = list(MICRO_OPERATIONS.values())
    stride = 2 if reduction else 1
    nodes = [
        [(state, make[op](channels, stride if state < 2 else 1)) for state, op in node] for node in pairs(pairs(list(arc)))
    ]
    unread = sorted(set(range(2 + len(nodes))) - set(arc[::2]))
    ends = {state: _identity(channels, stride) if state < 2 else nn.Identity() for state in unread}
    base = nn.Sequential(fit(c_last, channels, False), ReLUConvNorm(channels, channels))
    return FixedCell((fit(c_before_last, channels, after_reduction), base), nodes, ends, channels)


@MODELS.register_module()
class ENASMicro(CellBackbone):
    """A CIFAR stem of 3 C channels and cells; the maps returned are rectified, as the authors do before pooling.

    Args:
        normal_arc, reduce_arc: the cells, see `micro_cell`.
        out_filters: C of the first cells; twice as many after each reduction.
        layers: number of cells, reductions included.
        reductions: indices of the reduction cells.
        auxiliary: an auxiliary classifier of `num_classes` after the cell that follows the last reduction.
        drop_path: probability of dropping a path in the last cell at the end of training.
        out_indices: which levels to return: 0 the stem, then a level per resolution; by default the last.
        frozen_stages: levels up to this one aren't trained.

    Raises ValueError for an arc that makes no cell and for settings that contradict each other.
    """

    def __init__(
        self,
        normal_arc: Sequence[int],
        reduce_arc: Sequence[int],
        out_filters: int = 36,
        layers: int = 17,
        reductions: Sequence[int] = (5, 11),
        auxiliary: bool = False,
        num_classes: int | None = None,
        drop_path: float = 0.0,
        out_indices: Sequence[int] | None = None,
        frozen_stages: int = -1,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)

        def make(*widths: int, reduction: bool, after_reduction: bool) -> FixedCell:
            arc = reduce_arc if reduction else normal_arc
            return micro_cell(arc, *widths, reduction=reduction, after_reduction=after_reduction)

        self._assemble(
            make,
            doubling(out_filters, layers, reductions),
            3 * out_filters,
            stem="cifar",
            reductions=tuple(reductions),
            aux_after=max(reductions, default=-1) + 1 if auxiliary else None,
            num_classes=num_classes,
            drop_path=drop_path,
            out_indices=out_indices,
            frozen_stages=frozen_stages,
        )

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """[B, 3, H, W] -> the levels of `out_indices`, rectified, each [B, channels, H / stride, W / stride]."""
        return tuple(F.relu(y) for y in super().forward(x))

    def set_progress(self, fraction: float) -> None:
        """Training has come this far (0 to 1): drop path grows linearly with it, and with depth, to its final probability."""
        grow_drop_path(self.cells, self.drop_path * fraction)


class MacroLayer(nn.Module):
    """(ReLU, convolution, norm): 1x1, then kernel x kernel; then, but in the first layer, 1x1 on it and on what skips here.

    States are the outputs of the stem (0) and of layers (i + 1 of layer i), by number.

    Args:
        kernel: of the second convolution.
        skips: the states that skip here; None in the first layer.
        halve: the states that are first halved in resolution and doubled to `channels`; others are then dropped. None of them:
            nothing is halved.
    """

    def __init__(self, channels: int, kernel: int, skips: Sequence[int] | None, halve: Sequence[int] = ()) -> None:
        super().__init__()
        self.halve = nn.ModuleDict({str(s): FactorizedReduce(channels // 2, channels, relu=False) for s in halve})
        self.body = nn.Sequential(
            ReLUConvNorm(channels, channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.skips = skips
        self.merge = None if skips is None else ReLUConvNorm((len(skips) + 1) * channels, channels)

    def forward(self, states: dict[int, Tensor]) -> dict[int, Tensor]:
        """States [B, C, H, W] -> those later layers may read, and this layer's output [B, C', H', W'] as the last."""
        if self.halve:
            states = {int(state): module(states[int(state)]) for state, module in self.halve.items()}
        last = max(states)
        y = self.body(states[last])
        if self.merge is not None:
            y = self.merge(torch.cat([*(states[s] for s in self.skips), y], dim=1))
        return {**states, last + 1: y}


@MODELS.register_module()
class ENASMacro(FeatureBackbone):
    """Layers that each read the one before and, by skip connections, the outputs of any earlier layers.

    After two layers all outputs that are still read are halved in resolution and doubled in channels.

    Args:
        per_layer: for each layer its operation, 0 to 3, and for the stem and every earlier layer but the one before it a bit:
            whether that one's output skips to this layer.
        out_filters: C, of the stem and of the first layers.
        reductions: the layers after which maps are halved, by default the last ones of the first and second third.
        out_indices: which levels to return: 0 the stem, then a level per resolution; by default the last.
        frozen_stages: levels up to this one aren't trained.

    Raises ValueError for numbers that make no layer.
    """

    def __init__(
        self,
        per_layer: Sequence[Sequence[int]],
        out_filters: int = 96,
        reductions: Sequence[int] | None = None,
        out_indices: Sequence[int] | None = None,
        frozen_stages: int = -1,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        layers = len(per_layer)
        reductions = (layers // 3 - 1, 2 * (layers // 3) - 1) if reductions is None else tuple(reductions)
        if sorted(set(reductions) & set(range(layers - 1))) != list(reductions):
            raise ValueError(f"reductions={reductions} must be rising indices of layers before the last of {layers}")
        for i, (op, *skips) in enumerate(per_layer):
            if op not in range(len(MACRO_KERNELS)):
                raise ValueError(
                    f"layer {i}: operation {op} is none of 0 to {len(MACRO_KERNELS) - 1}, of which fixed layers are"
                )
            if len(skips) != i or not set(skips) <= {0, 1}:
                raise ValueError(f"layer {i} has skips {skips}: give {i} bits")
        skips = [[state for state, bit in enumerate(bits) if bit] for _, *bits in per_layer]
        self.stem = nn.Sequential(nn.Conv2d(3, out_filters, 3, padding=1, bias=False), nn.BatchNorm2d(out_filters))
        self.layers = nn.ModuleList()
        levels = [dict(channels=out_filters, stride=1, module="stem")]
        channels, stride = out_filters, 1
        for i, (op, *_) in enumerate(per_layer):
            halve: list[int] = []
            if i - 1 in reductions:
                channels, stride = 2 * channels, 2 * stride
                # a layer reads the state of its own number, that of the layer before; states above it are to come
                halve = sorted({i}.union(*skips[i:]) & set(range(i + 1)))
            self.layers.append(MacroLayer(channels, MACRO_KERNELS[op], skips[i] if i else None, halve))
            if i in reductions or i == layers - 1:
                levels.append(dict(channels=channels, stride=stride, module=f"layers.{i}"))
        self._returns(levels, out_indices, frozen_stages)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """[B, 3, H, W] -> the levels of `out_indices`, each [B, channels, ceil(H / stride), ceil(W / stride)]."""
        features = {"stem": self.stem(x)}
        states = {0: features["stem"]}
        for i, layer in enumerate(self.layers):
            states = layer(states)
            if f"layers.{i}" in self._out_modules:
                features[f"layers.{i}"] = states[i + 1]
        return tuple(features[name] for name in self._out_modules)


@schema("enas_micro")
def enas_micro(spec: Mapping) -> dict:
    """`normal_arc`, `reduce_arc` of numbers into `ops`, `out_filters`, cells and the positions of reductions."""
    if list(spec["ops"]) != list(MICRO_OPERATIONS):
        raise ValueError(f"an arc's numbers stand for {', '.join(MICRO_OPERATIONS)}, not for {', '.join(spec['ops'])}")
    backbone = dict(
        type="search.ENASMicro",
        normal_arc=spec["normal_arc"],
        reduce_arc=spec["reduce_arc"],
        out_filters=spec["out_filters"],
        layers=spec["num_layers"] + spec["extra_reduction_layers"],
        reductions=spec["reduction_positions"],
    )
    return classifier(backbone, spec, bias=False)


@schema("enas_macro")
def enas_macro(spec: Mapping) -> dict:
    """`per_layer`: for each of the `layers` its operation and skip bits; `out_filters`. CIFAR-10's 10 classes by default."""
    if len(spec["per_layer"]) != spec["layers"]:
        raise ValueError(f"layers={spec['layers']}, but per_layer has {len(spec['per_layer'])}")
    backbone = dict(type="search.ENASMacro", per_layer=spec["per_layer"], out_filters=spec["out_filters"])
    return classifier(backbone, {"num_classes": 10, **spec}, bias=False)
