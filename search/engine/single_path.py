"""Training a supernet path by path, and scoring paths with its weights (Single Path One-Shot, arXiv 1904.00420)."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.runner.loops import ValLoop
from torch import nn

from search.registry import LOOPS, RUNNERS
from search.space import Architecture
from search.strategies.paths import uniform_path
from search.supernet.recalibrate import recalibrate

from . import distributed
from .data import Stream, kept_random_states
from .errors import UserError
from .loaders import training_loader
from .loops import ExactLoop
from .search_runner import SearchRunner


@contextmanager
def kept_buffers(model: nn.Module) -> Iterator[None]:
    """Puts the buffers (running statistics) back that the block changes."""
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        yield
    finally:
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                buffer.copy_(before[name])


def _called(model: nn.Module, data: Any, mode: str) -> Any:
    """The model on a prepared batch."""
    return model(**data, mode=mode) if isinstance(data, Mapping) else model(*data, mode=mode)


@LOOPS.register_module()
class SinglePathLoop(ExactLoop):
    """Each step trains one path; parameters that aren't on it keep their values, momenta included. Arguments as `ExactLoop`.

    An epoch is scored by one random path, the same in all.
    """

    phase = "paths"

    def __init__(self, runner, dataloader: Mapping[str, Any], **kwargs):
        super().__init__(runner, dataloader, **kwargs)
        self._loader = dataloader
        self._batches: list[Any] = []

    def step(self, batch: Any) -> dict[str, Any]:
        """One step of the weights on the step's path."""
        runner, wrapper, model = self.runner, self.runner.optim_wrapper, self.runner.model
        data = model.data_preprocessor(batch, True)
        path = runner.strategy.path(runner.space, runner.seed, self._iter)
        with wrapper.optim_context(model), runner.arch_params.masked(path):
            losses = _called(model, data, "loss")
        loss, outputs = model.parse_losses(losses)
        wrapper.backward(wrapper.scale_loss(loss))
        if wrapper.should_update():
            distributed.average_gradients(model.parameters())
            wrapper.step()
            # to None: optimisers leave alone what the next path doesn't reach
            wrapper.zero_grad()
        return outputs

    def recalibration(self) -> list[Any]:
        """Prepared batches of training images, the same ones for every path."""
        runner = self.runner
        if not self._batches:
            with kept_random_states():
                loader = training_loader(self._loader, runner.seed, "recalibration", runner.rank, runner.world_size)
                stream = Stream(loader)
                self._batches = [runner.model.data_preprocessor(stream.next(), True) for _ in range(runner.strategy.batches)]
                stream.close()
        return self._batches


@LOOPS.register_module()
class PathValLoop(ValLoop):
    """Validation of a supernet's paths, each after its batch norms were computed anew. Arguments as mmengine's ValLoop."""

    def run(self) -> dict[str, float]:
        """The metrics of the runner's `probe`."""
        runner = self.runner
        runner.call_hook("before_val")
        runner.call_hook("before_val_epoch")
        self.val_loss.clear()
        metrics = self.score(runner.probe)
        runner.call_hook("after_val_epoch", metrics=metrics)
        runner.call_hook("after_val")
        return metrics

    @torch.no_grad()
    def score(self, architecture: Architecture) -> dict[str, float]:
        """The metrics of a path; no hook runs, and the supernet is left as it was."""
        runner, model = self.runner, self.runner.model
        # a compiled supernet would be compiled again for every path
        compiled = model._compiled_call_impl is not None
        eager = torch.compiler.set_stance("force_eager") if compiled else nullcontext()
        with eager, kept_random_states(), kept_buffers(model), runner.arch_params.masked(architecture):
            with runner.optim_wrapper.optim_context(model):
                recalibrate(model, runner.train_loop.recalibration(), lambda data: _called(model, data, "tensor"))
            distributed.average_buffers(model)
            model.eval()
            for batch in self.dataloader:
                self.evaluator.process(data_samples=model.val_step(batch), data_batch=batch)
        return dict(self.evaluator.evaluate(len(self.dataloader.dataset)))


@RUNNERS.register_module()
class OneShotRunner(SearchRunner):
    """The runner of a one-shot search: a supernet whose gates are always those of one path; no logits are trained."""

    kind = "one-shot"

    @property
    def probe(self) -> Architecture:
        """The random path that validation looks at."""
        return uniform_path(self.space, self.seed, -1)

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """Moves the model to the device; refuses a wrapper, as `SearchRunner`."""
        if model_wrapper_cfg is not None:
            raise UserError("A search can't use model_wrapper_cfg: gradients are averaged by its loop. Leave it out.")
        self.say_if_sync_bn_is_off()
        model = self._placed(model)
        self.arch_params.to(get_device(), next(model.parameters()).dtype)
        return model

    def _prepare_for(self, ours: Mapping[str, Any]) -> None:
        """Nothing: there are no stages."""
