"""mmengine's Runner with checkpoints that resume exactly."""

import logging
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import mmengine
import torch
from mmengine.config import Config
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from mmengine.runner.checkpoint import _load_checkpoint_to_model
from torch import nn

from search.registry import RUNNERS

from . import checkpoint as files
from . import distributed
from .data import random_states
from .errors import UserError, values_are_the_users, whole_number
from .history import NAME as HISTORY
from .history import History

# what mmengine's stateful hooks keep in attributes and leave out of checkpoints
_HOOK_ATTRIBUTES = {"EarlyStoppingHook": ("best_score", "wait_count")}


def _consoles(logger: logging.Logger) -> list[logging.Handler]:
    return [h for h in logger.handlers if type(h) is logging.StreamHandler]


@RUNNERS.register_module()
class ExactRunner(Runner):
    """mmengine's Runner, whose checkpoints are safe to read, written whole, and resume bit for bit.

    Differences: one ``checkpoint.pth``, written by the loop after all hooks instead of by a CheckpointHook (one named
    in the config works besides); ``config.py`` and ``history.jsonl`` in the work directory; several processes on CPU.
    Its training loop must be one of `search.engine.loops`.
    """

    kind = "train"

    def __init__(self, model: Any, work_dir: str, *args, experiment_name: str | None = None, **kwargs):
        self.run_config = ""  # what a checkpoint to resume must agree with, set by the caller
        self.allow_different_threads = False
        self.strict_loading = False  # whether `load_from` must fit the model exactly
        self.extra: dict[str, Any] = {}  # plain values that a checkpoint carries along
        self.initialise: Callable[[nn.Module], object] | None = None  # run on the model once it has its weights
        # mmengine keeps loggers and visualisers by name and second, and runs started within one must not share them
        name = f"{experiment_name or Path(work_dir).name}-{uuid.uuid4().hex[:8]}"
        super().__init__(model, work_dir, *args, experiment_name=name, **kwargs)
        for handler, level in self._console_levels:
            handler.setLevel(level)
        self.history = History(Path(self.work_dir) / HISTORY)

    @property
    def bare_model(self) -> nn.Module:
        """The model without a distributed wrapper."""
        return self.model.module if is_model_wrapper(self.model) else self.model

    @cached_property
    def _config_text(self) -> str:
        # pretty_text formats the config anew each time, which takes longer than writing a small checkpoint
        return self.cfg.pretty_text

    def keep_config(self, cfg: Config) -> None:
        """Writes ``cfg``, with what the runner was not given (test data), as the run's config from now on.

        What a run that goes on from here must agree with is written beside it, see `checkpoint.write_run`.
        """
        self._config_text = cfg.pretty_text
        self.dump_config()
        if self.rank == 0:
            files.write_run(Path(self.work_dir), self.kind, self.run_config)

    @property
    def checkpoint_path(self) -> Path:
        """Where the run's one checkpoint lies."""
        return Path(self.work_dir) / files.NAME

    # --- building -----------------------------------------------------------------------------------------------

    def build_logger(self, *args, **kwargs):
        """mmengine's; while the runner is built its long lists of settings and hooks go to the log file only."""
        logger = super().build_logger(*args, **kwargs)
        self._console_levels = [(handler, handler.level) for handler in _consoles(logger)]
        for handler, _ in self._console_levels:
            handler.setLevel(logging.WARNING)
        return logger

    def register_default_hooks(self, hooks: Mapping[str, Any] | None = None) -> None:
        """mmengine's, without its checkpoint hook unless the config names one, and with a progress hook."""
        given = dict(hooks or {})
        given.setdefault("checkpoint", None)
        given.setdefault("progress", {"type": "search.ProgressHook"})
        if given["progress"] is None:
            del given["progress"]
        super().register_default_hooks(given)

    @staticmethod
    def build_dataloader(dataloader, seed=None, diff_rank_seed=False):
        """mmengine's, with a generator of its own: iterating it leaves the global random states alone."""
        if isinstance(dataloader, Mapping):
            for name, least in (("batch_size", 1), ("num_batch_per_epoch", 1), ("num_workers", 0)):
                if dataloader.get(name) is not None:
                    whole_number(f"{name} of the data that are scored", dataloader[name], least)
        loader = Runner.build_dataloader(dataloader, seed, diff_rank_seed)
        loader.generator = torch.Generator()
        return loader

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """mmengine's; on CPU the distributed wrapper gets no device ids, which it would refuse."""
        self.say_if_sync_bn_is_off()
        if self.distributed and model_wrapper_cfg is None and not torch.cuda.is_available():
            model_wrapper_cfg = {
                "type": "MMDistributedDataParallel",
                "device_ids": None,
                "broadcast_buffers": False,
                "find_unused_parameters": self.cfg.get("find_unused_parameters", False),
            }
        return super().wrap_model(model_wrapper_cfg, model)

    def say_if_sync_bn_is_off(self) -> None:
        """Warns where ``sync_bn`` changes nothing, and takes it out of the config."""
        if self.cfg.get("sync_bn") is not None and not (self.distributed and torch.cuda.is_available()):
            self.logger.warning(f"sync_bn={self.cfg.sync_bn!r} needs several processes on GPUs; plain batch norm is used")
            self.cfg.sync_bn = None

    def build_optim_wrapper(self, optim_wrapper):
        """mmengine's; what an optimiser says about its arguments is a `UserError`."""
        with values_are_the_users("optim_wrapper"):
            return super().build_optim_wrapper(optim_wrapper)

    def build_evaluator(self, evaluator):
        """mmengine's; the processes' results meet in the work directory, not in the current folder."""
        built = super().build_evaluator(evaluator)
        for metric in built.metrics:
            if metric.collect_device == "cpu" and metric.collect_dir is None:
                metric.collect_dir = str(Path(self.work_dir) / ".results")
        return built

    def _init_model_weights(self) -> None:
        super()._init_model_weights()
        if self.initialise is not None:
            self.initialise(self.bare_model)

    def _maybe_compile(self, target: str) -> None:
        options = self.cfg.get("compile")
        if options:
            # in place, so that functional calls of a supernet are compiled too
            self.bare_model.compile(**({} if options is True else options))

    def dump_config(self) -> None:
        """Writes the resolved config to ``config.py``; a test run leaves that of the training alone."""
        if self.rank == 0 and self._train_loop is not None:
            files.write_bytes(Path(self.work_dir) / "config.py", self._config_text.encode())

    # --- scores and history -------------------------------------------------------------------------------------

    @property
    def score(self) -> tuple[str | None, str]:
        """(key, rule) of the score that decides, from the config; without one the evaluator's first key."""
        score = self.cfg.get("score") or {}
        rule = score.get("rule", "greater")
        if rule not in ("greater", "less"):
            raise UserError(f"score.rule={rule!r} must be 'greater' or 'less'.")
        return score.get("key"), rule

    def score_of(self, metrics: Mapping[str, Any], prefix: str = "") -> float:
        """The deciding score among an evaluator's metrics.

        Raises:
            UserError: the evaluator gives no metric of that name.
        """
        named = {k.removeprefix(prefix): v for k, v in metrics.items() if k.startswith(prefix)}
        if not prefix:
            named = {k: v for k, v in named.items() if not k.startswith("derived/")}
        key = self.score[0]
        for name, value in named.items():
            if key is None or name == key or name.endswith(f"/{key}"):
                return float(value)
        raise UserError(f"score.key={key!r} isn't among the evaluator's metrics ({', '.join(named) or 'none'}).")

    def check_score(self) -> None:
        """Refuses a score that no validation metric gives, where the metrics say beforehand what they give (``keys``)."""
        if self.val_loop is None:
            return
        metrics = self.val_loop.evaluator.metrics
        if all(hasattr(metric, "keys") for metric in metrics):
            names = [f"{m.prefix}/{key}" if m.prefix else key for m in metrics for key in m.keys]
            self.score_of(dict.fromkeys(names, 0.0))

    def end_of_epoch(self, line: dict[str, Any]) -> None:
        """Adds a line of history, tells hooks (``after_history_line``) and the visualisation backends."""
        if self.rank == 0:
            self.history.append(line)
        else:
            self.history.lines.append(line)
        numbers = {k: line[k] for k in ("train_loss", "arch_loss", "gap", "entropy", "skip_share")}
        numbers.update(line["score"])
        step = {f"epoch/{k}": float(v) for k, v in numbers.items() if v is not None}
        self.visualizer.add_scalars(step, step=line["epoch"])
        self.call_hook("after_history_line", line=line)

    # --- saving -------------------------------------------------------------------------------------------------

    def save_state(self) -> None:
        """Writes the run's checkpoint."""
        self.save_checkpoint(self.work_dir, files.NAME)

    def save_checkpoint(
        self,
        out_dir: str,
        filename: str,
        file_client_args: dict | None = None,
        save_optimizer: bool = True,
        save_param_scheduler: bool = True,
        meta: dict | None = None,
        by_epoch: bool = True,
        backend_args: dict | None = None,
    ) -> None:
        """As mmengine's, but of plain values, written whole, with all that exact resuming needs; local files only."""
        if file_client_args or backend_args:
            raise UserError("Checkpoints are written to local folders: leave out file_client_args and backend_args.")
        several = self.world_size > 1
        mine = {
            "random": random_states(),
            "buffers": dict(self.bare_model.named_buffers()) if several else {},
            # gradients that accumulate over several steps, each process's own; mmengine clears them otherwise
            "gradients": self._gradients() if self.accumulates else {},
        }
        ranks = distributed.gather(mine)
        if self.rank != 0:
            return
        state = self.train_loop.state_dict()
        checkpoint: dict[str, Any] = {
            "meta": {
                **(meta or {}),
                "epoch": state["epoch"],
                "iter": state["step"],
                "cfg": self._config_text,
                "seed": self.seed,
                "experiment_name": self.experiment_name,
                "time": time.strftime("%Y%m%d_%H%M%S"),
                "mmengine_version": mmengine.__version__,
                "dataset_meta": getattr(self.train_dataloader.dataset, "metainfo", None),
            },
            "state_dict": {k: v.detach().cpu() for k, v in self.bare_model.state_dict().items()},
            "message_hub": files.plain_hub(self.message_hub.state_dict()),
        }
        if save_optimizer:
            checkpoint["optimizer"] = self.optim_wrapper.state_dict()
        if save_param_scheduler and self.param_schedulers is not None:
            checkpoint["param_schedulers"] = [s.state_dict() for s in self.param_schedulers]
        checkpoint["visnas"] = {
            "version": files.FORMAT,
            "kind": self.kind,
            "config": self.run_config,
            "threads": torch.get_num_threads(),
            "world": self.world_size,
            "ranks": ranks,
            "loop": state,
            "history": len(self.history.lines),
            "hooks": self._hook_states(),
            "extra": self.extra,
        }
        self.call_hook("before_save_checkpoint", checkpoint=checkpoint)
        files.write(Path(out_dir) / filename, files.plain(checkpoint))

    @property
    def accumulates(self) -> bool:
        """Whether gradients accumulate over several steps."""
        return self.optim_wrapper._accumulative_counts > 1

    def _gradients(self) -> dict[str, torch.Tensor]:
        return {n: p.grad for n, p in self.bare_model.named_parameters() if p.grad is not None}

    def _hook_states(self) -> dict[str, Any]:
        states = {}
        for name, hook in self._named_hooks():
            attributes = _HOOK_ATTRIBUTES.get(type(hook).__name__)
            if hasattr(hook, "state_dict") and hasattr(hook, "load_state_dict"):
                states[name] = hook.state_dict()
            elif attributes:
                states[name] = {a: getattr(hook, a) for a in attributes}
        return states

    def _named_hooks(self):
        return [(f"{type(hook).__name__}.{i}", hook) for i, hook in enumerate(self.hooks)]

    # --- loading ------------------------------------------------------------------------------------------------

    def load_checkpoint(self, filename, map_location="cpu", strict=False, revise_keys=((r"^module\.", ""),)):
        """As mmengine's, but never running code from the file: UserError for one that would need it."""
        return self._take(files.read(filename, map_location), str(filename), strict, list(revise_keys))

    def _take(self, checkpoint: dict[str, Any], filename: str, strict: bool, revise_keys: list) -> dict[str, Any]:
        if "visnas" in checkpoint:
            checkpoint["message_hub"] = files.hub_from_plain(checkpoint["message_hub"])
        weights = checkpoint.get("state_dict", checkpoint)
        # mmengine hangs an attribute on it, which a plain dict can't take
        checkpoint = {**checkpoint, "state_dict": OrderedDict(weights)}
        self.call_hook("after_load_checkpoint", checkpoint=checkpoint)
        try:
            _load_checkpoint_to_model(self.bare_model, checkpoint, strict, revise_keys=revise_keys)
        except RuntimeError as error:
            words = " ".join(str(error).split())
            raise UserError(f"{filename} doesn't fit the model: {words[:300]}") from error
        self._has_loaded = True
        self.logger.info(f"loaded {filename}")
        return checkpoint

    def load_or_resume(self) -> None:
        """Resumes from ``load_from`` or the work directory's checkpoint, or loads weights from ``load_from``."""
        if self._has_loaded:
            return
        if self._resume:
            self.resume(self._load_from or str(self.checkpoint_path))
        elif self._load_from is not None:
            self.load_checkpoint(self._load_from, strict=self.strict_loading)
        if not self._resume and self._train_loop is not None and self.rank == 0:
            self.history.cut(0)

    def resume(self, filename, resume_optimizer=True, resume_param_scheduler=True, map_location="default") -> None:
        """Goes to a checkpoint's state exactly.

        Raises:
            UserError: damaged, foreign, of another config, number of processes or number of threads.
        """
        checkpoint = files.read_own(filename, "cpu" if map_location == "default" else map_location)
        ours = checkpoint["visnas"]
        files.require_same_run(filename, ours, self.kind, self.run_config, self.world_size, self.allow_different_threads)
        self._prepare_for(ours)
        self._take(checkpoint, str(filename), strict=True, revise_keys=[])
        mine = ours["ranks"][self.rank]
        for name, buffer in self.bare_model.named_buffers():
            if name in mine["buffers"]:
                buffer.copy_(mine["buffers"][name])
        self.message_hub.load_state_dict(checkpoint["message_hub"])
        if resume_optimizer and "optimizer" in checkpoint:
            self.optim_wrapper.load_state_dict(checkpoint["optimizer"])
        if resume_param_scheduler and "param_schedulers" in checkpoint:
            for scheduler, state in zip(self.param_schedulers, checkpoint["param_schedulers"], strict=True):
                scheduler.load_state_dict(state)
        parameters = dict(self.bare_model.named_parameters())
        for name, gradient in mine["gradients"].items():
            parameters[name].grad = gradient.to(parameters[name].device)
        for name, hook in self._named_hooks():
            if name in ours["hooks"]:
                self._load_hook(hook, ours["hooks"][name])
        self.train_loop.load_state_dict(ours["loop"], mine["random"])
        self.extra = ours["extra"]
        if self.rank == 0:
            self.history.cut(ours["history"], trials=True)
        self.logger.info(f"resumed at epoch {self.epoch}, step {self.iter}")

    def _prepare_for(self, ours: Mapping[str, Any]) -> None:
        """Gives the model the shapes of a checkpoint's; ``ours``: what the checkpoint holds beside mmengine's."""

    @staticmethod
    def _load_hook(hook: Any, state: Mapping[str, Any]) -> None:
        if hasattr(hook, "load_state_dict"):
            hook.load_state_dict(state)
        else:
            for name, value in state.items():
                setattr(hook, name, value)
