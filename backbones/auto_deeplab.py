"""Auto-DeepLab (arXiv 1901.02985): cells on a path through strides 4, 8, 16 and 32, where cell and path are searched.

Official code, of the found network only: tensorflow/models, research/deeplab/core/nas_network.py@33395b05 and
nas_cell.py@00b613a4. What differs:
- maps of stride s have ceil(H / s) rows, whatever the path; the official code upsamples n rows to 2n - 1, which is the same for
  images of 32n + 1 rows, as the paper's crops have, and loses a row of others;
- paddings are torch's, symmetric ones.

Shapes: B batch, H and W height and width of the input. A cell at stride s has B blocks of F * s / 4 channels each.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from backbones.auto_deeplab_cell import ATROUS, LAYOUTS, TrellisCell, candidates
from backbones.features import FeatureBackbone
from backbones.heads import segmentor
from backbones.operations import set_norms
from backbones.spec import schema
from search.registry import MODELS
from search.space import Architecture, Walk
from search.supernet import reading

STRIDES = (4, 8, 16, 32)
MOVES = {s: tuple(to for to in STRIDES if s / 2 <= to <= 2 * s) for s in STRIDES}
START = 4
# of the published network's backbone and decoder
NORM = dict(eps=1e-3, momentum=3e-4)
HEAD_NORM = dict(eps=1e-5, momentum=3e-4)
OPERATIONS = {
    "sep3": "sep_conv_3x3",
    "sep5": "sep_conv_5x5",
    "atr3": "atrous_conv_3x3",
    "atr5": "atrous_conv_5x5",
    "avg": "avg_pool_3x3",
    "max": "max_pool_3x3",
    "none": "skip_connect",
}

# moves into a node that run, as (the stride they leave, weight)
Incoming = dict[tuple[int, int], list[tuple[int, Tensor | None]]]


def trellis(layers: int) -> Walk:
    """The choice of a path: the stride of each layer, 4 in the first. 12 layers have 28,657 paths."""
    return Walk("path", layers, tuple(MOVES.items()), (START,))


@MODELS.register_module()
class AutoDeepLab(FeatureBackbone):
    """A searchable backbone: one cell, used along a path through the trellis of strides; narrow with `arch`.

    Wide, it has a cell at every node that a path reaches, weighted by the walk `path` (eq. 6), and its levels are the last
    layer's maps by stride; one that doesn't run is None. Narrow, it has the path's cells only; its levels are one map for each
    stride up to the path's coarsest, of the last cell at that stride before the path goes coarser (at the coarsest: its last
    cell), and then the network's output. All levels are returned by default when wide, the first (stride 4, for a
    decoder) and the output when narrow. Outputs are rectified, the maps for decoders aren't (official code).

    Args:
        filters: F, 8 in the paper's search, 20, 32 and 48 in Auto-DeepLab-S, -M and -L.
        layers: L, the number of cells on a path.
        blocks: B, the blocks of a cell; each keeps two inputs.
        layout: how a cell's inputs come to its stride: "search" as the paper's search, or "published" as the official code
            of the found network (see `TrellisCell`). An architecture fits both; parameters don't.
        atrous: "full" or "depthwise" convolutions, see `candidates`.
        stem: channels of the three 3x3 convolutions before the first cell, of strides 2, 1 and 2.
        affine: cells' norms with scale and shift (derived networks); without, pools are normalised too (search).
        norm: `eps` and `momentum` of all batch norms, by default torch's.
        partial: K of partial channels while searching; a derived network uses all channels.
        plan, memory: how the supernet's cells are executed, see `MixedDag`.
        drop_path: probability of dropping a path in the last cell at the end of training, see `set_progress`.
        out_indices: which levels to return.
        frozen_stages: levels up to this one aren't trained.
        arch: an architecture, its file, or None to be read by the building context.
        part: the name this module's choices go by in an architecture file.
        init_cfg: mmengine's initialisation; by default torch's own.

    Raises ValueError for an architecture of another space and for settings that can't be.
    """

    def __init__(
        self,
        filters: int = 8,
        layers: int = 12,
        blocks: int = 5,
        layout: str = "search",
        atrous: str = "full",
        stem: Sequence[int] = (64, 64, 128),
        affine: bool = True,
        norm: Mapping | None = None,
        partial: int = 1,
        plan: str = "reference",
        memory: str = "fast",
        drop_path: float = 0.0,
        out_indices: Sequence[int] | None = None,
        frozen_stages: int = -1,
        arch: Architecture | Mapping | str | os.PathLike | None = None,
        part: str = "backbone",
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        for name, value, known in (("layout", layout, LAYOUTS), ("atrous", atrous, ATROUS)):
            if value not in known:
                raise ValueError(f"{name}={value!r} is none of {', '.join(known)}")
        if not 0 <= drop_path < 1:
            raise ValueError(f"drop_path={drop_path} is not a probability below 1")
        if len(stem) != 3:
            raise ValueError(f"stem={tuple(stem)} must be the channels of three convolutions")
        self.affine = affine
        self.drop_path = drop_path
        self.walk = trellis(layers)
        first, second, third = stem
        self.stem0 = nn.Sequential(*_conv(3, first, 2), nn.ReLU(), *_conv(first, second, 1))
        self.stem1 = nn.Sequential(nn.ReLU(), *_conv(second, third, 2))
        with reading(part, arch) as pick:
            walk = self.walk
            self.path = pick.walk(walk.name, walk.layers, walk.moves, walk.start)
            self.gates = pick.gates()
            moves = self._moves()
            # channels by stride of the maps of each layer; the stem's two come first
            widths = [{2: second}, {START: third}]
            self.cells = nn.ModuleDict()
            for layer in range(layers):
                widths.append({})
                for stride in STRIDES:
                    sources = [source for source, _ in moves.get((layer, stride), ())]
                    if not sources:
                        continue
                    cell = TrellisCell(
                        pick,
                        candidates(affine, atrous),
                        stride=stride,
                        channels=filters * stride // 4,
                        last={s: widths[-2][s] for s in sources},
                        before_last={s: c for s, c in widths[-3].items() if _may_precede(s, sources, stride, layout, layer)},
                        layout=layout,
                        blocks=blocks,
                        affine=affine,
                        partial=partial,
                        plan=plan,
                        memory=memory,
                    )
                    self.cells[f"l{layer}_s{stride}"] = cell
                    widths[-1][stride] = cell.out_channels
        self.output = nn.ReLU()
        set_norms(self, norm)
        self._levels(widths[2:], out_indices, frozen_stages)

    def _levels(self, widths: Sequence[Mapping[int, int]], out_indices: Sequence[int] | None, frozen_stages: int) -> None:
        last = len(widths) - 1
        if self.path is None:
            levels = [dict(channels=c, stride=s, module=f"cells.l{last}_s{s}") for s, c in widths[last].items()]
            default = range(len(levels))
        else:
            levels = []
            for stride in sorted(set(self.path)):
                at = [i for i, s in enumerate(self.path) if s == stride]
                layer = max((i for i in at if i < last and self.path[i + 1] > stride), default=at[-1])
                levels.append(dict(channels=widths[layer][stride], stride=stride, module=f"cells.l{layer}_s{stride}"))
            stride = self.path[last]
            levels.append(dict(channels=widths[last][stride], stride=stride, module="output"))
            default = (0, len(levels) - 1)
        self._returns(levels, default if out_indices is None else out_indices, frozen_stages)

    def _moves(self, weights: Tensor | None = None, active: Sequence[int] | None = None) -> Incoming:
        """What leads to each node (layer, stride): the walk's moves, or those of `active` with their weights."""
        found: Incoming = {(0, START): [(START, None)]}
        if self.path is not None:
            active = self.walk.transitions_of(self.path)
        for i in range(len(self.walk.transitions)) if active is None else active:
            layer, source, stride = self.walk.transitions[i]
            found.setdefault((layer, stride), []).append((source, None if weights is None else weights[i]))
        return found

    def forward(self, x: Tensor) -> tuple[Tensor | None, ...]:
        """[B, 3, H, W] -> the levels of `out_indices`, each [B, channels, ceil(H / stride), ceil(W / stride)].

        Wide, a level that no running move reaches is None.
        """
        moves = self._moves() if self.gates is None else self._moves(*self.gates[self.walk.name])
        sizes = {s: (-(-x.shape[2] // s), -(-x.shape[3] // s)) for s in STRIDES}
        stem = self.stem0(x)
        before_last, last = {2: stem}, {START: self.stem1(stem)}
        features: dict[str, Tensor] = {}
        for layer in range(self.walk.layers):
            running = {}
            for stride in STRIDES:
                incoming = [
                    (source, last[source], weight) for source, weight in moves.get((layer, stride), ()) if source in last
                ]
                if incoming:
                    name = f"l{layer}_s{stride}"
                    running[stride] = self.cells[name](incoming, before_last, sizes)
                    if f"cells.{name}" in self._out_modules:
                        features[f"cells.{name}"] = running[stride]
            before_last, last = last, running
        if self.path is None:
            return tuple(self.output(features[name]) if name in features else None for name in self._out_modules)
        features["output"] = self.output(last[self.path[-1]])
        return tuple(features[name] for name in self._out_modules)

    def set_progress(self, fraction: float) -> None:
        """Training has come this far (0 to 1): ScheduledDropPath, which grows linearly with depth and with time.

        Skip connections aren't dropped, as in the official code (nas_cell.py, `_apply_drop_path`). A supernet drops nothing.
        """
        for number, cell in enumerate(self.cells.values(), 1):
            for dag in cell.dags.values():
                dag.drop_path = self.drop_path * number / self.walk.layers * fraction

    def without_counterpart(self) -> list[str]:
        """Parameters that a supernet of this class doesn't have: affine norms in cells."""
        norms = [name for name, m in self.cells.named_modules(prefix="cells") if isinstance(m, _BatchNorm)]
        return [f"{name}.{kind}" for name in norms for kind in ("weight", "bias")] if self.affine else []


def _conv(c_in: int, c_out: int, stride: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False), nn.BatchNorm2d(c_out)


def _may_precede(before: int, sources: Sequence[int], stride: int, layout: str, layer: int) -> bool:
    """Whether a cell may read the map of stride `before` from two layers back, when the map in between is one of `sources`."""
    if layout == "search":
        return before == stride
    return layer < 2 or any(source in MOVES[before] for source in sources)


@schema("auto_deeplab")
def auto_deeplab(spec: Mapping) -> dict:
    """`operations` and `hiddenstate_indices` of the cell, `network_level_path`, `F`; the decoder is DeepLabV3+'s, see there.

    Plain multiply-adds on 1024x2048 are 5 to 6 % below the published ones. TensorFlow pads maps under atrous convolutions to a
    multiple of the rate ("macs+atrous"), which on 1025x2049 leaves 1.6 to 1.9 % without an explanation.
    """
    classes = spec["num_classes"]
    backbone = dict(
        type="search.AutoDeepLab",
        filters=spec["F"],
        layers=len(spec["network_level_path"]),
        blocks=spec["blocks_per_cell"],
        layout="published",
        norm=NORM,
        # ScheduledDropPath belongs to the published training; its probability isn't printed anywhere
        drop_path=0.2,
        arch=found_architecture(spec),
    )
    path = backbone["arch"]["path"]
    head = dict(
        type="tasks.segmentation.auto_deeplab_head.DeepLabV3PlusHead",
        in_channels=[spec["blocks_per_cell"] * spec["F"] * s // 4 for s in (path[0], path[-1])],
        in_index=[0, 1],
        channels=256,
        norm_cfg=dict(type="BN", **HEAD_NORM),
        align_corners=True,
    )
    return segmentor(backbone, head, classes)


def found_architecture(spec: Mapping) -> dict:
    """The choices of `AutoDeepLab` that a cell and a path of the official code's form are.

    There state 0 of a cell is H^{l-1} and state 1 is H^{l-2}; in a `MixedDag` it's the other way round. Raises ValueError for
    a cell that isn't one of this space.
    """
    names, states, blocks = spec["operations"], spec["hiddenstate_indices"], spec["blocks_per_cell"]
    if len(names) != 2 * blocks or len(states) != 2 * blocks or list(spec["used_hiddenstates"]) != [1, 1] + [0] * blocks:
        raise ValueError(f"a cell of {blocks} blocks has two operations on each, and concatenates all blocks and no input")
    choices: dict = {"path": tuple(START * 2**level for level in spec["network_level_path"])}
    for block in range(blocks):
        node, pair = block + 2, range(2 * block, 2 * block + 2)
        edges = {(1, 0, *range(2, node))[states[i]]: OPERATIONS[names[i]] for i in pair}
        if len(edges) < 2:
            raise ValueError(f"block {block + 1} reads state {states[2 * block]} twice, which isn't searched")
        choices[f"cell/n{node}/inputs"] = tuple(sorted(edges))
        choices |= {f"cell/n{node}<-{source}": operation for source, operation in edges.items()}
    return choices
