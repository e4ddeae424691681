"""The training loops: epochs that restart exactly at any step.

A loop's state is what a step depends on beside the weights: how many batches it consumed, the sums of the epoch so
far, the random states, and for a search the logits and their optimiser. It saves the state itself, after every hook
of a step or an epoch has run, so that nothing is half done in a checkpoint.
"""

import time
from collections.abc import Mapping
from typing import Any

from mmengine.runner.base_loop import BaseLoop
from torch import Tensor, nn

from search.registry import LOOPS

from . import distributed
from .data import Stream, kept_random_states, seed_everything, set_random_states
from .diagnostics import peak_memory_mib
from .errors import single_values_are_the_users, whole_number
from .loaders import training_loader


def _number(value: Any) -> float:
    return float(value.detach()) if isinstance(value, Tensor) else float(value)


class ExactLoop(BaseLoop):
    """Epochs of steps, validation and a line of history after each; resumes at any step.

    Args:
        runner: an `ExactRunner`.
        dataloader: config of the training data, see `training_loader`.
        max_epochs: number of epochs.
        val_begin, val_interval: validate after epoch ``val_begin`` (counted from 1), every ``val_interval`` epochs, and
            after the last.
        save_epochs: write the checkpoint every so many epochs, and after the last.
        save_steps: write it every so many steps too; None: at ends of epochs only.
    """

    # what the epochs are called in the history
    phase = "train"

    def __init__(
        self,
        runner,
        dataloader: Mapping[str, Any],
        max_epochs: int,
        val_begin: int = 1,
        val_interval: int = 1,
        save_epochs: int = 1,
        save_steps: int | None = None,
    ):
        for name, value in (
            ("max_epochs", max_epochs),
            ("val_interval", val_interval),
            ("save_epochs", save_epochs),
            ("val_begin", val_begin),
            ("save_steps", 1 if save_steps is None else save_steps),
        ):
            whole_number(f"train_cfg.{name}", value)
        loader = training_loader(dataloader, runner.seed, "train", runner.rank, runner.world_size)
        super().__init__(runner, loader)
        if hasattr(loader.dataset, "metainfo"):
            runner.visualizer.dataset_meta = loader.dataset.metainfo
        self.stream = Stream(loader)
        self._max_epochs = max_epochs
        self.val_begin, self.val_interval = val_begin, val_interval
        self.save_epochs, self.save_steps = save_epochs, save_steps
        self.stop_training = False  # mmengine's EarlyStoppingHook sets it
        self._epoch = self._iter = 0
        self._done = 0  # steps whose optimisers have stepped; ahead of _iter while hooks of a step run
        self._ending = False  # the epoch's steps and hooks are done, its count isn't yet
        self.seconds = 0.0
        self._sums = self._no_sums()
        self._states: dict[str, Any] | None = None

    @staticmethod
    def _no_sums() -> dict[str, float]:
        return {"loss": 0.0, "steps": 0, "arch_loss": 0.0, "arch_steps": 0, "seconds": 0.0}

    # mmengine's hooks read these
    @property
    def max_epochs(self) -> int:
        """Number of epochs."""
        return self._max_epochs

    @property
    def max_iters(self) -> int:
        """Number of steps."""
        return self._max_epochs * len(self.dataloader)

    @property
    def epoch(self) -> int:
        """Epochs completed; the running epoch's number, counted from 0."""
        return self._epoch

    @property
    def iter(self) -> int:
        """Steps completed; the running step's number, counted from 0."""
        return self._iter

    @property
    def steps_done(self) -> int:
        """Steps whose optimisers have stepped; one ahead of `iter` while a step's hooks run."""
        return self._done

    def step(self, batch: Any) -> dict[str, Any]:
        """One step of every optimiser; returns what is logged, with the training loss as 'loss'."""
        raise TypeError(f"{type(self).__name__} doesn't say what a step is")

    def epoch_line(self, metrics: Mapping[str, float] | None) -> dict[str, Any]:
        """What this loop adds to the epoch's line of history: the validation score of one network."""
        score = self.runner.score_of(metrics) if metrics else None
        return {
            "phase": self.phase,
            "score": {} if score is None else {"validation": score},
            "gap": None,
            "skip_share": None,
            "entropy": None,
            "probabilities": {},
            "architecture": {},
            "warning": None,
        }

    def run(self) -> nn.Module:
        """Trains to the end; returns the model."""
        runner = self.runner
        runner.call_hook("before_train")
        if self._done == 0 and self._states is None:
            # from here on the random streams don't depend on how the model was built
            seed_everything(runner.seed, "training", runner.rank)
        while self._epoch < self._max_epochs and not self.stop_training:
            self._run_epoch()
        self.close()
        runner.call_hook("after_train")
        return runner.model

    def close(self) -> None:
        """Stops the workers."""
        self.stream.close()

    def _run_epoch(self) -> None:
        runner, steps = self.runner, len(self.dataloader)
        first = self._iter - self._epoch * steps
        if first == 0:
            self._restore_states()
        runner.call_hook("before_train_epoch")
        self._restore_states()
        runner.model.train()
        self._tell_progress()
        for index in range(first, steps):
            start = time.perf_counter()
            batch = self.stream.next()
            runner.call_hook("before_train_iter", batch_idx=index, data_batch=batch)
            with single_values_are_the_users():
                outputs = self.step(batch)
            self._done = self._iter + 1
            self._add(outputs, time.perf_counter() - start)
            runner.call_hook("after_train_iter", batch_idx=index, data_batch=batch, outputs=outputs)
            self._iter += 1
            if self.save_steps and self._iter % self.save_steps == 0 and index + 1 < steps:
                runner.save_state()
        self._end_epoch()

    def _end_epoch(self) -> None:
        runner = self.runner
        learning_rate = next(iter(runner.optim_wrapper.get_lr().values()))[0]
        self._ending = True
        runner.call_hook("after_train_epoch")
        self._epoch, self._ending = self._epoch + 1, False
        last = self._epoch == self._max_epochs
        metrics = None
        due = self._epoch >= self.val_begin and (self._epoch % self.val_interval == 0 or last)
        if runner.val_loop is not None and due:
            # batch norms ran on each process's own images
            distributed.average_buffers(runner.bare_model)
            start = time.perf_counter()
            with kept_random_states():
                metrics = runner.val_loop.run()
            self.seconds += time.perf_counter() - start
        sums, self._sums = self._sums, self._no_sums()
        batches = self.dataloader.batch_sampler
        line = {
            "epoch": self._epoch,
            "train_loss": sums["loss"] / max(sums["steps"], 1),
            "arch_loss": sums["arch_loss"] / sums["arch_steps"] if sums["arch_steps"] else None,
            "lr": learning_rate,
            "seconds": sums["seconds"],
            "images_per_second": len(batches) * batches.global_batch / max(sums["seconds"], 1e-9),
            "peak_memory_mib": peak_memory_mib(),
            **self.epoch_line(metrics),
        }
        runner.end_of_epoch(line)
        if self._epoch % self.save_epochs == 0 or last or self.stop_training:
            runner.save_state()

    def _restore_states(self) -> None:
        # after the hooks that run once more on resuming, before anything that ran only once
        if self._states is not None:
            set_random_states(self._states)
            self._states = None

    def _tell_progress(self) -> None:
        for module in self.runner.bare_model.modules():
            if hasattr(module, "set_progress"):
                module.set_progress(self._epoch / self._max_epochs)

    def _add(self, outputs: Mapping[str, Any], seconds: float) -> None:
        sums = self._sums
        sums["loss"] += _number(outputs["loss"])
        sums["steps"] += 1
        if "arch_loss" in outputs:
            sums["arch_loss"] += _number(outputs["arch_loss"])
            sums["arch_steps"] += 1
        sums["seconds"] += seconds
        self.seconds += seconds

    def state_dict(self) -> dict[str, Any]:
        """The loop's position and sums, equal on all ranks; plain values and tensors."""
        return {
            "epoch": self._epoch + int(self._ending),
            "step": self._done,
            "sums": dict(self._no_sums() if self._ending else self._sums),
            "seconds": self.seconds,
            "stopped": bool(self.stop_training),
        }

    def load_state_dict(self, state: Mapping[str, Any], states: dict[str, Any] | None) -> None:
        """Goes to a saved position; `states` are the random states put back when the first step begins."""
        self._epoch, self._iter = state["epoch"], state["step"]
        self._done = self._iter
        self._sums, self.seconds = dict(state["sums"]), state["seconds"]
        self.stop_training = state["stopped"]
        self.stream.seek(self._iter)
        self._states = states


@LOOPS.register_module()
class TrainLoop(ExactLoop):
    """Training of one network (retraining a derived one) that resumes exactly; arguments as `ExactLoop`."""

    def step(self, batch: Any) -> dict[str, Any]:
        """One step by the model's own ``train_step``."""
        return self.runner.model.train_step(batch, optim_wrapper=self.runner.optim_wrapper)
