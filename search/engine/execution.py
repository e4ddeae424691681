"""What a config's `plan` comes to on the device that a search runs on, said in the log."""

from __future__ import annotations

import logging

from mmengine.logging import print_log
from torch import nn

from search.supernet import MixedDag
from search.supernet.plans import choose_plan

from .errors import UserError


def settle_plans(model: nn.Module, differentiates_twice: bool) -> None:
    """As `settled`, and says in the log what ``plan="auto"`` is, and why."""
    for plan, why in settled(model, differentiates_twice):
        print_log(f"Supernet: plan='auto' is {plan!r}: {why}.", logger="current", level=logging.INFO)


def settled(model: nn.Module, differentiates_twice: bool) -> list[tuple[str, str]]:
    """What the plans that the config leaves open (``plan="auto"``) are for a supernet where it is, and why.

    Exact second order, which differentiates twice, takes the reference plan: such graphs are given it. Raises UserError
    where the config asks for another one, or for recomputation, together with it.
    """
    graphs = [module for module in model.modules() if isinstance(module, MixedDag)]
    said = set()
    for graph in graphs:
        if differentiates_twice and graph.plan not in ("reference", "auto"):
            raise UserError(
                f"plan={graph.plan!r} can't be differentiated twice, as strategy.exact=True asks: set plan='reference', "
                "or leave exact out for the finite difference."
            )
        if differentiates_twice and graph.memory != "fast":
            raise UserError(
                f"memory={graph.memory!r} can't be had with strategy.exact=True, whose plan, 'reference', recomputes nothing: "
                "leave memory out, or leave exact out for the finite difference."
            )
        if graph.plan != "auto":
            continue
        parameter = next(graph.parameters())
        if differentiates_twice:
            plan, why = "reference", "strategy.exact=True differentiates twice"
            graph.plan = plan
        else:
            plan, why = choose_plan(parameter.device, parameter.dtype)
        said.add((plan, why))
    return sorted(said)
