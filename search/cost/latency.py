"""How latency is measured: warm-up, rounds, median and spread, in milliseconds a call.

Candidates are measured in rounds: each round times every one of them once, in an order drawn anew. A machine that is shared,
warms up or changes its clock drifts over seconds; measured one after the other, the candidates would be compared across that
drift. In rounds it hits all alike, and the median over rounds leaves out the moments when another process had the core.

A sample repeats its call until it lasts a few milliseconds, as `timeit` does, so that neither the clock's resolution nor the
cost of reading it counts. On CUDA the device is synchronised before a sample's start and end.

Latency is time on the wall. Where other processes take the cores, much of that is waiting; the other clock counts only what a
core worked for this process, which for one thread is the latency on an idle machine, up to what is shared beside the core's
time (caches, memory, the two threads of a core).
"""

import gc
import math
import platform
import random
import re
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from search.cost.count import forward_of

UNIT = "ms"
# a module and its arguments
Timed = tuple[nn.Module, tuple[Any, ...], Mapping[str, Any]]
Clock = Callable[[], float]
Call = Callable[[], object]
# seconds: of real time, and of work of this process's threads taken together
CLOCKS: Mapping[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}
# of a sample's repetitions, for a call that takes no time at all
_MOST_CALLS = 1 << 14


@dataclass(frozen=True)
class Timing:
    """How often to measure. ValueError for what can't be.

    `warmup` calls of each candidate aren't timed. There are at least `rounds` rounds, and more, up to `most_rounds`, until the
    median of every candidate is known to a relative `tolerance`: the half-width of its approximate 95 % interval, 1.57 IQR
    / sqrt(runs) (McGill, Tukey and Larsen, 1978). A sample lasts at least `sample_ms` (milliseconds). `clock`: "wall", or "cpu"
    for one thread on a shared machine (see above).
    """

    warmup: int = 3
    rounds: int = 20
    most_rounds: int = 60
    sample_ms: float = 2.0
    tolerance: float = 0.02
    clock: str = "wall"

    def __post_init__(self) -> None:
        if self.warmup < 1 or self.rounds < 2 or self.most_rounds < self.rounds:
            raise ValueError(
                f"warmup={self.warmup}, rounds={self.rounds}, most_rounds={self.most_rounds}: there must be 1 call to warm up, "
                "2 rounds, and no fewer rounds at most than at least"
            )
        if not 0 <= self.sample_ms < math.inf or not 0 <= self.tolerance < math.inf:
            raise ValueError(f"sample_ms={self.sample_ms} and tolerance={self.tolerance} must be numbers of at least 0")
        if self.clock not in CLOCKS:
            raise ValueError(f"clock={self.clock!r} is none of {', '.join(CLOCKS)}")


@dataclass(frozen=True)
class Latency:
    """Median and interquartile range over `runs` samples, in milliseconds a call; `warmup` calls were left out."""

    median: float
    iqr: float
    runs: int
    warmup: int

    @classmethod
    def of(cls, samples: Sequence[float], warmup: int) -> "Latency":
        """Of at least 2 samples."""
        low, median, high = statistics.quantiles(samples, n=4, method="inclusive")
        return cls(median, high - low, len(samples), warmup)

    def known_to(self, tolerance: float) -> bool:
        """Whether the half-width of the median's 95 % interval is within this share of it."""
        return 1.57 * self.iqr / math.sqrt(self.runs) <= tolerance * self.median


