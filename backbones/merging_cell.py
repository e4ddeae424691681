"""NAS-FPN's merging cells (arXiv 1904.07392, section 3): two feature maps brought to one level, merged, convolved.

Facts are from the authors' code, tensorflow/tpu@7dc921f8, models/official/detection/modeling/architecture/nasfpn.py. Level l is
a resolution, a map of about ceil(H / 2^l) rows; features are numbered, the pyramid's inputs first, then the cells in order.

Shapes: B batch, C channels of every map, H and W height and width of a level.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from search.supernet import partial

Size = tuple[int, int]


class Step(NamedTuple):
    """What one cell makes: its level, operation, two inputs (of an attention the one that attends first), others added."""

    level: int
    op: str
    inputs: tuple[int, int]
    added: tuple[int, ...] = ()


@dataclass(frozen=True)
class Attention:
    """Global attention: `lead + other * sigmoid(pool(lead))`, pooled over all of the lead's map.

    Attributes:
        average: pooled by the mean instead of the maximum.
        finer: the input of the finer level leads instead of the coarser one; of equal levels the first input does.
    """

    average: bool = False
    finer: bool = False

    def leads(self, first: int, second: int) -> bool:
        """Whether the first of two inputs, of these levels, is the one that attends."""
        return first <= second if self.finer else first >= second

    def gate(self, lead: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, 1, 1]."""
        pooled = lead.mean((2, 3), keepdim=True) if self.average else lead.amax((2, 3), keepdim=True)
        return pooled.sigmoid()


# the authors' code; mmdet's NASFPN averages, and there the finer level attends in all four cells
VARIANTS: Mapping[str, Attention] = {"paper": Attention(), "mmdet": Attention(average=True, finer=True)}


class MergingCell(nn.Module):
    """What follows the merging: ReLU, a 3x3 convolution, a batch norm for each level that the cell may make.

    With `k` > 1 (partial channels, a supernet's) it works on the first C/k channels. The others pass as half of what was
    merged, about the mean of the two inputs, so that maps don't grow from cell to cell; all are shuffled (`search/supernet/
    partial.py`).
    """

    def __init__(self, channels: int, levels: Sequence[int], affine: bool = True, k: int = 1) -> None:
        super().__init__()
        self.k = k
        self.conv = nn.Conv2d(channels // k, channels // k, 3, padding=1)
        self.norms = nn.ModuleDict({f"p{level}": nn.BatchNorm2d(channels // k, affine=affine) for level in levels})

    def forward(self, merged: Tensor, level: int) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        if self.k == 1:
            return self._made(merged, level)
        taken, rest = partial.split(merged, self.k)
        return partial.join(self._made(taken, level), rest / 2, self.k, 1)

    def _made(self, x: Tensor, level: int) -> Tensor:
        return self.norms[f"p{level}"](self.conv(F.relu(x)))


def resample(x: Tensor, level: int, target: int, size: Size) -> Tensor:
    """A map of a level brought to another one's size: nearest neighbour up, max pooling down. [B, C, H, W] -> [B, C, *size].

    Windows of the pooling are the power of two between the levels, the last ones cut off, where that gives the size, as it
    does for maps of ceil(H / 2^l) rows; else they are adaptive.
    """
    if tuple(x.shape[2:]) == size:
        return x
    if level > target:
        return F.interpolate(x, size, mode="nearest")
    window = 2 ** (target - level)
    if all(-(-have // window) == want for have, want in zip(x.shape[2:], size, strict=True)):
        return F.max_pool2d(x, window, window, ceil_mode=any(have % window for have in x.shape[2:]))
    return F.adaptive_max_pool2d(x, size)


def wire(cells: Sequence[tuple[int, str, int, int]], levels: Sequence[int], attention: Attention) -> tuple[Step, ...]:
    """The steps of cells (level, operation, first input, second input), of which the last ones make each of `levels` once.

    A feature that no cell has taken when an output of its level is made is added to that output (official code). Raises
    ValueError for inputs that are no earlier features or equal, and for outputs that aren't each level once.
    """
    known = list(levels)
    outputs = sorted(cell[0] for cell in cells[-len(levels) :])
    if outputs != sorted(levels):
        raise ValueError(f"the last {len(levels)} cells make levels {outputs}, not each of {sorted(levels)} once")
    taken: set[int] = set()
    steps = []
    for number, (level, op, first, second) in enumerate(cells, len(levels)):
        if first == second or not (0 <= first < number and 0 <= second < number):
            raise ValueError(f"cell {number} merges features {first} and {second}: they must be two different earlier ones")
        taken |= {first, second}
        added: tuple[int, ...] = ()
        if number >= len(cells):
            added = tuple(i for i, known_level in enumerate(known) if known_level == level and i not in taken)
            taken |= set(added)
        pair = (first, second) if attention.leads(known[first], known[second]) else (second, first)
        steps.append(Step(level, op, pair, added))
        known.append(level)
    return tuple(steps)


def run(
    steps: Sequence[Step],
    cells: Sequence[Callable[[Tensor, int], Tensor]],
    inputs: Mapping[int, Tensor],
    sizes: Mapping[int, Size],
    attention: Attention,
) -> dict[int, Tensor]:
    """A pyramid's maps by level, each [B, C, H, W] -> those of the outputs, by level."""
    features = list(inputs.items())
    for step, cell in zip(steps, cells, strict=True):
        size = sizes[step.level]
        lead, other = (resample(features[i][1], features[i][0], step.level, size) for i in step.inputs)
        merged = lead + (other if step.op == "sum" else other * attention.gate(lead))
        for i in step.added:
            merged = merged + features[i][1]
        features.append((step.level, cell(merged, step.level)))
    made = dict(features[-len(inputs) :])
    return {level: made[level] for level in inputs}
