"""Weights by name: from a checkpoint into a network, and from a network into what was exported of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


def load_weights(model: nn.Module, saved: Mapping[str, Any], path: str) -> None:
    """Give a network the weights of a checkpoint or a state_dict, read from `path`, all of them.

    Raises ValueError naming the first weight that one of the two lacks or that differs in shape.
    """
    ours = saved.get("visnas")
    if isinstance(ours, Mapping) and ours.get("kind") in ("search", "one-shot"):
        raise ValueError(f"{path} holds a search's supernet: train the architecture that was found with tools/train.py first")
    state = saved.get("state_dict", saved)
    if not isinstance(state, Mapping):
        raise ValueError(f"{path} holds no weights: its state_dict is {str(state)[:80]!r}")
    own = model.state_dict()
    for name in [*own, *state]:
        if name not in state or not isinstance(state[name], Tensor):
            raise ValueError(f"{path} has no weight {name}, which the network needs: it is of another network")
        if name not in own:
            raise ValueError(f"{path} has a weight {name}, which the network lacks: it is of another network")
        if state[name].shape != own[name].shape:
            raise ValueError(
                f"{path}: {name} has the shape {tuple(state[name].shape)}, and {tuple(own[name].shape)} in the network: "
                "it is of another network"
            )
    model.load_state_dict(state)


def fill(network: nn.Module, model: nn.Module) -> dict[str, Tensor]:
    """Give an exported network the weights of the model that it was made from, and return them: its state_dict."""
    state = model.state_dict()
    kept = {name: state[name].detach().cpu().clone() for name in network.state_dict()}
    network.load_state_dict(kept)
    return kept
