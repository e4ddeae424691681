"""The mixed operation: the weighted sum of the candidates of one choice.

Shapes: B batch, C channels, H and W height and width.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

# a gate's value for one choice: a weight per option (None: every weight is one) and the options to run
Gate = tuple[Tensor | None, tuple[int, ...]]


class Gates:
    """The values of all gates during a forward, published by `ArchParams` and read by the wide modules.

    All wide modules of a supernet share one instance, also after `copy.deepcopy` (EMA): a copy of a network is gated
    together with the network.
    """

    def __init__(self) -> None:
        self._values: Mapping[str, Gate] | None = None
        self._shared: dict[Hashable, Tensor | None] = {}

    def __getitem__(self, choice: str) -> Gate:
        if self._values is None:
            raise RuntimeError(
                f"the gate of {choice!r} is closed: run the supernet inside `with params.gated(gate)` or "
                "`with params.masked(architecture)`"
            )
        return self._values[choice]

    @contextmanager
    def opened(self, values: Mapping[str, Gate]) -> Iterator[None]:
        """Publish `values` (one per choice) while the block runs."""
        outer, self._values = (self._values, self._shared), values
        self._shared = {}
        try:
            yield
        finally:
            self._values, self._shared = outer

    def shared(self, key: Hashable, make: Callable[[], Tensor | None]) -> Tensor | None:
        """What `make` makes of the values, once while they are published: the cells of a supernet read the same ones."""
        key = (key, torch.is_grad_enabled())
        if key not in self._shared:
            self._shared[key] = make()
        return self._shared[key]

    def __deepcopy__(self, memo: dict) -> Gates:
        return self


class Zero(nn.Module):
    """The `none` candidate: zeros, at half the resolution when `stride` is 2. [B, C, H, W] -> [B, C, H', W']."""

    def __init__(self, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Zeros whatever `x` holds, NaN included."""
        return torch.zeros_like(x[:, :, :: self.stride, :: self.stride])


class MixedOp(nn.Module):
    """Candidates of one choice, `sum_o value_o * o(x)` over the active ones (DARTS, arXiv 1806.09055, eq. 2).

    With a single candidate and no gates (`Fix`) it is that candidate; parameter names are the same in both builds:
    ``ops.<option>.<...>``.
    """

    def __init__(self, choice: str, ops: Mapping[str, nn.Module], gates: Gates | None) -> None:
        super().__init__()
        assert gates is not None or len(ops) == 1
        self.choice = choice
        self.gates = gates
        self.ops = nn.ModuleDict(ops)

    @property
    def only(self) -> nn.Module:
        """The one operation of a narrow build."""
        (op,) = self.ops.values()
        return op

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> what the candidates make of it, all of one shape."""
        if self.gates is None:
            return self.only(x)
        values, active = self.gates[self.choice]
        ops = list(self.ops.values())
        # a zero adds nothing to the sum; its weight still takes part in the softmax that made the others
        running = [i for i in active if not isinstance(ops[i], Zero)] or active[:1]
        total = None
        for i in running:
            y = ops[i](x) if values is None else values[i] * ops[i](x)
            total = y if total is None else total + y
        assert total is not None, f"no active option at {self.choice}"
        return total
