"""NAS-FPN (arXiv 1904.07392): a feature pyramid network of merging cells, whose inputs, levels and operations are searched.

Section 3: the pyramid's five levels P3 to P7 are features 0 to 4; each merging cell merges two different earlier features at a
level, by their sum or by attention, and becomes the next feature; the last five make the five levels, in any order. Seven cells
in the paper, and the pyramid they make is repeated up to seven times, with parameters of its own each time. Official code, of
the found cells only: tensorflow/tpu@7dc921f8, models/official/detection/modeling/architecture/nasfpn.py.

Shapes: B batch, C channels of the pyramid, H and W height and width of a level.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from backbones.merging_cell import VARIANTS, MergingCell, Step, run, wire
from backbones.merging_mixture import CellChoices, Mixture
from backbones.operations import set_norms
from search.registry import MODELS
from search.space import Architecture, Order
from search.supernet import Pick, reading

OPERATIONS = ("sum", "attention")
# the name of the finest level; levels count from it, whatever the stride of the first map
FIRST_LEVEL = 3
NAME = "nas_fpn"
# the published cells, as (level, operation, first input, second input)
PUBLISHED = (
    (4, "attention", 1, 3),
    (4, "sum", 1, 5),
    (3, "sum", 0, 6),
    (4, "sum", 6, 7),
    (5, "attention", 7, 8),
    (7, "attention", 6, 9),
    (6, "attention", 9, 10),
)
# what mmdet's NASFPN calls the published cells
_MMDET_CELLS = ("gp_64_4", "sum_44_4", "sum_43_3", "sum_34_4", "sum_55_5", "sum_77_7", "gp_75_6")


@MODELS.register_module()
class NASFPN(BaseModule):
    """A searchable neck: a pyramid of `num_outs` levels from a backbone's maps; narrow with `arch`.

    Choices of the cell that makes feature n, of n earlier ones: `nas_fpn/n<n>/a`, its first input; `nas_fpn/n<n>/b|a=<i>`, its
    second, active where the first is i, any but i; `nas_fpn/n<n>/op`; `nas_fpn/n<n>/level`, which the last `num_outs` cells get
    from `nas_fpn/outputs`, the order in which they make the levels. 5 levels and 7 cells have 3.9 x 10^17. The pair is ordered:
    in an attention the input of the coarser level attends, of two of one level the first; in a sum, and between levels, the
    order has no effect, so that some architectures are one network. A feature that no cell has taken when an output of its
    level is made is added to that output.

    Wide, a cell has one convolution, and a norm for each level. Where the gates leave one option of each choice, weighted by
    nothing, it runs as the derived network does (one-shot supernets); else as a mixture (`backbones/merging_mixture.py`).

    Args:
        in_channels: of all maps that the backbone gives.
        channels: C.
        repeats: of the pyramid.
        cells: in each pyramid, at least `num_outs`.
        start_level: the first map that is read; the maps from it on are the finest levels, the others are made by pooling.
        num_outs: levels, 5 in the paper.
        variant: "paper", where a 1x1 convolution with norm brings maps of other channels to C, and attention is by the maximum
            of the coarser input; "mmdet", as mmdet's NASFPN, where every map and every pooled level has such a convolution, and
            attention is by the mean of the finer input (see `weights_of_mmdet`; the same for images of whole multiples of 128).
        affine: cells' norms with scale and shift (derived networks, one-shot supernets); without in a relaxation.
        norm: `eps` and `momentum` of all batch norms, by default torch's.
        partial: K of partial channels while searching; a derived network uses all channels.
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
        repeats: int = 7,
        cells: int = 7,
        start_level: int = 0,
        num_outs: int = 5,
        variant: str = "paper",
        affine: bool = True,
        norm: Mapping | None = None,
        partial: int = 1,
        arch: Architecture | Mapping | str | os.PathLike | None = None,
        part: str = "neck",
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        _require_settings(in_channels, start_level, num_outs, channels, cells, repeats, partial)
        if variant not in VARIANTS:
            raise ValueError(f"variant={variant!r} is none of {', '.join(VARIANTS)}")
        self.in_channels, self.channels, self.start_level, self.affine = tuple(in_channels), channels, start_level, affine
        self.attention = VARIANTS[variant]
        self.levels = tuple(range(FIRST_LEVEL, FIRST_LEVEL + num_outs))
        taken = self.in_channels[start_level:]
        self.laterals = nn.ModuleDict()
        for level, c_in in zip(self.levels, taken, strict=False):
            if variant == "mmdet" or c_in != channels:
                # with a bias in front of the norm in the official code
                self.laterals[f"p{level}"] = _project(c_in, channels, bias=variant == "paper")
        self.extras = nn.ModuleDict()
        for level in self.levels[len(taken) :] if variant == "mmdet" else ():
            self.extras[f"p{level}"] = _project(channels, channels, bias=False)
        with reading(part, arch) as pick:
            self.order = Order(f"{NAME}/outputs", self.levels)
            self.choices, found = _declare(pick, cells, self.order)
            self.gates = pick.gates()
            k = partial if pick.wide else 1
        self.steps = None if found is None else wire(found, self.levels, self.attention)
        levels = [self.levels] * cells if self.steps is None else [(step.level,) for step in self.steps]
        self.repeats = nn.ModuleList(
            nn.ModuleDict({f"n{n}": MergingCell(channels, made, affine, k) for n, made in enumerate(levels, num_outs)})
            for _ in range(repeats)
        )
        set_norms(self, norm)

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Channels of the levels."""
        return (self.channels,) * len(self.levels)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The backbone's maps, each [B, in_channels, H, W] -> `num_outs` levels, each [B, C, H, W], H halved and rounded up."""
        found = tuple(x.shape[1] for x in maps)
        if found != self.in_channels:
            raise ValueError(f"in_channels={list(self.in_channels)} of the neck, but the backbone's maps have {list(found)}")
        features = self._inputs(maps[self.start_level :])
        sizes = {level: tuple(x.shape[2:]) for level, x in features.items()}
        steps = self.steps if self.gates is None else self._lone_path()
        mixture = None
        if steps is None:
            mixture = Mixture(self.gates, self.choices, OPERATIONS, self.order, self.attention, features[FIRST_LEVEL])
        for repeat in self.repeats:
            cells = list(repeat.values())
            if steps is not None:
                features = run(steps, cells, features, sizes, self.attention)
            else:
                features = mixture.run(cells, features, sizes)
        return tuple(features.values())

    def _inputs(self, maps: Sequence[Tensor]) -> dict[int, Tensor]:
        features: dict[int, Tensor] = {}
        for level in self.levels:
            name = f"p{level}"
            if level - FIRST_LEVEL < len(maps):
                x = maps[level - FIRST_LEVEL]
                features[level] = self.laterals[name](x) if name in self.laterals else x
            else:
                x = features[level - 1]
                x = self.extras[name](x) if name in self.extras else x
                features[level] = F.max_pool2d(x, 2, 2, ceil_mode=any(n % 2 for n in x.shape[2:]))
        return features

    def _lone_path(self) -> tuple[Step, ...] | None:
        """The one network that gates without weights leave; None where they leave several, or weigh it."""

        def lone(choice: str) -> int | None:
            values, active = self.gates[choice]
            return active[0] if values is None and len(active) == 1 else None

        order = lone(self.order.name)
        if order is None:
            return None
        outputs = iter(self.order.arrangements[order])
        cells = []
        for n, names in enumerate(self.choices, len(self.levels)):
            first, op = lone(names.first), lone(names.op)
            level = None if names.level is None else lone(names.level)
            second = None if first is None else lone(names.seconds[first])
            if first is None or second is None or op is None or (names.level is not None and level is None):
                return None
            made = int(next(outputs)) if level is None else self.levels[level]
            cells.append((made, OPERATIONS[op], first, _others(n, first)[second]))
        return wire(cells, self.levels, self.attention)

    def without_counterpart(self) -> list[str]:
        """Parameters that a supernet of this class doesn't have when it relaxes: affine norms in cells."""
        norms = [name for name, m in self.repeats.named_modules(prefix="repeats") if isinstance(m, _BatchNorm)]
        return [f"{name}.{kind}" for name in norms for kind in ("weight", "bias")] if self.affine else []


