"""Runs of a comparison: each in a process of its own, each leaving a result file, none repeated.

Why a process a run: what is left of a run (loggers, visualisers, memory) can't touch the next, a run may be killed, and
its result is that of the command line tools. The processes are forked from a server that has imported everything
already, so a run starts in a fraction of a second, not in the several seconds that the imports take.
"""

import copy
import functools
import hashlib
import json
import math
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

from search import registry
from search.engine import checkpoint, command
from search.engine import config as config_files
from search.engine.errors import UserError
from search.engine.search import search
from search.engine.train import evaluate, train

RESULT, TEST, LOG = "result.json", "test.json", "output.log"


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
            command.set_architecture(cfg, str(self.arch))
        # from its checkpoint, if it has one
        cfg.resume = True
        return cfg


@functools.cache
def _loaded(config: str, options: tuple[str, ...]) -> Config:
    # reading and checking a config takes longer than anything else between two runs
    return config_files.load(config, options)


@dataclass
class Execution:
    """How runs are executed: ``jobs`` at a time with ``threads`` threads each; 0 jobs: here, one after the other."""

    jobs: int = 1
    threads: int = 1
    steps: Steps = field(default_factory=Steps)
    say: Callable[[str], None] = print

    def results(self, runs: Sequence[Run]) -> list[dict[str, Any]]:
        """Every run's result, in order; runs that have one aren't repeated, interrupted ones go on.

        A result: ``seconds``, ``images`` (training images, see `images_of`), and of a training ``params``, ``macs``,
        ``validation``, and ``test`` where asked for.
        Raises UserError for a run that fails by a user's mistake, or whose directory holds another run.
        """
        # a run may be asked for twice: two groups can keep the same architecture
        to_do = list({r.work_dir: r for r in runs if not _finished(r, _fingerprint(r, r.load()))}.values())
        start, done = time.monotonic(), 0
        if len(to_do) < len(runs):
            self.say(f"{len(runs) - len(to_do)} of {len(runs)} runs are finished already")
        with ThreadPoolExecutor(max(self.jobs, 1)) as pool:
            futures = {pool.submit(self._execute, run): run for run in to_do}
            try:
                for future in as_completed(futures):
                    future.result()
                    done += 1
                    left = (time.monotonic() - start) / done * (len(to_do) - done)
                    self.say(f"[{done}/{len(to_do)}] {futures[future].name}, about {left / 60:.1f} min left here")
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return [_read(run) for run in runs]

    def _execute(self, run: Run) -> None:
        if self.jobs == 0:
            perform(run, self.steps)
            return
        context = _server()
        process = context.Process(target=_child, args=(run, self.steps, self.threads))
        process.start()
        process.join()
        if process.exitcode:
            failed = run.work_dir / LOG
            lines = failed.read_text().strip().splitlines() if failed.exists() else []
            if process.exitcode == 2 and lines:
                raise UserError(f"{run.name}: {lines[-1].removeprefix('error: ')}")
            raise RuntimeError(f"{run.name} stopped with exit code {process.exitcode}; see {failed}")


def perform(run: Run, steps: Steps) -> None:
    """Do what of a run isn't done yet, and write its result."""
    cfg = run.load()
    fingerprint = _fingerprint(run, cfg)
    if not (run.work_dir / RESULT).exists():
        done = steps.search(cfg) if run.kind == "search" else steps.train(cfg)
        summary = done.summary
        result = {"fingerprint": fingerprint, "seconds": summary["seconds"]}
        result["images"] = images_of(run.work_dir / "history.jsonl", cfg, summary.get("batch_sizes"))
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

    A step on the logits passes its own batch once; of second order also the weights' batch three times more.
    ``batches``: a search's batch sizes as they were run, of ``weights`` and ``architecture``.
    """
    share = batches["architecture"] / batches["weights"] if batches else 0.0
    passes = 1 + share + (3 if (cfg.get("strategy") or {}).get("order") == 2 else 0)
    total = 0.0
    for line in history.read_text().splitlines():
        epoch = json.loads(line)
        images = epoch["images_per_second"] * epoch["seconds"]
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
    if json.loads(path.read_text())["fingerprint"] != fingerprint:
        raise UserError(f"{run.work_dir} holds the result of a run with other settings; give another --work-dir, or remove it.")
    return not run.test or (run.work_dir / TEST).exists()


def _read(run: Run) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((run.work_dir / RESULT).read_text())
    if run.test:
        result |= json.loads((run.work_dir / TEST).read_text())
    if result.get("validation") is None and run.kind == "train":
        result["validation"] = math.nan
    return result


def _server() -> Any:
    """The context of the server that runs are forked from, with everything imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["search.engine.trials", *registry.locations()])
    return context


def _child(run: Run, steps: Steps, threads: int) -> None:
    """A run in its own process: output goes to a file, mistakes to an exit code."""
    import torch

    torch.set_num_threads(threads)
    run.work_dir.mkdir(parents=True, exist_ok=True)
    with (run.work_dir / LOG).open("a", buffering=1) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        sys.stdout = sys.stderr = log
        try:
            perform(run, steps)
        except BaseException as error:
            sentence = command.mistake(error)
            if sentence is None:
                traceback.print_exc(file=log)
            print("stopped" if sentence is None else f"error: {sentence}", file=log)
            log.flush()
            os._exit(1 if sentence is None else 2)
