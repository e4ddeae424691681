"""The four guidelines of ShuffleNetV2 (arXiv 1807.11164, section 2) as networks whose speed a device can be asked for.

Each guideline compares settings of about equal multiply-adds: ten equal blocks on a map of 56x56, as in the paper's tables 1 to
4. A setting's channels follow from those of the first, c: the paper's c is 128 (tables 1 to 3) and 32 (table 4) on its GPU.

What the paper leaves open is taken plainly: convolutions have no bias, no norm and, except in G4, no activation; G4's
bottleneck has c channels throughout. Reproduced are the settings, not the paper's figures, which are of its own devices.

Shapes: B batch, C channels, H and W height and width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from search.cost.count import count
from search.cost.latency import Clock, Latency, Timed, Timing, time_modules

BLOCKS = 10
SIZE = 56


@dataclass(frozen=True)
class Setting:
    """One network of a comparison: its `label`, the channels C that it takes, and how it is built."""

    label: str
    channels: int
    build: Callable[[], nn.Module]


@dataclass(frozen=True)
class Guideline:
    """A claim of the paper, and for c channels the settings that test it, the first being the reference."""

    name: str
    claim: str
    settings: Callable[[int], Sequence[Setting]]


class Parallel(nn.Module):
    """The sum of 1x1 convolutions that all read the same map. [B, C, H, W] -> [B, C, H, W]."""

    def __init__(self, channels: int, fragments: int) -> None:
        super().__init__()
        self.fragments = nn.ModuleList(_pointwise(channels, channels) for _ in range(fragments))

    def forward(self, x: Tensor) -> Tensor:
        """Convolve by each, add up."""
        first, *others = (fragment(x) for fragment in self.fragments)
        total: Tensor = first
        for y in others:
            total = total + y
        return total


class Bottleneck(nn.Module):
    """ResNet's unit of 1x1, 3x3 and 1x1 convolutions, with or without ReLUs and shortcut. [B, C, H, W] -> [B, C, H, W]."""

    def __init__(self, channels: int, relu: bool, shortcut: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList([_pointwise(channels, channels), _full(channels), _pointwise(channels, channels)])
        self.relu = nn.ReLU() if relu else nn.Identity()
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """The last ReLU comes after the shortcut's addition."""
        first, second, third = self.layers
        y: Tensor = third(self.relu(second(self.relu(first(x)))))
        y = x + y if self.shortcut else y
        rectified: Tensor = self.relu(y)
        return rectified


def _pointwise(c_in: int, c_out: int, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, 1, groups=groups, bias=False)


def _full(channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, padding=1, bias=False)


def _repeated(block: Callable[[], nn.Module]) -> nn.Sequential:
    return nn.Sequential(*(block() for _ in range(BLOCKS)))


def _channel_ratio(c: int) -> list[Setting]:
    def block(c1: int, c2: int) -> nn.Sequential:
        return nn.Sequential(_pointwise(c1, c2), _pointwise(c2, c1))

    found = []
    for ratio in (1, 2, 6, 12):
        c1 = int(c / math.sqrt(ratio))
        found.append(Setting(f"1:{ratio} ({c1}, {ratio * c1})", c1, partial(_repeated, partial(block, c1, ratio * c1))))
    return found


def _groups(c: int) -> list[Setting]:
    found = []
    for groups in (1, 2, 4, 8):
        wide = int(c * math.sqrt(groups)) // groups * groups
        block = partial(_pointwise, wide, wide, groups)
        found.append(Setting(f"{groups} groups ({wide})", wide, partial(_repeated, block)))
    return found


def _fragmentation(c: int) -> list[Setting]:
    def series(channels: int, fragments: int) -> nn.Sequential:
        return nn.Sequential(*(_pointwise(channels, channels) for _ in range(fragments)))

    found = [Setting(f"1 fragment ({c})", c, partial(_repeated, partial(series, c, 1)))]
    for label, make in (("in series", series), ("in parallel", Parallel)):
        for fragments in (2, 4):
            narrow = int(c / math.sqrt(fragments))
            block = partial(make, narrow, fragments)
            found.append(Setting(f"{fragments} fragments {label} ({narrow})", narrow, partial(_repeated, block)))
    return found


def _element_wise(c: int) -> list[Setting]:
    names: Mapping[tuple[bool, bool], str] = {
        (False, False): "neither",
        (True, False): "ReLU",
        (False, True): "shortcut",
        (True, True): "ReLU and shortcut",
    }
    return [
        Setting(f"{name} ({c})", c, partial(_repeated, partial(Bottleneck, c, relu, shortcut)))
        for (relu, shortcut), name in names.items()
    ]


GUIDELINES: Sequence[Guideline] = (
    Guideline("G1", "equal channel widths minimise memory access", _channel_ratio),
    Guideline("G2", "many groups increase memory access", _groups),
    Guideline("G3", "fragmentation reduces parallelism", _fragmentation),
    Guideline("G4", "element-wise operations are not free", _element_wise),
)


def measure_guidelines(
    channels: Sequence[int], *, batch_size: int, device: torch.device, timing: Timing, clock: Clock | None = None
) -> list[dict[str, Any]]:
    """A row for each setting at each c of `channels`, all measured in the same rounds.

    A row has `guideline`, `c`, `setting`, `macs` of one image, latency (milliseconds a batch), `images_per_second` and
    `relative_speed`: multiply-adds a second over those of the guideline's first setting, for channels are whole numbers and
    the settings' counts differ by some percent.
    """
    rows: list[dict[str, Any]] = []
    modules: list[Timed] = []
    first: list[int] = []
    for c in channels:
        for guideline in GUIDELINES:
            reference = len(rows)
            for setting in guideline.settings(c):
                shape = (setting.channels, SIZE, SIZE)
                modules.append((setting.build().to(device), (torch.randn(batch_size, *shape, device=device),), {}))
                macs = count(setting.build, shape).macs
                rows.append({"guideline": guideline.name, "c": c, "setting": setting.label, "macs": macs})
                first.append(reference)
    for row, samples in zip(rows, time_modules(modules, device, timing, clock), strict=True):
        latency = Latency.of(samples, timing.warmup)
        row |= {**asdict(latency), "images_per_second": 1000 * batch_size / latency.median}
    for row, reference in zip(rows, first, strict=True):
        speed = row["macs"] / row["median"]
        row["relative_speed"] = speed / (rows[reference]["macs"] / rows[reference]["median"])
    return rows