def _project(c_in: int, channels: int, bias: bool) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(c_in, channels, 1, bias=bias), nn.BatchNorm2d(channels))


def _others(n: int, first: int) -> list[int]:
    """The second inputs that go with a first one."""
    return [i for i in range(n) if i != first]


def _declare(pick: Pick, cells: int, order: Order) -> tuple[list[CellChoices], list[tuple] | None]:
    """The names of the choices of all cells, and in the narrow build what was chosen, cell by cell."""
    levels, names, chosen = order.items, [], []
    for n in range(len(levels), len(levels) + cells):
        at = f"{NAME}/n{n}"
        seconds = tuple(f"{at}/b|a={i}" for i in range(n))
        level = f"{at}/level" if n < cells else None
        names.append(CellChoices(f"{at}/a", seconds, f"{at}/op", level))
        first = pick.option(f"{at}/a", range(n))
        second = [pick.option(name, _others(n, i), when=[(f"{at}/a", i)]) for i, name in enumerate(seconds)]
        op = pick.option(f"{at}/op", OPERATIONS)
        made = pick.option(level, levels) if level else None
        if not pick.wide and second[first] is None:
            raise ValueError(f"the architecture doesn't say {seconds[first]!r}, the second input that goes with {at}/a={first}")
        chosen.append([made, op, first, None if pick.wide else second[first]])
    ends = pick.order(order.name, levels)
    if pick.wide:
        return names, None
    for cell, level in zip(chosen[-len(levels) :], ends, strict=True):
        cell[0] = level
    return names, [tuple(cell) for cell in chosen]


