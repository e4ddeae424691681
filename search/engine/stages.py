"""A schedule for K of partial channels: stages of a search from whose first epoch on candidates see more channels.

``train_cfg.stages = [dict(begin=25, partial=2)]``: the search starts with the model's own K, ``model.backbone.partial``, and
from epoch 25, counted from 0, K is 2. As in DrNAS's progressive search (X. Chen et al., arXiv 2006.10355; official code
xiangning-chen/DrNAS at f2caa4d: K 6 to 4 on CIFAR-10, 6 to 3 on ImageNet, halfway), K only falls and everything goes on:
logits, both optimisers, learning rates, position in the data. Weights whose shape depends on K are widened, their momenta
and running statistics likewise; nothing is drawn anew.

What we do differently: a new channel copies old channel j mod the old number instead of one drawn at random, so a stage has
no random state. Operations aren't dropped between stages. Copied input channels aren't divided by their number: what the
weights of a candidate lead to is normalised.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .errors import UserError, whole_number

_KEYS = ("begin", "partial", "freeze_epochs")


@dataclass(frozen=True)
class Stage:
    """From epoch ``begin`` on (counted from 0) K is ``partial``; logits wait for the first ``freeze_epochs`` epochs of it."""

    begin: int
    partial: int | None
    freeze_epochs: int = 0


def stages_of(settings: Sequence[Mapping[str, Any]], own: int | None, epochs: int) -> tuple[Stage, ...]:
    """The stages of a search of ``epochs`` epochs, the one with the model's own K first.

    ``settings``: of the others. ``own``: K of the model, None where no module has partial channels.
    Raises UserError for a model without partial channels, unknown or missing keys, stages that don't follow each other or begin
    after the last epoch, and a K that isn't smaller than the one before.
    """
    stages = [Stage(0, own)]
    if settings and own is None:
        raise UserError("train_cfg.stages change partial channels, but no module of the model takes 'partial'.")
    for number, given in enumerate(settings):
        place = f"train_cfg.stages[{number}]"
        if not isinstance(given, Mapping) or not {"begin", "partial"} <= set(given) <= set(_KEYS):
            raise UserError(f"{place}={given!r} must give begin and partial, and may give freeze_epochs, of whole numbers.")
        least = {"begin": stages[-1].begin + 1, "partial": 1, "freeze_epochs": 0}
        stage = Stage(**{key: whole_number(f"{place}.{key}", value, least[key]) for key, value in given.items()})
        if stage.begin >= epochs:
            raise UserError(f"{place}.begin={stage.begin} comes after the last of {epochs} epochs, which are counted from 0.")
        if stage.partial >= stages[-1].partial:
            raise UserError(f"{place}.partial={stage.partial} must be smaller than {stages[-1].partial}, the K before.")
        stages.append(stage)
    return tuple(stages)


def widened(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    """The tensor with more entries along its dimensions: entry j is the old one at j mod the old length."""
    for dim, length in enumerate(shape):
        if length != tensor.shape[dim]:
            assert length > tensor.shape[dim], f"{tuple(tensor.shape)} can't be widened to {tuple(shape)}"
            tensor = tensor.index_select(dim, torch.arange(length, device=tensor.device) % tensor.shape[dim])
    return tensor


@torch.no_grad()
def take_over(new: nn.Module, old: nn.Module, optimizer: Optimizer) -> nn.Module:
    """``new`` with the parameters (the same objects) and buffers of ``old``, widened to new's shapes.

    What ``optimizer`` keeps of a parameter in the parameter's shape, such as its momentum, is widened with it.
    """
    shapes = {name: tensor.shape for name, tensor in (*new.named_parameters(), *new.named_buffers())}
    assert shapes.keys() == {name for name, _ in (*old.named_parameters(), *old.named_buffers())}
    for name, parameter in old.named_parameters():
        state = optimizer.state.get(parameter, {})
        for key, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                state[key] = widened(value, shapes[name])
        parameter.data = widened(parameter.data, shapes[name])
        _put(new, name, parameter)
    for name, buffer in old.named_buffers():
        _put(new, name, widened(buffer, shapes[name]))
    return new


def _put(module: nn.Module, name: str, tensor: Tensor) -> None:
    owner, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(owner), leaf, tensor)
