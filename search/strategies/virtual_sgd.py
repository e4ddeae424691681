"""The next step of an SGD optimiser as a function, for gradients through one virtual step of the weights.

DARTS, official code quark0/darts f276dd3, cnn/architect.py: w' = w - lr * (mu * v + grad + decay * w), v the
momentum buffer (zeros before the first step). Gradient clipping isn't part of it, there or here.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor


def virtual_sgd(
    optimizer: torch.optim.Optimizer, weights: Mapping[str, Tensor], grads: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The weights after the optimiser's next step on ``grads``; nothing is changed.

    ``weights`` holds, by name, the very tensors that the optimiser holds; momentum buffers, weight decay and
    learning rates are read from it as they are now. A weight without gradient is returned as it is, as SGD
    leaves it. The result is differentiable in ``grads``. ValueError for another optimiser than plain SGD with
    momentum.
    """
    check_sgd(optimizer)
    ahead = {name: weight.detach() for name, weight in weights.items()}
    for name, weight, group in _held(optimizer, weights):
        if name not in grads:
            continue
        value = weight.detach()
        step = grads[name] + group["weight_decay"] * value
        buffer = optimizer.state.get(weight, {}).get("momentum_buffer")
        if group["momentum"] and buffer is not None:
            step = step + group["momentum"] * buffer.detach()
        ahead[name] = value - float(group["lr"]) * step
    return ahead


def learning_rates(optimizer: torch.optim.Optimizer, weights: Mapping[str, Tensor]) -> dict[str, float]:
    """The current learning rate of each weight, for ``Bilevel.lr``; 0 where the optimiser holds none."""
    rates = dict.fromkeys(weights, 0.0)
    rates.update({name: float(group["lr"]) for name, _, group in _held(optimizer, weights)})
    return rates


def check_sgd(optimizer: torch.optim.Optimizer) -> None:
    """ValueError naming what the virtual step can't reproduce: not SGD, nesterov, dampening or maximize."""
    if not isinstance(optimizer, torch.optim.SGD):
        raise ValueError(
            f"The virtual step of second order search reproduces SGD, not {type(optimizer).__name__}; "
            "use SGD for the weights, or order=1."
        )
    for group in optimizer.param_groups:
        for option in ("nesterov", "dampening", "maximize"):
            if group[option]:
                raise ValueError(
                    f"The virtual step of second order search has no {option} (the weights' SGD has "
                    f"{option}={group[option]}); leave it out, or use order=1."
                )


def _held(optimizer: torch.optim.Optimizer, weights: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor, dict[str, Any]]]:
    """(name, the optimiser's tensor, its group) of each weight that the optimiser holds."""
    names = {id(weight): name for name, weight in weights.items()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if id(parameter) in names:
                yield names[id(parameter)], parameter, group