def found_architecture(cells: Sequence[tuple[int, str, int, int]], num_outs: int = 5) -> dict:
    """The choices of `NASFPN` that cells (level, operation, first input, second input) are."""
    choices: dict = {}
    for n, (level, op, first, second) in enumerate(cells, num_outs):
        choices |= {f"{NAME}/n{n}/a": first, f"{NAME}/n{n}/b|a={first}": second, f"{NAME}/n{n}/op": op}
        if n < len(cells):
            choices[f"{NAME}/n{n}/level"] = level
    choices[f"{NAME}/outputs"] = tuple(cell[0] for cell in cells[-num_outs:])
    return choices


def cells_of(choices: Mapping) -> list[tuple[int, str, int, int]]:
    """The cells (level, operation, first input, second input) that choices of `NASFPN` are: `found_architecture` undone."""
    ends = list(choices[f"{NAME}/outputs"])
    levels, count = len(ends), sum(name.endswith("/op") for name in choices)
    cells = []
    for n in range(levels, levels + count):
        first = choices[f"{NAME}/n{n}/a"]
        level = choices[f"{NAME}/n{n}/level"] if n < count else ends.pop(0)
        cells.append((level, choices[f"{NAME}/n{n}/op"], first, choices[f"{NAME}/n{n}/b|a={first}"]))
    return cells


def weights_of_mmdet(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of mmdet's NASFPN (with batch norms) under the names that the published cells have in variant "mmdet".

    Raises ValueError, naming it, for a tensor that isn't one of theirs.
    """
    renamed = {}
    for name, value in state.items():
        kind, place, rest = name.split(".", 2) if name.count(".") > 1 else (name, "", "")
        if kind == "lateral_convs" and place.isdigit():
            module, tail = f"laterals.p{FIRST_LEVEL + int(place)}", rest
        elif kind == "extra_downsamples" and place.isdigit() and rest.startswith("0."):
            module, tail = f"extras.p{FIRST_LEVEL + 3 + int(place)}", rest.removeprefix("0.")
        elif kind == "fpn_stages" and rest.split(".")[0] in _MMDET_CELLS:
            cell, _, tail = rest.partition(".out_conv.")
            number = _MMDET_CELLS.index(cell)
            module = f"repeats.{place}.n{5 + number}"
            tail = tail.replace("bn.", f"norms.p{PUBLISHED[number][0]}.")
        else:
            raise ValueError(f"{name!r} is no tensor of mmdet's NASFPN")
        if not module.startswith("repeats"):
            tail = tail.replace("conv.", "0.").replace("bn.", "1.")
        renamed[f"{module}.{tail}"] = value
    return renamed


def _require_settings(
    in_channels: Sequence[int], start_level: int, num_outs: int, channels: int, cells: int, repeats: int, partial: int
) -> None:
    maps = len(in_channels)
    if not 0 <= start_level < maps:
        raise ValueError(f"start_level={start_level}, but in_channels={list(in_channels)} are of {maps} maps")
    if not maps - start_level <= num_outs <= 6 or num_outs < 2:
        raise ValueError(f"num_outs={num_outs} must be 2 to 6, and no fewer than the {maps - start_level} maps that are read")
    if cells < num_outs:
        raise ValueError(f"cells={cells} can't make num_outs={num_outs} levels: give as many cells, or more")
    if repeats < 1:
        raise ValueError(f"repeats={repeats} must be at least 1")
    if channels % partial:
        raise ValueError(f"{channels} channels can't be split in partial={partial} equal parts")
