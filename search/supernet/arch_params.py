"""The architecture parameters: the only owner of logits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from search.space import Architecture, Choice, OneOf, Order, Ordinal, SomeOf, Space, Walk
from search.space.structured import Transition
from search.supernet.gates import GateRule, Softmax
from search.supernet.mixed import Gate, Gates


class ArchParams(nn.Module):
    """Logits of the relaxed choices of `space`, and the gates that wide modules read.

    Every `OneOf` and `Ordinal` has a logit per option. A `SomeOf` (the inputs a node keeps) has one only with `edge_logits`
    (PC-DARTS' edge normalisation); without, all its options are active and unweighted, as in DARTS. A `Walk` has one per move
    that some path makes, in the order of its `transitions`; gates weigh the moves that leave a state against each other
    (Auto-DeepLab, arXiv 1901.02985, eq. 7 and 8). An `Order` has one per permutation, its `arrangements`. Logits start as
    `std` x N(0, 1) drawn from `seed` alone, so they don't depend on what else was built. Raises ValueError for other choices.
    """

    def __init__(self, space: Space, *, edge_logits: bool = False, std: float = 1e-3, seed: int = 0) -> None:
        super().__init__()
        self.space = space
        self.gates = Gates()
        generator = torch.Generator().manual_seed(seed)
        logits = {}
        for choice in space:
            if not isinstance(choice, (OneOf, Order, Ordinal, SomeOf, Walk)):
                raise ValueError(f"{choice.name!r} is a {type(choice).__name__}: gradient strategies can't relax it")
            if edge_logits or not isinstance(choice, SomeOf):
                logits[choice.name] = nn.Parameter(std * torch.randn(len(_alternatives(choice)), generator=generator))
        self._logits = nn.ParameterDict(logits)

    @property
    def logits(self) -> dict[str, nn.Parameter]:
        """Logits by choice, each [n options], of a walk [n moves], of an order [n permutations]."""
        return dict(self._logits.items())

    @contextmanager
    def gated(self, gate: GateRule) -> Iterator[None]:
        """Open the gates by `gate`; a forward inside is differentiable in the logits."""
        with self.gates.opened(self._complete(gate(self.space, self.logits))):
            yield

    @contextmanager
    def masked(self, architecture: Architecture, *, dense: bool = False) -> Iterator[None]:
        """Open the gates of `architecture` alone: weight one where it chose, nothing else runs.

        With `dense` every option runs and is multiplied by its 0 or 1, the same value at a supernet's full cost. The other
        moves of a walk don't run then either: the states that they lead to would take part as zeros, not as absent.
        """
        device = next((p.device for p in self._logits.values()), None)
        dtype = next((p.dtype for p in self._logits.values()), None)
        values: dict[str, Gate] = {}
        for choice in self.space:
            options = _alternatives(choice)
            if choice.name not in architecture:
                chosen: tuple[int, ...] = ()
            elif isinstance(choice, Walk):
                chosen = choice.transitions_of(architecture[choice.name])
            elif isinstance(choice, SomeOf):
                chosen = tuple(options.index(o) for o in architecture[choice.name])
            else:
                chosen = (options.index(architecture[choice.name]),)
            if dense and not isinstance(choice, Walk):
                mask = torch.zeros(len(options), device=device, dtype=dtype)
                mask[list(chosen)] = 1.0
                values[choice.name] = mask, tuple(range(len(options)))
            else:
                values[choice.name] = None, chosen
        with self.gates.opened(values):
            yield

    @torch.no_grad()
    def probabilities(self, gate: GateRule | None = None) -> dict[str, list[float] | dict[Transition, float]]:
        """The gates' weights as plain numbers, what decoding and reports read (float64 softmax of the logits by default).

        Of a walk a mapping from (layer, from, to) to the weight of that move.
        """
        if gate is None:
            values = Softmax()(self.space, {name: logit.double() for name, logit in self.logits.items()})
        else:
            values = gate(self.space, self.logits)
        found: dict[str, list[float] | dict[Transition, float]] = {}
        for name, (weights, _) in values.items():
            choice, numbers = self.space[name], weights.tolist()
            found[name] = dict(zip(choice.transitions, numbers, strict=True)) if isinstance(choice, Walk) else numbers
        return found

    def _complete(self, values: Mapping[str, Gate]) -> dict[str, Gate]:
        complete = dict(values)
        for choice in self.space:
            if choice.name not in complete:
                complete[choice.name] = None, tuple(range(len(_alternatives(choice))))
        return complete


def _alternatives(choice: Choice) -> tuple:
    """What a gate weighs: a choice's options, a walk's moves, an order's permutations."""
    if isinstance(choice, Walk):
        return choice.transitions
    return choice.arrangements if isinstance(choice, Order) else choice.options
