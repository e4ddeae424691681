"""What the command line tools share: a config with the options merged in, and exit codes instead of tracebacks.

0 success; 2 a mistake of the user's, with one sentence on standard error; 3 a budget that can't be met, likewise; 130
stopped by the user. Anything else is a fault of the program and shows its traceback, but for a run that failed in a process
of its own: its log has it, which is named in one sentence, with exit code 1.
"""

import argparse
import os
import re
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

from mmengine.config import Config

from search.engine import checkpoint, config
from search.engine.data import require_seed
from search.engine.errors import BudgetError, UserError, WorkFailed, disk_full, passing
from search.engine.run import TRIALS
from search.engine.searchable import set_architecture
from search.environment import require_one_family

ROOT = Path(__file__).resolve().parents[2]
OURS = tuple(f"{ROOT / part}{os.sep}" for part in ("search", "backbones", "tasks", "tools"))


# what Ctrl-C says of a tool that goes on from a checkpoint
RESUME = "the same command with --resume goes on from the last checkpoint"


def guarded(action: Callable[[], int], stopped: str = "") -> int:
    """Run a tool's work; a user's mistake becomes one sentence on standard error and exit code 2 (3: see `BudgetError`).

    stopped: said after Ctrl-C: how to go on.
    """
    before, threading.excepthook = threading.excepthook, _thread_failed
    try:
        require_one_family()
        return action()
    except KeyboardInterrupt:
        print(f"stopped; {stopped}" if stopped else "stopped", file=sys.stderr)
        return 130
    except WorkFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except Exception as error:
        sentence = mistake(error)
        if sentence is None:
            raise
        print(f"error: {sentence}", file=sys.stderr)
        return 3 if isinstance(error, BudgetError) else 2
    finally:
        threading.excepthook = before


def _thread_failed(failure: threading.ExceptHookArgs) -> None:
    """A thread of a library that meets a full disk says so in a line; the main thread meets it too."""
    words = None if failure.exc_value is None else disk_full(failure.exc_value)
    if words is None:
        threading.__excepthook__(failure)
    else:
        print(f"warning: a log file could not be written because {words}", file=sys.stderr)


def mistake(error: BaseException) -> str | None:
    """The sentence for a user's mistake, None for a fault of the program.

    A mistake is a UserError, a ValueError that our own code says ``raise`` for (also in a data loader's process),
    or a file that the operating system refuses.
    """
    text = str(error)
    worker = re.match(r"Caught \w+ in .*?process \d+\.\nOriginal (Traceback .*)", text, re.DOTALL)
    if worker is not None and isinstance(error, ValueError | OSError):
        frames = re.findall(r'^  File "(.+?)", line \d+.*\n    (.*)', worker[1], re.MULTILINE)
        ours = isinstance(error, UserError | OSError) or (bool(frames) and _ours(*frames[-1]))
        return _line(worker[1].rstrip().splitlines()[-1].partition(": ")[2]) if ours else None
    if isinstance(error, UserError):
        return _line(text)
    if isinstance(error, ValueError):
        last = traceback.extract_tb(error.__traceback__)[-1:]
        return _line(text) if last and _ours(last[0].filename, last[0].line or "") else None
    if isinstance(error, OSError) and error.errno is not None:
        reason = disk_full(error) or error.strerror
        return _line(f"{error.filename}: {reason}" if error.filename else str(reason))
    return None


def mistake_of_work(error: BaseException) -> str | None:
    """As `mistake`, of what can be tried again: None also for what the operating system may grant then."""
    return None if passing(error) else mistake(error)


def _ours(file: str, line: str) -> bool:
    # a statement of ours that raises, not a built-in function that fails in our code
    return file.startswith(OURS) and line.startswith("raise ")


def load(args: argparse.Namespace) -> Config:
    """The config that a tool's arguments name, every key checked, with the options that the tool has merged in."""
    options = vars(args)
    cfg = config.load(args.config, args.cfg_options)
    if options["work_dir"] is not None:
        cfg.work_dir = options["work_dir"]
    elif cfg.get("work_dir") is None:
        cfg.work_dir = str(Path("work_dirs") / Path(args.config).stem)
    if options.get("seed") is not None:
        _set_seed(cfg, options["seed"])
    if options.get("launcher") is not None:
        cfg.launcher = options["launcher"]
    if options.get("allow_different_threads"):
        cfg.allow_different_threads = True
    if options.get("resume"):
        cfg.resume = True
    # trials that are done, and the checkpoint of one that isn't, are gone on from too
    if cfg.get("resume") and not any((Path(cfg.work_dir) / name).exists() for name in (checkpoint.NAME, TRIALS)):
        print(f"{cfg.work_dir} holds no checkpoint to go on from: starting at the beginning", file=sys.stderr)
    if options.get("amp"):
        _set_amp(cfg)
    if options.get("auto_scale_lr"):
        _set_auto_scale_lr(cfg)
    if options.get("arch") is not None:
        set_architecture(cfg, options["arch"])
    return cfg


def _set_seed(cfg: Config, seed: int) -> None:
    cfg.seed = require_seed("--seed", seed)
    if "seed" in cfg.get("randomness", {}):
        cfg.randomness.seed = seed


def _set_amp(cfg: Config) -> None:
    wrapper = cfg.get("optim_wrapper")
    if wrapper is None:
        raise UserError("--amp: the config has no optim_wrapper, which runs the forward passes")
    kind = wrapper.get("type", "OptimWrapper")
    if kind not in ("OptimWrapper", "mmengine.OptimWrapper", "AutocastOptimWrapper"):
        raise UserError(f"--amp: optim_wrapper.type={kind!r} can't be replaced; leave out the one or the other")
    wrapper["type"] = "AutocastOptimWrapper"


def _set_auto_scale_lr(cfg: Config) -> None:
    if "base_batch_size" not in (cfg.get("auto_scale_lr") or {}):
        raise UserError("--auto-scale-lr: the config has no auto_scale_lr.base_batch_size to scale from")
    cfg.auto_scale_lr.enable = True


def say(cfg: Config, text: str) -> None:
    """Print a tool's result: of several processes only the first does."""
    if cfg.get("launcher", "none") == "none" or os.environ.get("RANK", "0") == "0":
        print(text)


def _line(text: str) -> str:
    return " ".join(text.split())