def time_in_rounds(
    calls: Sequence[Call], timing: Timing, *, synchronise: Call | None = None, clock: Clock | None = None
) -> list[list[float]]:
    """Samples of each call in milliseconds, one a round, so that the i-th samples of all calls belong together.

    `synchronise` waits for an asynchronous device; `clock` gives seconds, by default the timing's.
    """
    wait = synchronise or (lambda: None)
    read = clock or CLOCKS[timing.clock]

    def elapsed(call: Call, repetitions: int) -> float:
        wait()
        start = read()
        for _ in range(repetitions):
            call()
        wait()
        return 1000 * (read() - start)

    repetitions = []
    for call in calls:
        for _ in range(timing.warmup):
            call()
        count = 1
        while elapsed(call, count) < timing.sample_ms and count < _MOST_CALLS:
            count *= 2
        repetitions.append(count)
    samples: list[list[float]] = [[] for _ in calls]
    order = list(range(len(calls)))
    shuffle = random.Random(0).shuffle
    collecting = gc.isenabled()
    gc.disable()
    try:
        for done in range(1, timing.most_rounds + 1):
            shuffle(order)
            for i in order:
                samples[i].append(elapsed(calls[i], repetitions[i]) / repetitions[i])
            if done >= timing.rounds and all(Latency.of(s, timing.warmup).known_to(timing.tolerance) for s in samples):
                break
    finally:
        if collecting:
            gc.enable()
    return samples


def time_modules(
    modules: Sequence[Timed],
    device: torch.device,
    timing: Timing,
    clock: Clock | None = None,
) -> list[list[float]]:
    """`time_in_rounds` of modules on a device, in eval mode and without gradients.

    Whole networks on images run as their multiply-adds are counted (`count.run_on`): detectors without decoding, of two stages
    on fixed boxes. Raises ValueError for the clock "cpu" with several threads or another device, where it isn't a latency.
    """
    if timing.clock == "cpu" and (device.type != "cpu" or torch.get_num_threads() > 1):
        raise ValueError(
            f"clock 'cpu' adds up the work of {torch.get_num_threads()} threads on {device.type!r}: it is a latency only for 1 "
            "thread on the CPU"
        )
    calls = [
        partial(forward_of(module) if len(args) == 1 and not kwargs else module, *args, **kwargs)
        for module, args, kwargs in modules
    ]
    synchronise = (lambda: torch.cuda.synchronize(device)) if device.type == "cuda" else None
    with evaluating([module for module, _, _ in modules]), torch.inference_mode():
        return time_in_rounds(calls, timing, synchronise=synchronise, clock=clock)


def measure(model: nn.Module, inputs: torch.Tensor, timing: Timing | None = None, clock: Clock | None = None) -> Latency:
    """Latency of `model(inputs)` on the inputs' device, in eval mode and without gradients; modes are left as they were."""
    timing = timing or Timing()
    (samples,) = time_modules([(model, (inputs,), {})], inputs.device, timing, clock)
    return Latency.of(samples, timing.warmup)


@contextmanager
def evaluating(models: Sequence[nn.Module]) -> Iterator[None]:
    """The models in eval mode, and each of their modules in its own mode again afterwards."""
    modes = {module: module.training for model in models for module in model.modules()}
    for model in models:
        model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def device_name(device: torch.device) -> str:
    """What a table is bound to: the kind of device and its model, such as 'cpu: AMD EPYC' or 'cuda: NVIDIA H100'."""
    if device.type == "cuda":
        return f"cuda: {torch.cuda.get_device_name(device)}"
    if device.type != "cpu":
        return device.type
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        found = None
    return f"cpu: {found[1].strip() if found else platform.processor() or platform.machine()}"


@dataclass(frozen=True)
class Conditions:
    """How figures were taken: device, threads of a CPU operation, the network's number type, clock, version of torch."""

    device: str
    threads: int
    dtype: str
    clock: str
    torch_version: str

    @classmethod
    def here(cls, device: torch.device, dtype: torch.dtype, clock: str = "wall") -> "Conditions":
        """Those of this process."""
        number = str(dtype).removeprefix("torch.")
        return cls(device_name(device), torch.get_num_threads(), number, clock, str(torch.__version__))

    def require(self, present: "Conditions", what: str) -> None:
        """Raise ValueError, saying where `what` was measured, when its figures don't hold under the present conditions.

        Another version of torch is let pass: who uses the figures can say so.
        """
        for name in ("device", "threads", "dtype", "clock"):
            mine, theirs = getattr(self, name), getattr(present, name)
            if mine != theirs:
                way_out = f"take --{name} {mine}, or measure" if name in ("threads", "clock") else "measure"
                raise ValueError(f"{what} was measured with {name} {mine!r}, but here it is {theirs!r}: {way_out} it again")
