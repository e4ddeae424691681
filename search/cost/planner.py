"""Which settings of a search fit in a given memory, chosen in a fixed order.

What is changed, from what is given up first to what is given up last:

1. execution: the batched plan of mixed operations computes the same sums in another order and keeps less, and what it
   recomputes in backward ("balanced", "small") is exact, running statistics included. Only time changes.
2. precision: autocast to bfloat16 rounds activations; nothing of the method or its settings changes. float16 takes the
   same bytes but needs its loss scaled, which gradients taken by ``autograd.grad`` are not, so it isn't offered; nor is
   bfloat16 on a GPU that only emulates it.
3. parts: each batch goes through the network in parts, and a step takes the mean of their gradients. The batch size, the
   number of steps and both learning rates are the config's; batch norms see a part of the batch, and a second order gradient
   looks ahead from a part. (A smaller batch with a smaller learning rate would also change how far the logits move, because
   Adam's steps don't depend on the batch and there would be more of them.)
4. crop: the network is searched on smaller images than the config's, and what is best may depend on that.
5. partial, the K of partial channels (PC-DARTS, arXiv 1907.05737, section 3.1), comes last: candidates then see 1/K of the
   channels, which is another method, and its results aren't the config's.

A setting is preferred to another if it gives up less of the last thing, then of the one before, and so on. So a batch is
parted only when neither recomputation nor bfloat16 is enough for a whole one.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product

ORDER = ("execution", "precision", "parts", "crop", "partial")
# of these each value needs less than the one before, the config's own too
_FALLING = ("crop", "partial")
_UNITS = {"B": 1}
for _i, _letter in enumerate("kMGT", 1):
    _UNITS[f"{_letter.upper()}B"], _UNITS[f"{_letter.upper()}IB"] = 1000**_i, 1024**_i


def parse_bytes(text: str) -> int:
    """Bytes of a size such as '11GB' (10^9), '11 GiB' (2^30) or '900MB'.

    Raises ValueError for another unit, none, or nothing above 0.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*", text)
    factor = None if found is None else _UNITS.get(found[2].upper())
    size = 0 if found is None or factor is None else int(float(found[1]) * factor)
    if size < 1:
        raise ValueError(f"{text!r} is not a size of memory: give a number and a unit, such as 11GB, 10.5GiB or 900MB")
    return size


def say_bytes(size: float) -> str:
    """Bytes for people, in units of 10^9 or 10^6."""
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


@dataclass(frozen=True)
class Setting:
    """One value for each thing of `ORDER`, None where the network has no such argument, and the batch.

    ``execution``: a plan of execution and what it recomputes; ``parts``: of a batch, one after the other; ``crop``: side of
    an image in pixels; ``partial``: K; ``batch``: images of one process in a step.
    """

    execution: str | None
    precision: str
    parts: int
    crop: int | None
    partial: int | None
    batch: int

    def __str__(self) -> str:
        words = [f"batch {self.batch}" + (f" in {self.parts} parts" if self.parts > 1 else ""), self.precision]
        if self.crop is not None:
            words.insert(1, f"crop {self.crop}")
        if self.execution is not None:
            words.append(self.execution)
        if self.partial is not None:
            words.insert(0, f"K={self.partial}")
        return ", ".join(words)


@dataclass(frozen=True)
class Ladders:
    """The values of each thing of `ORDER`, the config's own first, the others in falling order of memory. None is empty.

    ``batch``: the config's, images of one process.
    """

    execution: Sequence[str | None]
    precision: Sequence[str]
    parts: Sequence[int]
    crop: Sequence[int | None]
    partial: Sequence[int | None]
    batch: int

    @property
    def first(self) -> Setting:
        """The config's own setting."""
        return Setting(batch=self.batch, **{name: getattr(self, name)[0] for name in ORDER})


@dataclass(frozen=True)
class Need:
    """Bytes that a step holds, counted on fake tensors.

    ``parameters``, ``buffers``, ``gradients`` and ``optimizer`` (states of both optimisers, and averaged weights) as
    tensors; ``kept``: for backward, by phase; ``peaks``: the most held at once, all of these included, by phase.
    """

    parameters: int
    buffers: int
    gradients: int
    optimizer: int
    kept: Mapping[str, int] = field(default_factory=dict)
    peaks: Mapping[str, int] = field(default_factory=dict)

    @property
    def peak(self) -> int:
        """The most held at once in any phase."""
        return max(self.peaks.values())

    @property
    def most_kept(self) -> int:
        """Bytes kept for backward by the larger phase."""
        return max(self.kept.values())


@dataclass(frozen=True)
class Reserve:
    """What a process needs beside a step's tensors: ``fixed`` bytes and a ``share`` of the tensors' peak.

    It stands for the device's context, workspaces, rounding and gaps of the allocator.
    """

    fixed: int = 0
    share: float = 0.0

    def with_peak(self, peak: float) -> int:
        """Bytes in all."""
        return int(peak * (1 + self.share)) + self.fixed


class NothingFits(ValueError):
    """No setting fits. ``need``: the smallest bytes that would, with ``setting``."""

    def __init__(self, limit: int, setting: Setting, need: int) -> None:
        super().__init__(f"nothing fits in {say_bytes(limit)}: the smallest need is {say_bytes(need)} ({setting})")
        self.setting, self.need = setting, need


