"""A derived network takes over the weights of the supernet it was found in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from search.supernet.mixed import MixedOp


@dataclass(frozen=True)
class Inherited:
    """Names of parameters and buffers.

    `loaded`: taken over; `without_counterpart`: only the derived network has them; `dropped`: only the supernet's side of an
    operation that was kept has them (the norms after pools in a search without affine norms), so that the derived network
    computes something else until it is trained.
    """

    loaded: tuple[str, ...]
    without_counterpart: tuple[str, ...]
    dropped: tuple[str, ...]


@torch.no_grad()
def inherit(narrow: nn.Module, wide: Mapping[str, Tensor]) -> Inherited:
    """Copy into `narrow` what the state_dict `wide` holds under the same name and shape.

    What has no counterpart must be announced by one of narrow's modules: ``without_counterpart()`` returns the names, below
    that module, that only a derived network has (affine norms, an auxiliary head); they keep their initial values and are
    returned. Everything else that is missing or has another shape raises ValueError naming it, before anything is copied.
    """
    announced = {
        f"{prefix}.{name}" if prefix else name
        for prefix, module in narrow.named_modules()
        if hasattr(module, "without_counterpart")
        for name in module.without_counterpart()
    }
    own = narrow.state_dict()
    missing = []
    for name, tensor in own.items():
        if name not in wide:
            if name not in announced:
                raise ValueError(f"{name} has no counterpart in the supernet: was the checkpoint made by another config?")
            missing.append(name)
        elif wide[name].shape != tensor.shape:
            raise ValueError(
                f"{name} has shape {tuple(tensor.shape)} here and {tuple(wide[name].shape)} in the supernet: inheriting needs "
                "the supernet's width and depth, and a supernet with all channels on each edge (partial=1)"
            )
    loaded = tuple(name for name in own if name in wide)
    for name in loaded:
        own[name].copy_(wide[name])
    kept = tuple(f"{n}.ops.{o}." for n, m in narrow.named_modules() if isinstance(m, MixedOp) for o in m.ops)
    return Inherited(loaded, tuple(missing), tuple(name for name in wide if name.startswith(kept) and name not in own))
