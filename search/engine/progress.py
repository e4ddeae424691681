"""Live progress: a bar with the time left on a terminal, a line for each epoch otherwise."""

import datetime
import logging
import sys
from collections.abc import Mapping
from typing import Any

from mmengine.hooks import Hook
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from search.registry import HOOKS


def duration(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    return str(datetime.timedelta(seconds=round(seconds)))


def epoch_text(line: Mapping[str, Any], epochs: int, left: float) -> str:
    """One line about an epoch from its line of history; `left`: seconds still to go."""
    parts = [f"epoch {line['epoch']}/{epochs} ({line['phase']})", f"train loss {line['train_loss']:.4f}"]
    if line["arch_loss"] is not None:
        parts.append(f"architecture loss {line['arch_loss']:.4f}")
    parts += [f"{name} {value:.2f}" for name, value in line["score"].items()]
    for key, name in (("gap", "gap"), ("entropy", "entropy"), ("skip_share", "skips")):
        if line[key] is not None:
            parts.append(f"{name} {line[key]:.2f}")
    parts += [f"{line['images_per_second']:.0f} images/s", f"time left {duration(left)}"]
    return ", ".join(parts)


@HOOKS.register_module()
class ProgressHook(Hook):
    """Shows where a run is.

    On a terminal a bar counts steps, with the last losses and the time left, and the log goes to its file only;
    elsewhere the log gets a line for each epoch.
    """

    priority = "VERY_LOW"

    def __init__(self):
        self._bar: Progress | None = None
        self._task = None
        self._hushed: list[tuple[logging.Handler, int]] = []

    def before_train(self, runner) -> None:
        """Starts the bar on a terminal."""
        self._start, self._seconds = runner.iter, runner.train_loop.seconds
        if runner.rank != 0 or not sys.stdout.isatty():
            return
        for handler in runner.logger.handlers:
            if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
                self._hushed.append((handler, handler.level))
                handler.setLevel(logging.WARNING)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]} left  {task.fields[losses]}"),
        )
        self._task = self._bar.add_task("", total=runner.max_iters, completed=runner.iter, left="?", losses="")
        self._bar.start()

    def _left(self, runner) -> float:
        done = runner.train_loop.steps_done
        spent = runner.train_loop.seconds - self._seconds
        return spent / max(done - self._start, 1) * (runner.max_iters - done)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Moves the bar."""
        if self._bar is not None:
            losses = "  ".join(f"{k} {float(v):.3f}" for k, v in outputs.items() if k in ("loss", "arch_loss"))
            self._bar.update(
                self._task,
                completed=runner.train_loop.steps_done,
                description=f"epoch {runner.epoch + 1}/{runner.max_epochs}",
                left=duration(self._left(runner)),
                losses=losses,
            )

    def after_history_line(self, runner, line: Mapping[str, Any]) -> None:
        """Says what the epoch gave."""
        text = epoch_text(line, runner.max_epochs, self._left(runner))
        if self._bar is not None:
            self._bar.console.print(text)
        runner.logger.info(text)
        if line["warning"]:
            runner.logger.warning(line["warning"])

    def close(self) -> None:
        """Takes the bar away; safe to call at any time."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        for handler, level in self._hushed:
            handler.setLevel(level)
        self._hushed.clear()

    def after_train(self, runner) -> None:
        """Takes the bar away."""
        self.close()