class Needs:
    """Bytes in all that settings need, from measurements at a few batch sizes.

    A peak is the largest of sums that grow linearly with the batch, so it is convex in it: between two measured
    batches a straight line is never too low. It is exact at those.

    Args:
        measure: counts one setting; called once for each that is needed.
        batches: batch sizes to measure at, at least one; others, asked for only of whole batches, must lie between them.
        reserve: added to each.
    """

    def __init__(self, measure: Callable[[Setting], Need], batches: Sequence[int], reserve: Reserve) -> None:
        self._measure, self.batches, self.reserve = measure, sorted(set(batches)), reserve
        self._found: dict[Setting, Need] = {}

    def exact(self, setting: Setting) -> Need:
        """The measurement of one setting."""
        if setting not in self._found:
            self._found[setting] = self._measure(setting)
        return self._found[setting]

    def exact_bytes(self, setting: Setting) -> int:
        """Bytes in all of one setting, measured."""
        return self.reserve.with_peak(self.exact(setting).peak)

    def __call__(self, setting: Setting) -> int:
        """Bytes in all of one setting, measured or from the line between two measurements."""
        if setting in self._found or setting.batch in self.batches:
            return self.exact_bytes(setting)
        place = bisect_right(self.batches, setting.batch)
        assert 0 < place < len(self.batches), f"batch {setting.batch} lies outside {self.batches}"
        low, high = self.batches[place - 1], self.batches[place]
        first, last = (self.exact(replace(setting, batch=b)).peak for b in (low, high))
        share = (setting.batch - low) / (high - low)
        return self.reserve.with_peak(first + share * (last - first))

    def largest_batch(self, setting: Setting, limit: int) -> int | None:
        """The largest batch, of those between the smallest and the largest measured, that fits; None if none does.

        Starts from the setting's own batch and measures on the one side of it that is asked for.
        """
        if self(setting) <= limit:
            low, high = setting.batch, self.batches[-1]
            if self(replace(setting, batch=high)) <= limit:
                return high
        else:
            low, high = self.batches[0], setting.batch
            if self(replace(setting, batch=low)) > limit:
                return None
        # low fits, high doesn't
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self(replace(setting, batch=middle)) <= limit else (low, middle)
        return low


def choose(ladders: Ladders, needs: Callable[[Setting], int], limit: int) -> Setting:
    """The first setting in the order of preference that needs at most ``limit`` bytes.

    ``needs`` measures a whole step, so few settings are asked for: with all else equal, a setting further down a ladder is
    taken to need no more than one before it, the first of precision and of parts excepted. For what saves activations costs
    weights: bfloat16 keeps rounded copies, and from the second part on their gradients are there; so where weights are the
    most of it the config's own may need the least. Any execution may: the batched plan concatenates weights, and to compute
    a whole graph again takes as much at once as to keep it, if there is but one.
    Raises NothingFits with the smallest need.
    """
    found: dict[Setting, int] = {}

    def need(setting: Setting) -> int:
        if setting not in found:
            found[setting] = needs(setting)
        return found[setting]

    def least(names: Sequence[str], setting: Setting) -> Iterator[Setting]:
        """Those that may need the least of all that differ in ``names`` alone, first what gives up most."""
        of = {name: getattr(ladders, name) for name in names}
        ends = [
            values[-1:] if name in _FALLING else (values[-1], values[0]) if name != ORDER[0] else values[::-1]
            for name, values in of.items()
        ]
        return (replace(setting, **dict(zip(of, values, strict=True))) for values in product(*ends))

    def fits(names: Sequence[str], setting: Setting) -> bool:
        return any(need(corner) <= limit for corner in least(names, setting))

    def first(names: Sequence[str], setting: Setting) -> Setting | None:
        """The first that fits of all that differ from ``setting``, which has the first of them, in ``names`` alone."""
        *inner, name = names
        ladder = getattr(ladders, name)
        if not inner:
            made = (replace(setting, **{name: value}) for value in ladder)
            return next((one for one in made if need(one) <= limit), None)
        own = first(inner, setting)
        if own is not None or len(ladder) == 1 or not fits(inner, replace(setting, **{name: ladder[-1]})):
            return own
        # from its second value on a ladder needs less and less
        at = bisect_left(range(1, len(ladder) - 1), True, key=lambda i: fits(inner, replace(setting, **{name: ladder[i]})))
        return first(inner, replace(setting, **{name: ladder[1 + at]}))

    if need(ladders.first) <= limit:
        return ladders.first
    if not fits(ORDER, ladders.first):
        smallest = min(least(ORDER, ladders.first), key=need)
        raise NothingFits(limit, smallest, need(smallest))
    chosen = first(ORDER, ladders.first)
    assert chosen is not None, "a setting was found to fit"
    return chosen


def parted(batch: int) -> tuple[int, ...]:
    """Numbers of parts to cut a batch in: 1, 2, 4, 8, as long as every part holds at least 2 images."""
    return (1, *(parts for parts in (2, 4, 8) if batch >= 2 * parts))


def smaller(side: int) -> tuple[int, ...]:
    """A crop's side and smaller ones down to half of it: multiples of 32 pixels, of 4 below 128; none below 16."""
    unit = 32 if side >= 128 else 4
    if side < 16:
        return (side,)
    steps = range(side // unit * unit, (side - 1) // 2, -unit)
    return (side, *(step for step in steps if step < side))
