"""What leaves a state of a graph towards some targets, as plain numbers. Letters as in operator.py."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from typing import NamedTuple

from torch import Tensor


class Step(NamedTuple):
    """One step of the chains that have it: kernel sizes and dilations, and where its weights lie in the flat ones."""

    sizes: tuple[int, ...]
    dilations: tuple[int, ...]
    depthwise: slice
    pointwise: slice


@dataclass(frozen=True)
class Structure:
    """Chains of (ReLU, depthwise, pointwise, norm) steps, longest first, and shared maps; all of one set of targets.

    - targets: T.
    - lengths: steps of each of the chains, never growing.
    - sizes, dilations: of the depthwise convolutions, chain by chain of the first step, then of the second, ...
    - stride: of the first steps and of the pools.
    - max_pool, avg_pool, same: which shared maps there are: 3x3 pools and the state itself.
    - normalised: whether the pools are.
    - others: how many maps made elsewhere are normalised and summed too.
    """

    targets: int
    lengths: tuple[int, ...]
    sizes: tuple[int, ...]
    dilations: tuple[int, ...]
    stride: int
    max_pool: bool
    avg_pool: bool
    same: bool
    normalised: bool
    others: int

    def __post_init__(self) -> None:
        if list(self.lengths) != sorted(self.lengths, reverse=True) or len(self.sizes) != sum(self.lengths):
            raise ValueError(f"lengths={self.lengths} must fall, and sizes={self.sizes} hold one for each step of each chain.")
        if self.same and self.stride != 1:
            raise ValueError("the state itself can't be summed at stride 2.")

    def numbers(self) -> list[int]:
        """As what an operator takes."""
        values = astuple(self)
        return [len(self.lengths), values[0], *self.lengths, *self.sizes, *self.dilations, *map(int, values[4:])]

    @classmethod
    def of(cls, numbers: Sequence[int]) -> Structure:
        """From `numbers`."""
        rest = iter(numbers)
        count, targets = next(rest), next(rest)
        lengths = tuple(next(rest) for _ in range(count))
        sizes = tuple(next(rest) for _ in range(sum(lengths)))
        dilations = tuple(next(rest) for _ in sizes)
        stride, *flags, others = rest
        return cls(targets, lengths, sizes, dilations, stride, *map(bool, flags), others)

    def steps(self, channels: int) -> Iterator[Step]:
        """The steps of chains of so many channels."""
        first = begin = 0
        for i in range(max(self.lengths, default=0)):
            count = sum(length > i for length in self.lengths)
            sizes = self.sizes[first : first + count]
            middle = begin + self.targets * channels * sum(size * size for size in sizes)
            end = middle + count * self.targets * channels * channels
            yield Step(sizes, self.dilations[first : first + count], slice(begin, middle), slice(middle, end))
            first, begin = first + count, end

    def weights(self, channels: int) -> int:
        """How many flat weights there are."""
        return max((step.pointwise.stop for step in self.steps(channels)), default=0)

    def shared(self) -> int:
        """How many maps the targets share."""
        return self.max_pool + self.avg_pool + self.same

    def normalise(self) -> list[bool]:
        """For chains, other maps and shared maps, in this order, whether they are normalised."""
        own = [True] * (len(self.lengths) + self.others)
        return own + [self.normalised] * (self.max_pool + self.avg_pool) + [False] * self.same

    def ends(self, maps: Sequence[Tensor], channels: int) -> list[Tensor]:
        """Each chain's last map [B, T*C, H', W'], of the steps' maps [B, chains * T*C, H', W']."""
        rows = self.targets * channels
        return [maps[length - 1][:, j * rows : (j + 1) * rows] for j, length in enumerate(self.lengths)]
