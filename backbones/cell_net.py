"""Networks of two repeated cells, as searched by DARTS and its family.

DARTS, arXiv 1806.09055, section 3 and A.1; official code quark0/darts at f276dd3. What differs:
- odd feature maps work (the official factorized reduction and PC-DARTS' stride-2 bypass need even ones);
- operations on edges that a derived cell doesn't keep aren't built, as there, but parameter names are the supernet's;
- the network ends in feature maps: pooling and the classifier belong to the task.

Shapes: B batch, C initial channels, H and W height and width of the input.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial as bind

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from backbones.features import FeatureBackbone
from backbones.operations import FactorizedReduce, ReLUConvNorm, darts_candidates
from search.registry import MODELS
from search.space import Architecture
from search.supernet import MixedDag, Pick, reading

STEMS = ("cifar", "imagenet")


class Cell(nn.Module):
    """Two inputs, a `MixedDag`, the concatenation of its nodes. A reduction cell halves the resolution."""

    def __init__(
        self,
        pick: Pick,
        c_before_last: int,
        c_last: int,
        channels: int,
        *,
        reduction: bool,
        after_reduction: bool,
        nodes: int,
        keep: int,
        affine: bool,
        partial: int,
        plan: str,
        memory: str,
    ) -> None:
        super().__init__()
        align = FactorizedReduce if after_reduction else ReLUConvNorm
        self.preprocess0 = align(c_before_last, channels, affine)
        self.preprocess1 = ReLUConvNorm(c_last, channels, affine)
        self.dag = MixedDag(
            pick,
            "reduce" if reduction else "normal",
            darts_candidates(affine),
            channels=channels,
            nodes=nodes,
            keep=keep,
            stride=2 if reduction else 1,
            partial_channels=partial,
            plan=plan,
            memory=memory,
        )
        self.out_channels = nodes * channels

    def forward(self, before_last: Tensor, last: Tensor) -> Tensor:
        """Outputs of the two cells before -> [B, nodes * channels, H', W']."""
        return torch.cat(self.dag(self.preprocess0(before_last), self.preprocess1(last)), dim=1)


class AuxiliaryHead(nn.Module):
    """The auxiliary classifier of the papers' training, on the map after the second reduction. [B, C, H, W] -> [B, classes].

    Average pooling 5x5 (stride 3 for CIFAR, 2 for ImageNet), 1x1 to 128, 2x2 to 768, linear. As in the official code the
    ImageNet head lacks the second norm. The papers' inputs leave one position after the 2x2 convolution; larger ones are
    averaged, and maps too small for two windows are pooled to 2x2.
    """

    # costs leave auxiliary heads out
    auxiliary_head = True

    def __init__(self, channels: int, num_classes: int, stem: str) -> None:
        super().__init__()
        self.stride = 3 if stem == "cifar" else 2
        self.conv1 = nn.Conv2d(channels, 128, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(128)
        self.conv2 = nn.Conv2d(128, 768, 2, bias=False)
        self.norm2 = nn.BatchNorm2d(768) if stem == "cifar" else nn.Identity()
        self.classifier = nn.Linear(768, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, classes]."""
        x = F.relu(x)
        enough = min(x.shape[2:]) >= 5 + self.stride
        x = F.avg_pool2d(x, 5, self.stride, count_include_pad=False) if enough else F.adaptive_avg_pool2d(x, 2)
        x = F.relu(self.norm1(self.conv1(x)))
        x = F.relu(self.norm2(self.conv2(x)))
        return self.classifier(x.mean(dim=(2, 3)))


