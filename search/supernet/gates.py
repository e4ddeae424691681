"""Gates: how logits become weights of options, and which options run.

A gate is called with the space and the logits, one vector per relaxed choice, and returns for each a weight per option and
the indices of the active options; every plan runs only those. Options that are weighed against each other are a *group*: all
options of a choice, but of a walk the moves that leave one state (`groups`).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from search.space import Space, Walk


class GateRule(Protocol):
    """What `ArchParams.gated` calls."""

    def __call__(self, space: Space, logits: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, tuple[int, ...]]]:
        """`logits[name]`: [n options] -> (weights [n options], active options). A walk's options are its moves."""
        ...


def groups(space: Space, name: str, logit: Tensor) -> tuple[Tensor, ...]:
    """The logits of a choice, split where they are weighed apart: a walk's by the state that its moves leave."""
    choice = space[name]
    # moves that leave one state follow one another
    return logit.split(choice.outgoing) if isinstance(choice, Walk) and len(logit) else (logit,)


@dataclass(frozen=True)
class Softmax:
    """All options, weighted by softmax(logits / temperature) (DARTS, arXiv 1806.09055, eq. 2) over each group."""

    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature={self.temperature} must be above 0")

    def __call__(self, space: Space, logits: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, tuple[int, ...]]]:
        """`logits[name]`: [n options] -> (weights [n options], all options)."""
        parts = {name: groups(space, name, logit) for name, logit in logits.items()}
        alike: dict[int, list[Tensor]] = {}
        for part in itertools.chain.from_iterable(parts.values()):
            alike.setdefault(len(part), []).append(part)
        # groups of one size together: a supernet has dozens
        weights = {size: iter(self._softmax(torch.stack(rows)).unbind()) for size, rows in alike.items()}
        made = {name: [next(weights[len(part)]) for part in of_choice] for name, of_choice in parts.items()}
        return {
            name: (rows[0] if len(rows) == 1 else torch.cat(rows), tuple(range(len(logits[name]))))
            for name, rows in made.items()
        }

    def _softmax(self, rows: Tensor) -> Tensor:
        return torch.softmax(rows if self.temperature == 1 else rows / self.temperature, dim=-1)
