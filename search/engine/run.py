"""What a search, a training and an evaluation share: work directory, task adapter, runner settings."""

import copy
import json
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mmengine
import torch
import torch.distributed as dist
import torchvision
from mmengine.config import Config
from mmengine.registry import DefaultScope

from search.cost import Cost
from search.cost.count import CONVENTIONS
from search.registry import TASKS
from search.space import Architecture

from . import checkpoint, distributed
from .data import require_seed
from .errors import UserError, full_disk_is_the_users
from .history import NAME as HISTORY
from .runner import ExactRunner

# a search's trials, each in a folder of its own
TRIALS = "trials"
# what an architecture file says of its network
COST = ("params", "macs", "activations", "latency", "input_size", "convention")
_TRACES = (checkpoint.NAME, HISTORY, "architecture.json", "summary.json", TRIALS)


@dataclass(frozen=True)
class SearchResult:
    """A finished search.

    ``architecture``: what was found, of all parts; ``path``: its file; ``score``: on the validation split, of the supernet
    masked to it, or of its trial; ``summary``: the content of summary.json.
    """

    architecture: Architecture
    path: Path
    score: float | None
    summary: dict[str, Any]


def check_work_dir(work_dir: Path, kind: str, config: str, resume: bool, any_threads: bool) -> bool:
    """Makes sure that nothing of another run is lost; returns whether there is a checkpoint to resume.

    Args:
        kind, config: see `checkpoint.require_same_run`.

    Raises:
        UserError: the directory holds another run, one that nobody knows, or this one and `resume` is False.
    """
    if work_dir.exists() and not work_dir.is_dir():
        raise UserError(f"The work directory {work_dir} is a file: give another --work-dir.")
    found = [name for name in _TRACES if (work_dir / name).exists()]
    if found and not resume:
        raise UserError(
            f"The work directory {work_dir} already holds a run ({found[0]}): give --resume to go on with it, or "
            "another --work-dir."
        )
    path, said = work_dir / checkpoint.NAME, work_dir / checkpoint.RUN
    if not path.exists():
        if found and not said.exists():
            raise UserError(
                f"The work directory {work_dir} holds traces of a run ({found[0]}), but neither {checkpoint.NAME} nor "
                f"{checkpoint.RUN} says of which: give another --work-dir, or remove them."
            )
        if found:
            checkpoint.require_same_settings(said, json.loads(said.read_text()), kind, config)
        return False
    ours = checkpoint.read_own(path)["visnas"]
    checkpoint.require_same_run(path, ours, kind, config, distributed.world_size(), any_threads)
    return True


def row_of(
    architecture: Architecture, cost: Cost, score: float | None, figures: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """What a summary says of a network; ``figures``: of a budget, whose latency is said too, where it has one."""
    return {
        **{key: value for key, value in (figures or {}).items() if key == "latency"},
        "architecture": architecture.to_json(),
        "params": cost.params,
        "macs": cost.macs,
        "activations": cost.activations,
        "input_size": list(cost.input_size),
        "convention": cost.convention,
        "counted": CONVENTIONS[cost.convention],
        "score_supernet": score,
    }


def adapter_of(cfg: Mapping[str, Any]) -> Any:
    """The task adapter that the config names.

    Raises:
        UserError: no task in the config, or an unknown one.
    """
    if not cfg.get("task"):
        raise UserError("The config names no task: give task='classification'.")
    adapter = TASKS.get(cfg["task"])
    if adapter is None:
        raise UserError(f"There is no task {cfg['task']!r}: known are {', '.join(sorted(TASKS.module_dict))}.")
    return adapter()


def prepared(cfg: Config, work_dir: Path) -> Config:
    """The config as the task adapter completes it from the data: first on rank 0, which writes the splits."""
    adapter = adapter_of(cfg)
    done = None
    for turn in (True, False):
        if (distributed.rank() == 0) == turn:
            done = adapter.prepare(copy.deepcopy(cfg), str(work_dir))
        if dist.is_initialized():
            dist.barrier()
    assert done is not None
    randomness = done.get("randomness") or {}
    if randomness.get("diff_rank_seed"):
        raise UserError(
            "randomness.diff_rank_seed=True can't be resumed exactly; processes draw apart without it: leave it out."
        )
    seed = require_seed("seed", randomness.get("seed", cfg.get("seed", 0)))
    done.randomness = {**randomness, "seed": seed}
    done.default_scope = done.get("default_scope", "mmengine")
    done.work_dir = str(work_dir)
    return done


def without_test(cfg: Config) -> Config:
    """The config without its test data, which a search or a training must never read."""
    kept = copy.deepcopy(cfg)
    for key in ("test_dataloader", "test_cfg", "test_evaluator"):
        kept.pop(key, None)
    return kept


@contextmanager
def running(cfg: Config) -> Iterator[Path]:
    """Joins the processes of `cfg.launcher` for the block; gives the work directory; a full disk is a UserError.

    Types without a scope are looked up in the config's ``default_scope`` from here on, not only once there is a Runner.
    """
    if not cfg.get("work_dir"):
        raise UserError("There is no work directory: give --work-dir.")
    work_dir = Path(cfg.work_dir)
    started = distributed.start(cfg.get("launcher", "none"))
    try:
        scope = DefaultScope.overwrite_default_scope(cfg.get("default_scope") or "mmengine")
        with scope, full_disk_is_the_users(str(work_dir)):
            yield work_dir
    finally:
        if started:
            dist.destroy_process_group()


@contextmanager
def closing(runner: ExactRunner) -> Iterator[ExactRunner]:
    """Ends progress bar, workers, log files and visualisers after the block, also after an error."""
    try:
        yield runner
    finally:
        for hook in runner.hooks:
            if hasattr(hook, "close"):
                hook.close()
        if hasattr(runner._train_loop, "close"):
            runner._train_loop.close()
        runner.visualizer.close()
        for handler in list(runner.logger.handlers):
            handler.close()
            runner.logger.removeHandler(handler)


def environment() -> dict[str, Any]:
    """Versions, hardware and threads, for summaries."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "mmengine": mmengine.__version__,
            "commit": _commit(),
        },
        "hardware": ", ".join(gpus) if gpus else f"{os.cpu_count()} CPU cores ({_processor()})",
        "threads": torch.get_num_threads(),
        "processes": distributed.world_size(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    root = Path(__file__).resolve().parents[2]
    try:
        done = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None
