"""Gates: how logits become weights of options, and which options run.

A gate is called with the space and the logits, one vector per relaxed choice, and returns for each a weight per option and
the indices of the active options; every plan runs only those.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from search.space import Space


class GateRule(Protocol):
    """What `ArchParams.gated` calls."""

    def __call__(self, space: Space, logits: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, tuple[int, ...]]]:
        """`logits[name]`: [n options] -> (weights [n options], active options)."""
        ...


@dataclass(frozen=True)
class Softmax:
    """All options, weighted by softmax(logits / temperature) (DARTS, arXiv 1806.09055, eq. 2)."""

    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature={self.temperature} must be above 0")

    def __call__(self, space: Space, logits: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, tuple[int, ...]]]:
        """`logits[name]`: [n options] -> (weights [n options], all options)."""
        return {
            name: (torch.softmax(logit / self.temperature, dim=0), tuple(range(len(logit)))) for name, logit in logits.items()
        }