class CellBackbone(FeatureBackbone):
    """A stem and cells that each read the outputs of the two before; a subclass says which cells and calls `_assemble`.

    Attributes:
        aux_logits: in training mode, a forward leaves the auxiliary classifier's logits here, if there is one; else None.
        drop_path: the final probability of dropping a path, see `set_progress`.
    """

    aux_logits: Tensor | None = None

    def _assemble(
        self,
        make_cell: Callable[..., nn.Module],
        widths: Sequence[int],
        c_stem: int,
        *,
        stem: str,
        reductions: Sequence[int],
        aux_after: int | None,
        num_classes: int | None,
        drop_path: float,
        out_indices: Sequence[int] | None,
        frozen_stages: int,
    ) -> None:
        """Build the stem, a cell for each of `widths`, the auxiliary head after cell `aux_after` (None: none), and the levels.

        make_cell: (channels of the input before last, of the last, the cell's width, reduction=, after_reduction=) -> a cell
            with `out_channels` and a `dag`.
        """
        if stem not in STEMS:
            raise ValueError(f"stem={stem!r} is none of {', '.join(STEMS)}")
        if (aux_after is not None) != (num_classes is not None):
            raise ValueError(f"auxiliary={aux_after is not None} and num_classes={num_classes}: one needs the other")
        if aux_after is not None and aux_after >= len(widths):
            raise ValueError(f"an auxiliary head after cell {aux_after} needs more cells than {len(widths)}")
        if not 0 <= drop_path < 1:
            raise ValueError(f"drop_path={drop_path} is not a probability below 1")
        if sorted(set(reductions) & set(range(len(widths)))) != list(reductions):
            raise ValueError(f"reductions={reductions} must be rising indices of the {len(widths)} cells")
        self.drop_path = drop_path
        self.stem0, self.stem1 = _stem(stem, c_stem)
        self.cells = nn.ModuleList()
        levels = [dict(channels=c_stem, stride=1 if stem == "cifar" else 4, module="stem0")]
        self._aux_after = aux_after
        c_before_last = c_last = c_stem
        stride, after_reduction = (1, False) if stem == "cifar" else (8, True)
        ends = {r - 1 for r in reductions} | {len(widths) - 1}
        for i, width in enumerate(widths):
            reduction = i in reductions
            stride *= 2 if reduction else 1
            cell = make_cell(c_before_last, c_last, width, reduction=reduction, after_reduction=after_reduction)
            self.cells.append(cell)
            after_reduction = reduction
            c_before_last, c_last = c_last, cell.out_channels
            if i in ends:
                levels.append(dict(channels=c_last, stride=stride, module=f"cells.{i}"))
            if i == aux_after:
                self.auxiliary = AuxiliaryHead(c_last, num_classes, stem)
        self._returns(levels, out_indices, frozen_stages)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """[B, 3, H, W] -> the levels of `out_indices`, each [B, channels, H / stride, W / stride]."""
        features = {}
        before_last = features["stem0"] = self.stem0(x)
        last = before_last if self.stem1 is None else self.stem1(before_last)
        self.aux_logits = None
        for i, cell in enumerate(self.cells):
            before_last, last = last, cell(before_last, last)
            if f"cells.{i}" in self._out_modules:
                features[f"cells.{i}"] = last
            if i == self._aux_after and self.training:
                self.aux_logits = self.auxiliary(last)
        return tuple(features[name] for name in self._out_modules)

    def set_progress(self, fraction: float) -> None:
        """Training has come this far (0 to 1): drop path grows linearly to its final probability."""
        for cell in self.cells:
            cell.dag.drop_path = self.drop_path * fraction


def doubling(channels: int, layers: int, reductions: Sequence[int]) -> list[int]:
    """The widths of cells that double at each reduction."""
    return [channels * 2 ** sum(r <= i for r in reductions) for i in range(layers)]


def thirds(layers: int) -> tuple[int, int]:
    """The DARTS positions of reduction cells, at 1/3 and 2/3. ValueError for fewer than three cells."""
    if layers < 3:
        raise ValueError(f"layers={layers} are too few for the default reductions, at 1/3 and 2/3: give reductions=()")
    return layers // 3, 2 * layers // 3


