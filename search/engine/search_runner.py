"""The runner of a search."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.hooks import EMAHook
from mmengine.model import convert_sync_batchnorm, revert_sync_batchnorm
from mmengine.registry import MODELS, OPTIMIZERS
from torch import nn

from search.cost import Cost
from search.cost.operations import Networks, cost_of
from search.registry import RUNNERS, STRATEGIES
from search.space import Architecture, Space
from search.strategies.bilevel import Unrolled
from search.strategies.gradient import GradientStrategy
from search.strategies.virtual_sgd import check_sgd
from search.supernet import ArchParams, Relax, building, record

from . import distributed
from .budgeted_search import BudgetedSearch
from .data import kept_random_states
from .errors import UserError, values_are_the_users
from .execution import settle_plans
from .networks import networks_of
from .runner import ExactRunner
from .searchable import with_argument
from .stages import take_over


def strategy_of(cfg: Mapping[str, Any]) -> Any:
    """What the config's ``strategy`` describes: a `GradientStrategy` or a `SamplingStrategy`. UserError for an unknown type."""
    settings = copy.deepcopy(dict(cfg["strategy"]))
    strategy = STRATEGIES.get(settings.pop("type", ""))
    if strategy is None:
        known = ", ".join(sorted(STRATEGIES.module_dict))
        raise UserError(f"strategy.type of {cfg['strategy']} is unknown: known are {known}.")
    return strategy(**settings)


@RUNNERS.register_module()
class SearchRunner(ExactRunner):
    """The runner of a search: builds the model wide, owns the logits, their optimiser and the strategy.

    Reads ``strategy``, ``arch_optimizer`` and ``arch_dataloader`` from the config; its loop is `BilevelLoop`. Nothing is
    wrapped for several processes: the loop averages gradients itself.
    """

    kind = "search"
    # (C, H, W) of an input, which `search` sets; without it costs aren't counted
    input_size: tuple[int, ...] | None = None
    # the task's adapter, which may say what the derived networks are (`search` sets it)
    task: Any = None
    # what a found network may cost (`search` sets it)
    budget: BudgetedSearch | None = None

    def build_model(self, model: nn.Module | dict) -> nn.Module:
        """Lists the model's choices on the meta device, makes the logits, builds the model wide.

        Raises:
            UserError: the model isn't a config.
        """
        if not isinstance(model, dict):
            raise UserError(f"A search builds its model from a config (dict), not from a {type(model).__name__}.")
        self.strategy: GradientStrategy = strategy_of(self.cfg)
        with values_are_the_users("model"):
            recorded = record(lambda: MODELS.build(copy.deepcopy(model)))
        self.parts: dict[str, Space] = recorded.parts
        self.space = recorded.space
        self.arch_params = ArchParams(self.space, edge_logits=self.strategy.edge_logits, seed=self.seed)
        with building(Relax(self.arch_params)):
            return MODELS.build(copy.deepcopy(model))

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """Moves model and logits to the device; refuses a wrapper, see the class."""
        if model_wrapper_cfg is not None:
            raise UserError("A search can't use model_wrapper_cfg: gradients are averaged by its loop. Leave it out.")
        self.say_if_sync_bn_is_off()
        model = self._placed(model)
        # double weights get double logits
        dtype = torch.float64 if next(model.parameters()).dtype == torch.float64 else torch.float32
        self.arch_params.to(get_device(), dtype)
        with values_are_the_users("arch_optimizer"):
            self.arch_optimizer = OPTIMIZERS.build(
                dict(self.cfg["arch_optimizer"]), default_args={"params": list(self.arch_params.parameters())}
            )
        return model

    def _placed(self, model: nn.Module) -> nn.Module:
        """On the device, with the batch norms that the config asks for."""
        sync_bn = self.cfg.get("sync_bn")
        if not self.distributed or not torch.cuda.is_available():
            model = revert_sync_batchnorm(model)
        elif sync_bn is not None:
            model = convert_sync_batchnorm(model, sync_bn)
        model = model.to(get_device())
        settle_plans(model, getattr(self.strategy.update, "exact", False))
        return model

    def set_partial(self, k: int) -> None:
        """Builds the supernet anew with a smaller K of partial channels, on the weights that it has, see `stages`."""
        with kept_random_states(), building(Relax(self.arch_params)):
            wide = MODELS.build(with_argument(self.cfg["model"], "partial", k))
        self.model = take_over(self._placed(wide), self.model, self.optim_wrapper.optimizer)
        self._maybe_compile("train_step")

    def _prepare_for(self, ours: Mapping[str, Any]) -> None:
        self.train_loop.enter(ours["loop"].get("stage", 0))

    def _init_model_weights(self) -> None:
        super()._init_model_weights()
        distributed.same_everywhere([self.model, self.arch_params])

    def build_optim_wrapper(self, optim_wrapper):
        """As mmengine's; an optimiser that a second order strategy can't look ahead with is refused here, not later."""
        built = super().build_optim_wrapper(optim_wrapper)
        if isinstance(self.strategy.update, Unrolled):
            check_sgd(built.optimizer)
        return built

    def decode(self) -> Architecture:
        """The architecture that the logits stand for now; with a budget one that is within it."""
        if self.budget is not None:
            return self.budget.decode(self.probabilities())
        return self.strategy.decode(self.space, self.probabilities())

    def probabilities(self) -> dict[str, Any]:
        """The weights that the strategy's gate gives the options now, and the moves of walks (see `ArchParams`)."""
        return self.arch_params.probabilities(self.strategy.gate)

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """With the weights that validation uses: those of an EMAHook, if the config has one."""
        averaging = [hook for hook in self.hooks if isinstance(hook, EMAHook)]
        for hook in averaging:
            hook.before_test_epoch(self)
        try:
            yield
        finally:
            for hook in averaging:
                hook.after_test_epoch(self)

    @property
    def networks(self) -> Networks:
        """What builds the derived networks, of the search's own width and depth."""
        return networks_of(self.cfg["model"], self.task)

    def cost_of(self, architecture: Architecture) -> Cost | None:
        """What an architecture's derived network costs as a whole; None without an input size."""
        return None if self.input_size is None else cost_of(self.networks, architecture, self.input_size)

    def gap(self, supernet: float, derived: float) -> float:
        """How much worse the derived network scores than the supernet; negative when it scores better."""
        return supernet - derived if self.score[1] == "greater" else derived - supernet
