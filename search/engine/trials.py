"""Runs of a comparison or of a search by trials: each leaves a result file, and none is repeated.

Where they run is an executor's (`executors.py`), usually a process each: what is left of a run (loggers, visualisers, memory)
can't touch the next, a run may be killed, and its result is that of the command line tools.
"""

import copy
import functools
import hashlib
import json
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

from search.engine import checkpoint
from search.engine import config as config_files
from search.engine.errors import UserError, WorkFailed
from search.engine.executors import Executor, InProcess, Local, Work
from search.engine.search import search
from search.engine.searchable import set_architecture
from search.engine.spent import Spent, earlier, gpu_seconds
from search.engine.train import evaluate, train

RESULT, TEST, FAILED, LOG = "result.json", "test.json", "failed.json", "output.log"


@dataclass(frozen=True)
class Steps:
    """The functions that runs are made of; tests put others in their place."""

    search: Callable[[Config], Any] = search
    train: Callable[[Config], Any] = train
    evaluate: Callable[[Config, str], Mapping[str, float]] = evaluate


@dataclass(frozen=True)
class Run:
    """One search or training. ``test``: whether the trained network also reads the test data, once."""

    kind: str
    name: str
    work_dir: Path
    config: str
    options: tuple[str, ...]
    seed: int
    arch: Path | None = None
    test: bool = False

    def load(self) -> Config:
        """Its config, as the command line tools load it."""
        cfg = copy.deepcopy(_loaded(self.config, self.options))
        cfg.work_dir, cfg.seed = str(self.work_dir), self.seed
        if "seed" in cfg.get("randomness", {}):
            cfg.randomness.seed = self.seed
        if self.arch is not None:
            set_architecture(cfg, str(self.arch))
        # from its checkpoint, if it has one
        cfg.resume = True
        return cfg


@functools.cache
def _loaded(config: str, options: tuple[str, ...]) -> Config:
    # reading and checking a config takes longer than anything else between two runs
    return config_files.load(config, options)


@dataclass
class Execution:
    """How runs are executed: ``jobs`` at a time with ``threads`` threads each, in processes of their own; 0 jobs: here.

    ``executor``: one that is used instead of what jobs and threads say. ``retries``: how often a run that failed for no fault
    of the user's is tried again, from its last checkpoint. ``keep_failures``: one that failed for good is recorded, and the
    others go on; otherwise it stops them. ``retry_failed``: recorded ones are tried again.
    """

    jobs: int = 1
    threads: int = 1
    steps: Steps = field(default_factory=Steps)
    say: Callable[[str], None] = print
    executor: Executor | None = None
    retries: int = 0
    keep_failures: bool = False
    retry_failed: bool = False

    def __post_init__(self) -> None:
        here = self.executor or (Local(self.jobs, self.threads) if self.jobs else InProcess(self.threads))
        self._executor, self._stopped = here, threading.Event()

    def close(self) -> None:
        """Give back what the executor holds; it may be used again."""
        self._executor.close()

    def results(
        self, runs: Sequence[Run], so_far: Callable[[list[dict[str, Any]]], None] | None = None
    ) -> list[dict[str, Any]]:
        """Every run's result, in order; runs that have one aren't repeated, interrupted ones go on.

        ``so_far`` is called with the first runs' results whenever these are a tenth of all more than before, but for the last.

        A result: ``seconds``, ``cpu_seconds`` (processor time of all its attempts, see `Spent`), ``gpu_seconds`` (its share of
        them where several runs have one GPU), ``images`` (training images, see `images_of`), and of a training ``params``,
        ``macs``, ``validation``, and ``test`` where asked for. Of a failed run: ``failed``, a sentence, and ``attempts``; its
        ``validation`` is nan, its costs None, its time that of the attempts.
        Raises UserError for a run that fails by a user's mistake, or whose directory holds another run.
        """
        # a run may be asked for twice: two groups can keep the same architecture
        to_do = list({r.work_dir: r for r in runs if not self._ended(r)}.values())
        start, done, known, told = time.monotonic(), 0, 0, 0
        waiting = {run.work_dir for run in to_do}
        if len(to_do) < len(runs):
            self.say(f"{len(runs) - len(to_do)} of {len(runs)} runs are finished already")
        if to_do:
            self._executor.start()
        self._stopped.clear()
        with ThreadPoolExecutor(self._executor.jobs) as pool:
            futures = {pool.submit(self._execute, run): run for run in to_do}
            try:
                for future in as_completed(futures):
                    future.result()
                    done += 1
                    left = (time.monotonic() - start) / done * (len(to_do) - done)
                    self.say(f"[{done}/{len(to_do)}] {futures[future].name}, about {left / 60:.1f} min left here")
                    waiting.remove(futures[future].work_dir)
                    while known < len(runs) and runs[known].work_dir not in waiting:
                        known += 1
                    if so_far is not None and known < len(runs) and 10 * (known - told) >= len(runs):
                        so_far([_read(run) for run in runs[:known]])
                        told = known
            except BaseException:
                self._stopped.set()
                pool.shutdown(wait=False, cancel_futures=True)
                self._executor.stop()
                raise
        return [_read(run) for run in runs]

    def _ended(self, run: Run) -> bool:
        """Whether it has a result, or a recorded failure that isn't to be tried again."""
        fingerprint = _fingerprint(run, run.load())
        if _finished(run, fingerprint):
            return True
        failed = run.work_dir / FAILED
        if self.retry_failed:
            failed.unlink(missing_ok=True)
        if not self.keep_failures or not failed.exists():
            return False
        _check_same(run, failed, fingerprint)
        return True

    def _execute(self, run: Run) -> None:
        call = functools.partial(perform, run, self.steps, self._executor.gpu_share)
        work = Work(run.name, call, run.work_dir, run.work_dir / LOG)
        start = time.monotonic()
        for attempt in range(1, self.retries + 2):
            if self._stopped.is_set():
                raise WorkFailed(f"{run.name} was stopped")
            try:
                self._executor.execute(work)
                return
            except WorkFailed as error:
                # what was stopped because of another run hasn't failed
                if self._stopped.is_set() or (attempt > self.retries and not self.keep_failures):
                    raise error.__cause__ or error from None
                self.say(f"{error}; {'trying again' if attempt <= self.retries else 'recorded as failed'}")
                failed = str(error)
        seconds = time.monotonic() - start
        fingerprint = _fingerprint(run, run.load())
        record: dict[str, Any] = {"fingerprint": fingerprint, "failed": failed, "attempts": attempt}
        # processes that were killed at once have written nothing
        spent = earlier(run.work_dir, fingerprint)
        record |= {"seconds": seconds, "cpu_seconds": seconds * self._executor.threads if spent is None else spent, "images": 0}
        record["gpu_seconds"] = gpu_seconds(seconds) * self._executor.gpu_share
        checkpoint.write_json(run.work_dir / FAILED, record | {"params": None, "macs": None, "validation": None})


