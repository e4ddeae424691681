"""Trainings that are killed, fail, or are watched: hooks that a trial's config names, and the search around them."""

import os
import signal
import time
from pathlib import Path

from mmengine.hooks import Hook

from search.registry import HOOKS
from tests.search.engine import tiny


def trial(runner):
    """The number of the trial, by its folder."""
    return int(Path(runner.work_dir).parent.name)


def attempt(runner):
    """The number of the attempt, from 1 on; its process is noted, once."""
    path = Path(runner.work_dir, "attempts.txt")
    if not hasattr(runner, "noted"):
        with path.open("a") as file:
            file.write(f"{os.getpid()}\n")
        runner.noted = True
    return len(path.read_text().splitlines())


@HOOKS.register_module(force=True)
class Fault(Hook):
    """In the trials `of`, in their first `attempts` attempts: 'kill' this process, 'raise' an error, or a user's 'mistake'.

    Or an error of the operating system, by its number.
    """

    def __init__(self, what, of, attempts=10):
        self.what, self.of, self.attempts = what, of, attempts

    def before_train(self, runner):
        if attempt(runner) > self.attempts or trial(runner) not in self.of:
            return
        if self.what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.what == "mistake":
            from search.engine import UserError

            raise UserError("lr=-1 can't be.")
        if isinstance(self.what, int):
            raise OSError(self.what, os.strerror(self.what), "/data/000.jpg")
        raise RuntimeError("CUDA error: out of luck")


@HOOKS.register_module(force=True)
class Slow(Hook):
    """The first attempt of the trials `of` takes some seconds more."""

    def __init__(self, seconds, of):
        self.seconds, self.of = seconds, of

    def before_train(self, runner):
        if attempt(runner) == 1 and trial(runner) in self.of:
            time.sleep(self.seconds)


def config(work_dir, executor, trials=4, **more):
    """A search by evolution of tiny trials; `hooks` are their custom hooks."""
    strategy = more.pop("strategy", dict(type="Evolution", trials=trials, population=2, sample=2, at_once=2))
    cfg = tiny.config(work_dir, train=True, epochs=1, model={"dropout": 0.0}, custom_hooks=more.pop("hooks", []), **more)
    cfg.strategy, cfg.executor = strategy, executor
    cfg.custom_imports = dict(imports=["tests.search.engine.faults"], allow_failed_imports=False)
    return cfg


def search(*args, resume=False, **kwargs):
    from search import report
    from search.engine import search as run_search

    # drawing takes longer than the rest of a tiny run
    before, report.write = report.write, lambda work_dir: None
    try:
        cfg = config(*args, **kwargs)
        cfg.resume = resume
        return run_search(cfg)
    finally:
        report.write = before


def in_a_process(*args, **kwargs):
    """A search in a process of its own, which a test may kill."""
    process = tiny.CONTEXT.Process(target=search, args=args, kwargs=kwargs)
    process.start()
    return process


def wait_until(there, seconds=300):
    end = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < end
        time.sleep(0.02)


def attempts(work_dir):
    """The processes of each trial's attempts."""
    return {
        int(path.parent.parent.name): [int(line) for line in path.read_text().split()]
        for path in sorted(work_dir.glob("trials/*/train/attempts.txt"))
    }


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
