"""What a run costs: processor time over all its attempts, killed, interrupted and failed ones too, and hours of GPUs."""

import json
import os
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from mmengine.device import get_device

from search.engine import distributed

NAME = "spent.json"
# seconds between two writings: as much of a killed attempt may be missing
EVERY = 10.0


def gpu_seconds(seconds: float) -> float:
    """Of so many seconds, in which each process has a GPU; 0 on the CPU."""
    return 0.0 if get_device() == "cpu" else seconds * distributed.world_size()


def gpu_hours(seconds: float) -> dict[str, float]:
    """A summary's ``gpu_hours`` of so many GPU-seconds; nothing where there are none."""
    return {"gpu_hours": seconds / 3600} if seconds else {}


def in_words(summary: Mapping[str, Any]) -> str:
    """The hours of a summary, of GPUs where there are any."""
    return f"{summary['gpu_hours']:.3g} GPU-hours" if "gpu_hours" in summary else f"{summary['cpu_hours']:.3g} CPU-hours"


def earlier(folder: Path, fingerprint: str, name: str = NAME) -> float | None:
    """Processor seconds of the attempts so far at the run of this fingerprint; None where nothing was written of it."""
    try:
        found = json.loads((folder / name).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        # never written, or not before the power failed
        return None
    return float(found["cpu_seconds"]) if found["fingerprint"] == fingerprint else None


class Spent:
    """Counts this process's processor seconds, from here to the end of a block, added to those of a run's earlier attempts.

    They are kept in a file of the run's folder: written every `EVERY` seconds, by a thread, and after the block. So what a kill
    loses of the sum is at most the last `EVERY` seconds, and what loader processes used that hadn't ended; steps that are
    repeated after it are in the sum twice, as they were done twice. Of several processes each keeps its own.
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self._folder, self._fingerprint = folder, fingerprint
        self._name = NAME if distributed.rank() == 0 else f"{distributed.rank()}_{NAME}"
        self._before = earlier(folder, fingerprint, self._name) or 0.0
        self._begin = _here()
        self._over, self._writes = threading.Event(), threading.Thread(target=self._keep, name="counts", daemon=True)

    @property
    def cpu_seconds(self) -> float:
        """Of all attempts until now."""
        return self._before + _here() - self._begin

    def hours(self, seconds: float) -> dict[str, float]:
        """Of a run of so many seconds ``cpu_hours`` of all processes, which all must ask, and `gpu_hours`."""
        return {"cpu_hours": sum(distributed.gather(self.cpu_seconds)) / 3600, **gpu_hours(gpu_seconds(seconds))}

    def __enter__(self) -> "Spent":
        self._writes.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        self._writes.join()
        self._write()

    def _keep(self) -> None:
        while not self._over.wait(EVERY):
            self._write()

    def _write(self) -> None:
        temporary = self._folder / f".{self._name}.tmp"
        # a full disk is met by the run itself, which says so
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps({"fingerprint": self._fingerprint, "cpu_seconds": self.cpu_seconds}))
            os.replace(temporary, self._folder / self._name)


def _here() -> float:
    """Processor time of this process and of those of its loaders that have ended."""
    ended = os.times()
    # finer than `os.times` is, which counts ticks of 10 ms
    return time.process_time() + ended.children_user + ended.children_system
