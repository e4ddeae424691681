"""The networks that a model's config stands for: the supernet, and one for each architecture."""

import copy
from collections.abc import Mapping
from typing import Any

from search.cost.operations import Build, Networks
from search.registry import MODELS
from search.space import Architecture


def networks_of(model: Mapping[str, Any], adapter: Any = None) -> Networks:
    """What builds the networks of a model's config.

    ``adapter``: the task's; its ``derived_model(model, architecture)``, if it has one, says what config an architecture's
    network has where that isn't the supernet's.
    """
    return Networks(_built(model), lambda architecture: _built(derived_config(model, adapter, architecture)))


def derived_config(model: Mapping[str, Any], adapter: Any, architecture: Architecture) -> Mapping[str, Any]:
    """The config of an architecture's network, see `networks_of`."""
    derived = getattr(adapter, "derived_model", None)
    return model if derived is None else derived(model, architecture)


def _built(model: Mapping[str, Any]) -> Build:
    return lambda: MODELS.build(copy.deepcopy(model))
