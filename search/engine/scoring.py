"""Scoring a supernet on the validation split: as it is, and masked to one architecture."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from mmengine.runner.loops import ValLoop
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from search.registry import LOOPS
from search.space import Architecture
from search.supernet import suspended_statistics

from .errors import UserError


@contextmanager
def batch_statistics(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, but batch norms use the batch's statistics and move no running ones.

    A supernet's running statistics are of the mixture; an architecture masked out of it has others (DARTS,
    arXiv 1806.09055, A.1.1: batch statistics are used throughout the search).
    """
    model.train()
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.training]
    model.eval()
    for norm in norms:
        norm.train()
    with suspended_statistics(model):
        yield
    model.eval()


@LOOPS.register_module()
class SupernetValLoop(ValLoop):
    """Validation of a supernet; hooks see the scores of the mixture and, as 'derived/<key>', of the derived network.

    The derived network is the supernet masked to what the logits decode to. Arguments as mmengine's ValLoop. Batch norms
    use each batch's own statistics, so scores depend on the batch size a little, and a batch of one image is refused: it
    would be normalised by itself.
    """

    def __init__(self, runner, dataloader, evaluator, fp16=False):
        super().__init__(runner, dataloader, evaluator, fp16)
        loader = self.dataloader
        if loader.batch_size is None:
            return
        rest = len(loader.sampler) % loader.batch_size
        if loader.batch_size == 1 or (rest == 1 and not loader.drop_last):
            raise UserError(
                f"val_dataloader.batch_size={loader.batch_size} leaves a batch of one of the {len(loader.sampler)} images, "
                "which batch norms would normalise by itself: give another batch_size."
            )

    def run(self) -> dict[str, float]:
        """The metrics of both."""
        runner = self.runner
        runner.call_hook("before_val")
        runner.call_hook("before_val_epoch")
        self.val_loss.clear()
        with batch_statistics(runner.model), runner.arch_params.gated(runner.strategy.gate):
            for index, batch in enumerate(self.dataloader):
                self.run_iter(index, batch)
        metrics = dict(self.evaluator.evaluate(len(self.dataloader.dataset)))
        metrics.update({f"derived/{key}": value for key, value in self.score(runner.decode()).items()})
        runner.call_hook("after_val_epoch", metrics=metrics)
        runner.call_hook("after_val")
        return metrics

    @torch.no_grad()
    def score(self, architecture: Architecture) -> dict[str, float]:
        """The metrics of the supernet masked to one architecture; no hook runs."""
        runner = self.runner
        # a compiled supernet would be compiled again for every architecture
        compiled = runner.model._compiled_call_impl is not None
        eager = torch.compiler.set_stance("force_eager") if compiled else nullcontext()
        with eager, batch_statistics(runner.model), runner.arch_params.masked(architecture):
            for batch in self.dataloader:
                self.evaluator.process(data_samples=runner.model.val_step(batch), data_batch=batch)
        return dict(self.evaluator.evaluate(len(self.dataloader.dataset)))
