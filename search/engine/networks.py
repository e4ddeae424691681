"""The networks that a model's config stands for: the supernet, and one for each architecture."""

import copy
from collections.abc import Mapping
from typing import Any

from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from torch import nn

from search.cost.operations import Build, Networks
from search.registry import MODELS
from search.space import Architecture

from .errors import values_are_the_users


def network_of(name: str, model: Mapping[str, Any], scope: str | None = None) -> nn.Module:
    """A model's config, built; for tools that have no runner.

    ``scope``: where types without one are looked up, a config's ``default_scope``; by default the one of the model's own type.
    Raises UserError, which calls it ``name``, for values that its classes can't use.
    """
    # what mmcv may lack is there before a package of mm's is imported
    MODELS.import_from_location()
    scope = scope or str(model.get("type")).rpartition(".")[0] or None
    with values_are_the_users(name), DefaultScope.overwrite_default_scope(scope):
        return _build(model)


def networks_of(model: Mapping[str, Any], adapter: Any = None, scope: str | None = None) -> Networks:
    """What builds the networks of a model's config.

    ``adapter``: the task's; its ``derived_model(model, architecture)``, if it has one, says what config an architecture's
    network has where that isn't the supernet's. ``scope``: where types without one are looked up, if not in the scope at hand.
    """
    return Networks(_built(model, scope), lambda architecture: _built(derived_config(model, adapter, architecture), scope))


def derived_config(model: Mapping[str, Any], adapter: Any, architecture: Architecture) -> Mapping[str, Any]:
    """The config of an architecture's network, see `networks_of`."""
    derived = getattr(adapter, "derived_model", None)
    return model if derived is None else derived(model, architecture)


def _built(model: Mapping[str, Any], scope: str | None) -> Build:
    def build() -> nn.Module:
        with DefaultScope.overwrite_default_scope(scope):
            return _build(model)

    return build


def _build(model: Mapping[str, Any]) -> nn.Module:
    # mm's packages read their settings as attributes
    network: nn.Module = MODELS.build(ConfigDict(copy.deepcopy(dict(model))))
    return network