def perform(run: Run, steps: Steps, gpu_share: float = 1.0) -> None:
    """Do what of a run isn't done yet, and write its result. ``gpu_share``: of each GPU that it uses, if it does."""
    cfg = run.load()
    fingerprint = _fingerprint(run, cfg)
    if not (run.work_dir / RESULT).exists():
        if run.kind == "search":
            # it counts its own time, and that of its trials' processes
            done = steps.search(cfg)
            summary = done.summary
            of_cpu, of_gpu = 3600 * summary["cpu_hours"], 3600 * summary.get("gpu_hours", 0.0)
        else:
            with Spent(run.work_dir, fingerprint) as spent:
                done = steps.train(cfg)
            summary = done.summary
            of_cpu, of_gpu = spent.cpu_seconds, gpu_seconds(summary["seconds"])
        result = {"fingerprint": fingerprint, "seconds": summary["seconds"]}
        result["images"] = images_of(run.work_dir / "history.jsonl", cfg, summary.get("batch_sizes"))
        result |= {"cpu_seconds": of_cpu, "gpu_seconds": of_gpu * gpu_share}
        if run.kind == "train":
            result |= {"params": summary["derived"]["params"], "macs": summary["derived"]["macs"]}
            result["validation"] = done.score
        checkpoint.write_json(run.work_dir / RESULT, result)
    if run.test and not (run.work_dir / TEST).exists():
        cfg = run.load()
        metrics = steps.evaluate(cfg, str(run.work_dir / checkpoint.NAME))
        checkpoint.write_json(run.work_dir / TEST, {"test": _score(metrics, cfg), "metrics": dict(metrics)})


def images_of(history: Path, cfg: Mapping[str, Any], batches: Mapping[str, int] | None) -> int:
    """Training images that went forward and backward, counted once for each pass, from a run's history.

    A step on the logits passes its own batch once; of second order also the weights' batch three times more. A one-shot search
    trains nothing for the paths that it scores.
    ``batches``: a search's batch sizes as they were run, of ``weights`` and ``architecture``.
    """
    share = batches["architecture"] / batches["weights"] if batches else 0.0
    passes = 1 + share + (3 if (cfg.get("strategy") or {}).get("order") == 2 else 0)
    total = 0.0
    for line in history.read_text().splitlines():
        epoch = json.loads(line)
        images = epoch.get("images_per_second", 0.0) * epoch["seconds"]
        total += images * (passes if epoch["phase"] == "search" else 1)
    return round(total)


def _score(metrics: Mapping[str, float], cfg: Mapping[str, Any]) -> float:
    key = (cfg.get("score") or {}).get("key")
    for name, value in metrics.items():
        if key is None or name == key or name.endswith(f"/{key}"):
            return float(value)
    raise UserError(f"score.key={key!r} isn't among the test metrics ({', '.join(metrics) or 'none'}).")


def _fingerprint(run: Run, cfg: Config) -> str:
    """What a run's result depends on: its settings, its seed (in the config) and its architecture."""
    settings = json.loads(checkpoint.canonical_config(cfg))
    text = json.dumps([run.kind, _without_paths(settings)], sort_keys=True)
    if run.arch is not None:
        text += json.dumps(json.loads(run.arch.read_text())["parts"], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _without_paths(settings: Any) -> Any:
    """The architecture counts by its content, not by where its file lies."""
    if isinstance(settings, dict):
        return {key: _without_paths(value) for key, value in settings.items() if key != "arch"}
    return [_without_paths(value) for value in settings] if isinstance(settings, list) else settings


def _finished(run: Run, fingerprint: str) -> bool:
    path = run.work_dir / RESULT
    if not path.exists():
        return False
    _check_same(run, path, fingerprint)
    return not run.test or (run.work_dir / TEST).exists()


def _check_same(run: Run, path: Path, fingerprint: str) -> None:
    if json.loads(path.read_text())["fingerprint"] != fingerprint:
        raise UserError(f"{run.work_dir} holds the result of a run with other settings; give another --work-dir, or remove it.")


def _read(run: Run) -> dict[str, Any]:
    path = run.work_dir / RESULT
    # only what has no result may be recorded as failed
    result: dict[str, Any] = json.loads((path if path.exists() else run.work_dir / FAILED).read_text())
    if run.test and "failed" not in result:
        result |= json.loads((run.work_dir / TEST).read_text())
    if result.get("validation") is None and run.kind == "train":
        result["validation"] = math.nan
    return result