@MODELS.register_module()
class CellNet(CellBackbone):
    """A searchable backbone of cells; narrow with `arch`, or as the building context says.

    Args:
        channels: C; the stem has `stem_multiplier` x C, cells C at first and twice as many after each reduction.
        layers: number of cells.
        stem: "cifar" (one 3x3 convolution, stride 1) or "imagenet" (three of stride 2).
        stem_multiplier: by default 3 for "cifar" and 1 for "imagenet" (PC-DARTS searches ImageNet with 3).
        reductions: indices of the reduction cells, by default layers // 3 and 2 * layers // 3.
        nodes, keep: intermediate nodes of a cell, and the inputs each keeps when derived.
        affine: norms with scale and shift (derived networks); without, pools are normalised too (search).
        partial: K of partial channels while searching; a derived network uses all channels.
        plan, memory: how the supernet's cells are executed, and what is kept for backward, see `MixedDag`.
        auxiliary: an auxiliary classifier of `num_classes` after the cell at 2 * layers // 3. In training mode a forward
            leaves its logits in `aux_logits` (None otherwise).
        drop_path: probability of dropping a path of a derived network at the end of training, see `set_progress`.
        out_indices: which levels to return: 0 the stem, then a level per resolution; by default the last.
        frozen_stages: levels up to this one aren't trained.
        arch: an architecture, its file, or None to be read by the building context.
        part: the name this module's choices go by in an architecture file.
        init_cfg: mmengine's initialisation; by default torch's own, as in the official code.

    Raises ValueError for an architecture of another space and for settings that contradict each other.
    """

    def __init__(
        self,
        channels: int = 16,
        layers: int = 8,
        stem: str = "cifar",
        stem_multiplier: int | None = None,
        reductions: Sequence[int] | None = None,
        nodes: int = 4,
        keep: int = 2,
        affine: bool = True,
        partial: int = 1,
        plan: str = "reference",
        memory: str = "fast",
        auxiliary: bool = False,
        num_classes: int | None = None,
        drop_path: float = 0.0,
        out_indices: Sequence[int] | None = None,
        frozen_stages: int = -1,
        arch: Architecture | Mapping | str | os.PathLike | None = None,
        part: str = "backbone",
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        reductions = thirds(layers) if reductions is None else tuple(reductions)
        self.affine = affine
        with reading(part, arch) as pick:
            self._assemble(
                bind(Cell, pick, nodes=nodes, keep=keep, affine=affine, partial=partial, plan=plan, memory=memory),
                doubling(channels, layers, reductions),
                channels * (stem_multiplier or (3 if stem == "cifar" else 1)),
                stem=stem,
                reductions=reductions,
                aux_after=2 * layers // 3 if auxiliary else None,
                num_classes=num_classes,
                drop_path=drop_path,
                out_indices=out_indices,
                frozen_stages=frozen_stages,
            )

    def without_counterpart(self) -> list[str]:
        """Parameters and buffers that a supernet of this class doesn't have: affine norms in cells, the auxiliary head."""
        names = [name for name in self.state_dict() if name.startswith("auxiliary.")]
        if self.affine:
            for prefix, module in self.cells.named_modules(prefix="cells"):
                if isinstance(module, _BatchNorm):
                    names += [f"{prefix}.weight", f"{prefix}.bias"]
        return names


def _stem(kind: str, channels: int) -> tuple[nn.Module, nn.Module | None]:
    """The layers before the first cell: cell 0's inputs are both stem0's output ("cifar"), or stem0's and stem1's."""
    if kind == "cifar":
        return nn.Sequential(nn.Conv2d(3, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)), None

    def conv(c_in: int, c_out: int) -> list[nn.Module]:
        return [nn.Conv2d(c_in, c_out, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(c_out)]

    stem0 = nn.Sequential(*conv(3, channels // 2), nn.ReLU(), *conv(channels // 2, channels))
    return stem0, nn.Sequential(nn.ReLU(), *conv(channels, channels))
