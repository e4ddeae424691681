"""Work on a Ray cluster: one that is started for the search on this machine, or one that runs already.

A cluster's machines must see the work directory and the data by the same paths, and have this project installed. Ray keeps
nothing between two searches: what is finished is in files, and a process that dies is `Execution`'s to try again.
"""

import functools
import importlib.util
import os
import select
import threading
import time
from typing import Any, NamedTuple

from search.engine.errors import UserError, WorkFailed
from search.engine.executors import Local, Work, exit_with

_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # a task without GPUs of its own would be made blind to them all
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # trainings would have the lowest priority, and starve beside anything else
    "RAY_worker_niceness": "0",
}


class Driver(NamedTuple):
    """The process of the search: its machine as Ray names it, its number, its current folder."""

    node: str
    pid: int
    folder: str


class OnRay:
    """Each piece of work in a process of its own on a Ray cluster, ``threads`` processors and threads for each.

    ``address`` of a running cluster ('auto': found by Ray); None: one of ``jobs * threads`` processors is started here, and
    ends with the search. ``gpus``: how many of a machine's GPUs a piece gets, also less than one; 0 leaves them all visible.
    """

    def __init__(self, jobs: int, threads: int, address: str | None = None, gpus: float = 0) -> None:
        if importlib.util.find_spec("ray") is None:
            raise UserError("executor.type='ray' needs Ray, which isn't installed: make setup EXTRAS=ray installs it.")
        if not isinstance(gpus, int | float) or isinstance(gpus, bool) or gpus < 0:
            raise UserError(f"executor.gpus={gpus!r} must be a number of GPUs for each training, 0 or more.")
        if address is not None and not isinstance(address, str):
            raise UserError(f"executor.address={address!r} must be the address of a Ray cluster, such as 'auto'.")
        self.jobs, self.threads, self.address, self.gpus = jobs, threads, address, gpus
        # none asked for are shared by all pieces, on one machine
        self.gpu_share = float(gpus) or 1 / jobs
        self._task: Any = None
        self._running: set[Any] = set()
        self._stopped, self._changing = False, threading.Lock()

    def start(self) -> None:
        """Join or start the cluster, once. UserError where there is none at the address, or its machines are too small."""
        self._stopped = False
        if self._task is not None:
            return
        # read when ray is imported
        for name, value in _SETTINGS.items():
            os.environ.setdefault(name, value)
        import ray

        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if self.address is None:
            cpus = self.jobs * self.threads
            ray.init("local", num_cpus=cpus, include_dashboard=False, object_store_memory=100 * 2**20, **quiet)
        else:
            try:
                ray.init(self.address, **quiet)
            except (ConnectionError, ValueError, RuntimeError) as error:
                first = " ".join(str(error).split(". ")[0].split())
                raise UserError(f"executor.address={self.address!r}: no Ray cluster can be joined there ({first}).") from error
        if not any(
            node["Resources"].get("CPU", 0) >= self.threads and node["Resources"].get("GPU", 0) >= self.gpus
            for node in ray.nodes()
            if node["Alive"]
        ):
            self._end()
            raise UserError(
                f"No machine of the Ray cluster has executor.threads={self.threads} processors and executor.gpus={self.gpus}."
            )
        # `Execution` counts the attempts itself
        remote = ray.remote(num_cpus=self.threads, num_gpus=self.gpus, max_retries=0)
        self._task = remote(_on_ray)

    def execute(self, work: Work) -> None:
        """Give it to the cluster and wait."""
        import ray

        assert self._task is not None, "started first"
        driver = Driver(ray.get_runtime_context().get_node_id(), os.getpid(), os.getcwd())
        with self._changing:
            if self._stopped:
                raise WorkFailed(f"{work.name} was stopped")
            running = self._task.remote(work, self.threads, driver)
            self._running.add(running)
        try:
            failed = ray.get(running)
        except ray.exceptions.RayError as error:
            last = [*str(error).strip().splitlines(), ""][-1].strip()
            raise WorkFailed(f"{work.name} stopped, says Ray ({type(error).__name__}: {last}); see {work.log}") from None
        finally:
            with self._changing:
                self._running.discard(running)
        if failed is not None:
            mistake, why = failed
            raise UserError(why) if mistake else WorkFailed(why)

    def stop(self) -> None:
        """Kill the processes; an interrupted training goes on from its checkpoint."""
        import ray

        with self._changing:
            self._stopped = True
            for running in self._running:
                ray.cancel(running, force=True)

    def close(self) -> None:
        """Leave the cluster; one that was started for the search ends."""
        if self._task is not None:
            self._end()

    def _end(self) -> None:
        import ray

        self._task = None
        ray.shutdown()


def _on_ray(work: Work, threads: int, driver: Driver) -> tuple[bool, str] | None:
    """In a process of Ray's, which starts one for the work.

    None when it is done, else whether it is the user's mistake, and why. Both processes end with the search: at once on its
    machine; on others when Ray notices, in seconds.
    """
    import ray

    # paths of the config are relative to where the search was started
    os.chdir(driver.folder)
    if ray.get_runtime_context().get_node_id() == driver.node:
        _watch(driver.pid)
    try:
        Local(1, threads).execute(work)
    except (UserError, WorkFailed) as error:
        return isinstance(error, UserError), str(error)
    return None


@functools.cache
def _watch(pid: int) -> None:
    exit_with(lambda: _wait_for(pid))


def _wait_for(pid: int) -> None:
    """Return when that process of this machine has ended."""
    if hasattr(os, "pidfd_open"):
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        select.select([descriptor], [], [])
        return
    while True:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.5)
