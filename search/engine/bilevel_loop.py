"""The search loop: logits and weights in turn, on batches of their own splits."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import cycle
from typing import Any

import torch
from mmengine.hooks import EMAHook
from mmengine.optim import AmpOptimWrapper
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.func import functional_call

from search.registry import LOOPS
from search.strategies.bilevel import Bilevel
from search.strategies.virtual_sgd import learning_rates, virtual_sgd
from search.supernet import record, suspended_statistics

from . import distributed
from .data import Stream
from .diagnostics import describe_architecture
from .errors import UserError, whole_number
from .loaders import training_loader
from .loops import ExactLoop
from .parts import parts_of
from .searchable import modules_with, with_argument
from .stages import Stage, stages_of


@contextmanager
def _without_gradients(module: nn.Module) -> Iterator[None]:
    parameters = [p for p in module.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


@LOOPS.register_module()
class BilevelLoop(ExactLoop):
    """Alternating steps of logits and weights (DARTS, arXiv 1806.09055, algorithm 1).

    In each step the logits move first, on a batch of their own split, then the weights, on the training batch that a
    second order gradient looked ahead with. In the strategy's first ``freeze_epochs`` epochs only the weights move.
    Running statistics of batch norms move in the weight step alone.

    Args:
        arch_clip_grad: arguments of ``clip_grad_norm_`` for the logits' gradients; None: not clipped, as in DARTS.
        batch_parts: each batch goes through the network in so many parts, one after the other, and both steps take the mean
            of their gradients. What a step holds shrinks; steps, learning rates and the order of images stay. What changes:
            batch norms see a part, and a second order gradient looks ahead from a part.
        stages: a schedule for K of partial channels, such as ``[dict(begin=25, partial=2)]``, see `search.engine.stages`.
        others: as `ExactLoop`.
    """

    # over processes
    average = staticmethod(distributed.average)
    average_gradients = staticmethod(distributed.average_gradients)

    def __init__(
        self,
        runner,
        dataloader: Mapping[str, Any],
        arch_clip_grad: dict | None = None,
        batch_parts: int = 1,
        stages: Sequence[Mapping[str, Any]] = (),
        **kwargs,
    ):
        whole_number("train_cfg.batch_parts", batch_parts)
        super().__init__(runner, dataloader, **kwargs)
        loader = training_loader(runner.cfg["arch_dataloader"], runner.seed, "architecture", runner.rank, runner.world_size)
        self.arch_stream = Stream(loader)
        self.arch_clip_grad = arch_clip_grad
        self.batch_parts = batch_parts
        for name, images in (("train", self.dataloader.batch_sampler), ("arch", loader.batch_sampler)):
            if batch_parts > images.global_batch // images.world:
                raise UserError(
                    f"train_cfg.batch_parts={batch_parts} is more than the {images.global_batch // images.world} images of "
                    f"{name}_dataloader.batch_size."
                )
        self.stages = self._stages(stages)
        self._stage = 0

    def _stages(self, settings: Sequence[Mapping[str, Any]]) -> tuple[Stage, ...]:
        model = self.runner.cfg["model"]
        found = stages_of(settings, min((k for _, k in modules_with(model, "partial")), default=None), self._max_epochs)
        for number, stage in enumerate(found[1:]):
            try:
                record(lambda k=stage.partial: MODELS.build(with_argument(model, "partial", k)))
            except ValueError as error:
                raise UserError(f"train_cfg.stages[{number}].partial={stage.partial}: {error}") from error
        if found[1:] and any(isinstance(hook, EMAHook) for hook in self.runner.hooks):
            raise UserError("EMAHook averages weights of one shape, and train_cfg.stages change shapes: leave out one of them.")
        return found

    def enter(self, number: int) -> None:
        """Gives the supernet the K of a stage, by its number; nothing happens in the stage that it is in."""
        if number != self._stage:
            self.runner.set_partial(self.stages[number].partial)
            self.runner.logger.info(f"partial channels: K={self.stages[number].partial} from now on")
            self._stage = number

    def _run_epoch(self) -> None:
        self.enter(sum(stage.begin <= self._epoch for stage in self.stages) - 1)
        super()._run_epoch()

    def _searching(self, epoch: int) -> bool:
        """Whether the logits move in an epoch of the running stage."""
        stage = self.stages[self._stage]
        return epoch >= self.runner.strategy.freeze_epochs and epoch >= stage.begin + stage.freeze_epochs

    def step(self, batch: Any) -> dict[str, Any]:
        """One step of the logits (unless frozen), then one of the weights."""
        runner = self.runner
        if isinstance(runner.optim_wrapper, AmpOptimWrapper):
            raise UserError(
                "AmpOptimWrapper scales the weights' losses only: give the search optim_wrapper.type="
                "'AutocastOptimWrapper' (bfloat16)."
            )
        data = self._prepared(batch)
        outputs: dict[str, Any] = {}
        if self._searching(self._epoch):
            outputs["arch_loss"] = self._arch_step(data, self._prepared(self.arch_stream.next()))
        outputs.update(self._weight_step(data))
        return outputs

    def _prepared(self, batch: Any) -> Any:
        return self.runner.model.data_preprocessor(batch, True)

    def _parts(self, data: Any) -> list[tuple[float, Any]]:
        return parts_of(data, self.batch_parts)

    def _losses(self, data: Any, weights: Mapping[str, Tensor] | None = None) -> tuple[Tensor, dict[str, Any]]:
        """The model's loss on a prepared batch, with the given weights in place of its own."""
        runner, model = self.runner, self.runner.model
        args, kwargs = ((), dict(data)) if isinstance(data, Mapping) else (tuple(data), {})
        kwargs["mode"] = "loss"
        with runner.optim_wrapper.optim_context(model), runner.arch_params.gated(runner.strategy.gate):
            losses = functional_call(model, dict(weights or {}), args, kwargs)
        return model.parse_losses(losses)

    def _arch_step(self, train_data: Any, arch_data: Any) -> float:
        runner = self.runner
        logits = runner.arch_params.logits
        gradients: dict[str, Tensor] = {}
        value = 0.0
        # a last, smaller batch may have fewer parts
        train_parts = cycle(part for _, part in self._parts(train_data))
        for (share, arch_part), train_part in zip(self._parts(arch_data), train_parts, strict=False):
            found, loss = self._arch_gradients(train_part, arch_part)
            value += share * loss
            for name, gradient in found.items():
                gradients[name] = gradients[name] + share * gradient if name in gradients else share * gradient
        if runner.budget is not None:
            gradients = runner.budget.add_gradients(gradients, logits, runner.probabilities())
        runner.arch_optimizer.zero_grad()
        for name, gradient in gradients.items():
            logits[name].grad = gradient.to(logits[name].dtype)
        if self.arch_clip_grad:
            torch.nn.utils.clip_grad_norm_(list(logits.values()), **self.arch_clip_grad)
        runner.arch_optimizer.step()
        runner.arch_optimizer.zero_grad()
        return value

    def _arch_gradients(self, train_data: Any, arch_data: Any) -> tuple[dict[str, Tensor], float]:
        """The logits' gradients by name, and the loss on ``arch_data``."""
        runner = self.runner
        seen: list[float] = []

        def loss(data: Any, weights: Mapping[str, Tensor] | None) -> Tensor:
            with suspended_statistics(runner.model):
                return self._losses(data, weights)[0]

        def val_loss(weights: Mapping[str, Tensor] | None) -> Tensor:
            value = loss(arch_data, weights)
            seen.append(value.detach().item())
            return value

        optimizer = runner.optim_wrapper.optimizer
        weights = {name: p for name, p in runner.model.named_parameters() if p.requires_grad}
        problem = Bilevel(
            train_loss=lambda w: loss(train_data, w),
            val_loss=val_loss,
            weights=weights,
            logits=runner.arch_params.logits,
            virtual_step=lambda grads: virtual_sgd(optimizer, weights, grads),
            lr=learning_rates(optimizer, weights),
            average=self.average,
        )
        return runner.strategy.update(problem), seen[0]

    def _weight_step(self, data: Any) -> dict[str, Any]:
        wrapper = self.runner.optim_wrapper
        parts = self._parts(data)
        outputs: dict[str, Any] = {}
        # the logits' own gradients aren't needed here: no graph is kept for them
        with _without_gradients(self.runner.arch_params):
            for number, (share, part) in enumerate(parts, 1):
                loss, log_vars = self._losses(part)
                scaled = share * wrapper.scale_loss(loss)
                # the wrapper counts its backwards as steps
                backward = wrapper.backward if number == len(parts) else Tensor.backward
                backward(scaled)
                for name, value in log_vars.items():
                    outputs[name] = outputs.get(name, 0) + share * value.detach()
        if wrapper.should_update():
            self.average_gradients(self.runner.model.parameters())
            wrapper.step()
            wrapper.zero_grad()
        return outputs

    def epoch_line(self, metrics: Mapping[str, float] | None) -> dict[str, Any]:
        """The logits, what they decode to and its cost, the two scores and the gap between them."""
        runner = self.runner
        architecture = runner.decode()
        cost = runner.cost_of(architecture)
        # of the epoch that has just been counted
        frozen = not self._searching(self._epoch - 1)
        supernet = derived = None
        if metrics:
            supernet, derived = runner.score_of(metrics), runner.score_of(metrics, "derived/")
        scored = supernet is not None and derived is not None
        return {
            "phase": "freeze" if frozen else "search",
            "score": {"supernet": supernet, "derived": derived} if scored else {},
            "gap": runner.gap(supernet, derived) if scored else None,
            "partial": self.stages[self._stage].partial,
            "cost": {"params": cost.params, "macs": cost.macs} if cost else None,
            "budget": runner.budget.line(runner.arch_params.logits, architecture) if runner.budget else None,
            **describe_architecture(runner.space, runner.probabilities(), architecture, frozen),
        }

    def close(self) -> None:
        """Stops the workers of both streams."""
        super().close()
        self.arch_stream.close()

    def state_dict(self) -> dict[str, Any]:
        """As `ExactLoop.state_dict`, with the logits, their optimiser and the position in their data."""
        return {
            **super().state_dict(),
            "stage": self._stage,
            "arch_batches": self.arch_stream.consumed,
            "arch_params": self.runner.arch_params.state_dict(),
            "arch_optimizer": self.runner.arch_optimizer.state_dict(),
            "budget_weights": dict(self.runner.budget.weights) if self.runner.budget else {},
        }

    def load_state_dict(self, state: Mapping[str, Any], states: dict[str, Any] | None) -> None:
        """As `ExactLoop.load_state_dict`."""
        super().load_state_dict(state, states)
        self.arch_stream.seek(state["arch_batches"])
        self.runner.arch_params.load_state_dict(state["arch_params"])
        self.runner.arch_optimizer.load_state_dict(state["arch_optimizer"])
        if self.runner.budget is not None:
            self.runner.budget.weights.update(state["budget_weights"])
