"""What the benches of execution plans share: plans that run here, interleaved times, the conditions, the report's file."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from search.cost.latency import Timing, device_name, time_in_rounds
from search.engine.errors import UserError
from search.engine.history import finite
from search.engine.memory_plan import execution_name
from search.space.files import write_atomically
from search.supernet.plans import MEMORY, PLANS, require_triton

Call = Callable[[], object]
# a plan that picks another one
CHOOSER = "auto"


def triton_runs(device: torch.device, timed: bool = True) -> bool:
    """Whether Triton kernels run on a device: compiled, or in Triton's interpreter where nothing is timed."""
    if timed and os.environ.get("TRITON_INTERPRET") == "1":
        return False
    try:
        require_triton(device, torch.float32)
    except ValueError:
        return False
    return True


def executions(device: torch.device, timed: bool = True) -> dict[str, tuple[str, str]]:
    """The plans and memory policies that run on a device, by name: "reference", "batched/fast", and so on."""
    found = {}
    for plan in PLANS:
        if plan == CHOOSER or (plan == "triton" and not triton_runs(device, timed)):
            continue
        # the reference recomputes nothing
        for memory in MEMORY[:1] if plan == "reference" else MEMORY:
            found[execution_name(plan, memory)] = (plan, memory)
    return found


def chosen(known: Mapping[str, Any], asked: Sequence[str] | None, option: str) -> dict[str, Any]:
    """Those of `known` that were asked for, or all. Raises UserError for a name that isn't known."""
    for name in asked or ():
        if name not in known:
            raise UserError(f"{option} {name}: what runs here is {', '.join(known)}")
    return {name: known[name] for name in (asked or known)}


def device_of(asked: str | None) -> torch.device:
    """The device asked for, by default CUDA where there is one. Raises UserError for a CUDA device that isn't there."""
    if asked == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch finds no CUDA device; leave the option out, or give cpu")
    return torch.device(asked or ("cuda" if torch.cuda.is_available() else "cpu"))


def interleaved(calls: Mapping[str, Call], rounds: int, device: torch.device, sample_ms: float = 0.0) -> dict[str, dict]:
    """Seconds of each call in rounds that run all of them once, in an order drawn anew: the i-th values belong together.

    Per call ``{"wall": spread, "cpu": spread}``: time on the wall, and work of this process's threads, None where another
    device does the work. Samples shorter than `sample_ms` repeat their call.
    """
    worked: dict[str, list[float]] = {name: [] for name in calls}

    def timed(name: str, call: Call) -> Call:
        def run() -> None:
            start = time.process_time()
            call()
            worked[name].append(time.process_time() - start)

        return run

    timing = Timing(warmup=1, rounds=rounds, most_rounds=rounds, sample_ms=sample_ms)
    wait = torch.cuda.synchronize if device.type == "cuda" else None
    samples = time_in_rounds([timed(name, call) for name, call in calls.items()], timing, synchronise=wait)
    found = {}
    for (name, seconds), wall in zip(worked.items(), samples, strict=True):
        # calls of a sample, from all calls: the warm-up, 1 + 2 + 4 + ... until a sample is long enough, and the rounds
        repeated = (len(seconds) - timing.warmup + 1) // (rounds + 2)
        last = seconds[-rounds * repeated :]
        cpu = [sum(last[i : i + repeated]) / repeated for i in range(0, len(last), repeated)]
        found[name] = {"wall": spread([ms / 1000 for ms in wall]), "cpu": None if wait else spread(cpu)}
    return found


@contextmanager
def no_autocast() -> Iterator[None]:
    """Autocast is off while the block runs; torch can't even be asked about it on the meta device."""
    with (
        mock.patch.object(torch, "is_autocast_enabled", lambda *_: False),
        mock.patch.object(torch, "autocast", lambda *_, **__: nullcontext()),
    ):
        yield


def device_kernels(step: Call) -> int:
    """What the profiler sees a step do on the CUDA device: kernels, copies and fills."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        step()
        torch.cuda.synchronize()
    return sum(event.device_type == torch.autograd.DeviceType.CUDA for event in profile.events())


def release() -> None:
    """Give freed memory back to the system, as far as the C library can: networks one after the other would add theirs up."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Median, range and the values themselves, in their order."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values), "values": list(values)}


def ratios(values: Mapping[str, Any] | None, base: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The spread of a spread's values over those of the same rounds of another."""
    if values is None or base is None:
        return None
    return spread([a / b for a, b in zip(values["values"], base["values"], strict=True)])


def conditions(device: torch.device) -> dict[str, Any]:
    """Where and with what figures are taken."""
    load = os.getloadavg() if hasattr(os, "getloadavg") else None
    return {
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "load": load and load[0],
        "torch": str(torch.__version__),
        "triton": _version("triton"),
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "cudnn": torch.backends.cudnn.version() if device.type == "cuda" else None,
        "python": platform.python_version(),
    }


def header(found: Mapping[str, Any]) -> str:
    """The conditions in a line."""
    load = "" if found["load"] is None else f", load {found['load']:.1f} on {found['cores']} cores"
    return f"{found['device']}, threads {found['threads']}{load}, torch {found['torch']}, triton {found['triton']}"


def check_writable(path: str | None) -> None:
    """UserError where a report's file can't be made, before an hour of measuring."""
    if path is not None and (not Path(path).absolute().parent.is_dir() or Path(path).is_dir()):
        raise UserError(f"--json {path} can't be written: give a file in a folder that exists")


def write(path: str | None, report: Mapping[str, Any]) -> None:
    """Write a report as JSON, whole or not at all."""
    if path is not None:
        write_atomically(path, (json.dumps(finite(report), indent=1) + "\n").encode())


def range_text(found: Mapping[str, Any] | None, scale: float = 1.0, digits: int = 2) -> str:
    """A spread for people: "5.1 (4.9-5.4)"."""
    if found is None:
        return "-"
    median, low, high = (f"{scale * found[key]:.{digits}f}" for key in ("median", "low", "high"))
    return f"{median} ({low}-{high})"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
