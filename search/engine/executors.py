"""Where trainings are executed: in this process, each in a process of its own, or on a Ray cluster (`ray_executor.py`).

An executor does one thing: `execute` blocks until a piece of work is done, wherever that is. How many run at a time, what is
tried again and what is recorded is `Execution`'s (`trials.py`), which calls it from ``jobs`` threads. Work is a picklable
function that leaves its results in files; what it prints goes to a file, too.
"""

import fcntl
import multiprocessing
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from search import registry
from search.engine import command
from search.engine.errors import UserError, WorkFailed, passing, whole_number

KINDS = ("in_process", "local", "ray")
# keys of a config's executor beside those that `Execution` reads
_OF_RAY = ("address", "gpus")
# exit code of a process whose work was a user's mistake, as of the tools
MISTAKE = 2
# how long a process waits for one of a killed search to end, which takes it a second
_PATIENCE = 60.0


@dataclass(frozen=True)
class Work:
    """What is executed: ``call``, by the name ``name``, in ``folder``; its output is appended to the file ``log``."""

    name: str
    call: Callable[[], None]
    folder: Path
    log: Path


class Executor(Protocol):
    """Where work is executed. ``jobs``: how many pieces at a time it is meant for, with ``threads`` threads each."""

    jobs: int
    threads: int
    # of each GPU that a piece uses
    gpu_share: float

    def start(self) -> None:
        """Get what it needs, unless it has it. UserError where that can't be had."""

    def execute(self, work: Work) -> None:
        """Block until it is done. UserError for a user's mistake; `WorkFailed`."""

    def stop(self) -> None:
        """End what is running, and execute nothing until it is started again: `execute` raises `WorkFailed`."""

    def close(self) -> None:
        """Give back what it holds; it may be started again."""


@dataclass
class InProcess:
    """Here, one after the other, with ``threads`` threads. A process that is killed takes the search with it."""

    threads: int = 1
    jobs: int = 1
    gpu_share: float = 1.0

    def start(self) -> None:
        """It needs nothing."""

    def execute(self, work: Work) -> None:
        """Call it; what it raises but a user's mistake is a `WorkFailed`."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            with alone_in(work.folder):
                work.call()
        except Exception as error:
            if command.mistake_of_work(error) is not None:
                raise
            raise WorkFailed(f"{work.name} failed with {type(error).__name__}: {error}") from error
        finally:
            torch.set_num_threads(before)

    def stop(self) -> None:
        """Nothing else runs."""

    def close(self) -> None:
        """It holds nothing."""


class Local:
    """Each piece in a process of its own on this machine, with ``threads`` threads.

    Processes are forked from a server that has imported everything already, so one starts in a fraction of a second. They end
    as soon as the process that asked for them does.
    """

    def __init__(self, jobs: int = 1, threads: int = 1) -> None:
        self.jobs, self.threads, self.gpu_share = jobs, threads, 1 / jobs
        self._running: set[Any] = set()
        self._stopped, self._changing = False, threading.Lock()

    def start(self) -> None:
        """Allow processes to be started; the server starts with the first."""
        self._stopped = False

    def execute(self, work: Work) -> None:
        """Start a process and wait for its end."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["search.engine.trials", *registry.locations()])
        process = context.Process(target=_child, args=(work, self.threads))
        with self._changing:
            if self._stopped:
                raise WorkFailed(f"{work.name} was stopped")
            try:
                process.start()
            except OSError as error:
                if not passing(error):
                    raise
                raise WorkFailed(f"{work.name}: no process can be started ({error.strerror})") from error
            self._running.add(process)
        process.join()
        with self._changing:
            self._running.discard(process)
        if process.exitcode:
            raise _failure(work, process.exitcode)

    def stop(self) -> None:
        """Kill the processes; an interrupted training goes on from its checkpoint."""
        with self._changing:
            self._stopped = True
            for process in self._running:
                process.kill()

    def close(self) -> None:
        """It holds nothing between two pieces."""


def _failure(work: Work, code: int) -> Exception:
    """The exception of work whose process ended with this code; of a mistake with the last line that it wrote."""
    lines: list[str] = []
    with suppress(OSError):
        lines = work.log.read_text(errors="replace").strip().splitlines()
    if code == MISTAKE and lines:
        return UserError(f"{work.name}: {lines[-1].removeprefix('error: ')}")
    return WorkFailed(f"{work.name} stopped with exit code {code}; see {work.log}")


def _child(work: Work, threads: int) -> None:
    """Work in a process made for it: output goes to the log, mistakes to an exit code."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    exit_with(parent.join)
    torch.set_num_threads(threads)
    work.log.parent.mkdir(parents=True, exist_ok=True)
    with work.log.open("a", buffering=1) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        sys.stdout = sys.stderr = log
        try:
            with alone_in(work.folder):
                work.call()
        except BaseException as error:
            sentence = command.mistake_of_work(error)
            if sentence is None:
                traceback.print_exc(file=log)
            print("stopped" if sentence is None else f"error: {sentence}", file=log)
            log.flush()
            os._exit(1 if sentence is None else MISTAKE)


def exit_with(wait: Callable[[], Any]) -> None:
    """End this process, at once and whatever it does, when ``wait`` returns in a thread of its own."""

    def watch() -> None:
        wait()
        os._exit(1)

    threading.Thread(target=watch, name="watches the search", daemon=True).start()


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """No other process has the folder for the block; one of a killed search is waited for.

    Raises:
        UserError: somebody else still had it after a minute.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a") as file:
        end = time.monotonic() + _PATIENCE
        while True:
            try:
                # a lock that ends with this process, and isn't shared with its loaders' processes
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except (BlockingIOError, PermissionError):
                if time.monotonic() > end:
                    raise UserError(
                        f"Another process is at work in {folder}: let it end, or give another --work-dir."
                    ) from None
                time.sleep(0.1)
        yield


def executor_of(settings: Mapping[str, Any]) -> Executor:
    """What a config's ``executor`` describes: ``type``, ``jobs`` and ``threads``; for Ray ``address`` and ``gpus``.

    Without a type it is 'local', and 'in_process' for 0 jobs. Raises UserError for a value that doesn't fit, ValueError where
    Ray isn't installed.
    """
    jobs = whole_number("executor.jobs", settings.get("jobs", 1), 0)
    threads = whole_number("executor.threads", settings.get("threads", 1))
    kind = settings.get("type", "local" if jobs else "in_process")
    if kind not in KINDS:
        raise UserError(f"executor.type={kind!r} is unknown: known are {', '.join(map(repr, KINDS))}.")
    for key in _OF_RAY:
        if kind != "ray" and key in settings:
            raise UserError(f"executor.{key} is of executor.type='ray', not of {kind!r}: leave it out.")
    if kind == "in_process":
        if jobs > 1:
            raise UserError(f"executor.jobs={jobs}: 'in_process' trains one after the other; take executor.type='local'.")
        return InProcess(threads)
    whole_number("executor.jobs", jobs)
    if kind == "local":
        return Local(jobs, threads)
    from search.engine.ray_executor import OnRay

    return OnRay(jobs, threads, settings.get("address"), settings.get("gpus", 0))
