"""A search by trials: architectures that a sampling strategy asks for, each trained from scratch and scored on validation data.

The config is one of a training (`search.TrainLoop`), of which every architecture is a run of its own in ``trials/<number>`` of
the work directory, with a strategy on top. A finished trial is never repeated: a killed search goes on with ``resume``, and
one with more trials continues one with fewer. All trials have the search's seed, and see the same training and validation
images.
"""

import copy
import functools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from search import report
from search.registry import MODELS
from search.space import Architecture, Space, split_parts
from search.space import save as save_architecture
from search.strategies.random_search import Exhausted
from search.strategies.sampling import SamplingStrategy
from search.strategies.table import AskTell
from search.strategies.within import NothingWithin, Within
from search.supernet import Record, record

from .budget import TRIES, Budget, refuse_penalty, settings_of
from .checkpoint import canonical_config, remove_leftovers, write_bytes, write_json, write_run
from .errors import UserError, whole_number
from .executors import executor_of
from .history import NAME as HISTORY
from .history import finite
from .networks import networks_of
from .run import COST, TRIALS, SearchResult, adapter_of, check_work_dir, environment, prepared, running
from .spent import gpu_hours
from .trials import Execution, Run

KIND = "trials"
# keys of the search, which a trial's own training doesn't have
_OF_THE_SEARCH = ("strategy", "executor", "budget", "work_dir", "resume", "launcher")
# keys of searches by gradients
_OF_GRADIENTS = ("arch_dataloader", "arch_optimizer")


@dataclass(frozen=True)
class Tried:
    """A finished trial: its architecture, and the result of its training (see `Execution.results`)."""

    architecture: Architecture
    result: Mapping[str, Any]

    @property
    def score(self) -> float:
        """On the validation data, nan where the training diverged."""
        return float(self.result["validation"])


def search_by_trials(cfg: Config, strategy: SamplingStrategy) -> SearchResult:
    """Searches as the config says and writes everything to ``cfg.work_dir``.

    ``cfg.executor``: ``type``, where trainings run: 'in_process', 'local' (default: each in a process of its own) or 'ray';
    ``jobs``, how many at a time (default 1; 0: in this process), with ``threads`` each (default 1); ``retries``, how often one
    that fails for no fault of the user's is tried again (default 1) before it is recorded as failed and told as nan;
    ``retry_failed``: try recorded ones again. With ``cfg.budget`` only architectures within it are tried.

    Raises:
        BudgetError: none of a few hundred architectures in a row is within the budget.
        UserError: a mistake in config, data or work directory, or no trial has a score; ValueError likewise.
    """
    _check(cfg)
    execution = _execution(cfg, strategy)
    with running(cfg) as work_dir:
        settings = _settings(cfg)
        check_work_dir(work_dir, KIND, settings, bool(cfg.get("resume")), False)
        complete = prepared(cfg, work_dir)
        if complete.get("val_dataloader") is None:
            raise UserError("A search by trials scores architectures on validation images: give splits.validation a share.")
        recorded = record(lambda: MODELS.build(copy.deepcopy(complete.model)))
        remove_leftovers(work_dir)
        write_bytes(work_dir / "config.py", complete.pretty_text.encode())
        write_run(work_dir, KIND, settings)
        seed = complete.randomness["seed"]
        sampler, budget = strategy.sampler(recorded.space, seed), _budget(cfg, complete, recorded)
        if budget is not None:
            sampler = Within(sampler, budget.within, TRIES)
        try:
            tried = _try(cfg, strategy, sampler, recorded.parts, execution, work_dir)
        except NothingWithin as error:
            assert budget is not None
            raise budget.nothing(error) from error
        finally:
            execution.close()
        return _finish(cfg, strategy, seed, recorded, tried, budget, work_dir)


def _settings(cfg: Config) -> str:
    """What a search that goes on must have in common with what it goes on from: not how many trials, nor where they run."""
    values = {key: value for key, value in cfg.to_dict().items() if key != "executor"}
    values["strategy"] = {key: value for key, value in values["strategy"].items() if key != "trials"}
    return canonical_config(values)


def _check(cfg: Config) -> None:
    kind = cfg.strategy["type"]
    for key in _OF_GRADIENTS:
        if cfg.get(key) is not None:
            raise UserError(f"{kind} trains architectures one by one and has no use for {key}: leave it out.")
    if (cfg.get("train_cfg") or {}).get("type") != "search.TrainLoop":
        raise UserError(f"train_cfg.type must be 'search.TrainLoop' for the trainings of {kind}, not {cfg.get('train_cfg')}.")
    refuse_penalty(cfg)
    if cfg.get("launcher", "none") != "none":
        raise UserError(f"{kind} starts a process for each training: leave out --launcher, and set executor.jobs.")


def _budget(cfg: Config, complete: Config, recorded: Record) -> Budget | None:
    if cfg.get("budget") is None:
        return None
    adapter = adapter_of(cfg)
    networks = networks_of(complete.model, adapter)
    return Budget(settings_of(cfg.budget), networks, recorded.parts, tuple(adapter.input_size(complete)))


def _execution(cfg: Config, strategy: SamplingStrategy) -> Execution:
    settings = dict(cfg.get("executor") or {})
    executor = executor_of(settings)
    if strategy.at_once is not None and executor.jobs > strategy.at_once:
        raise UserError(
            f"executor.jobs={executor.jobs}: {cfg.strategy['type']} asks for strategy.at_once={strategy.at_once} at a time, so "
            "more would only wait: set the one or the other."
        )
    again = settings.get("retry_failed", False)
    if not isinstance(again, bool):
        raise UserError(f"executor.retry_failed={again!r} must be True or False.")
    if again and strategy.at_once is not None:
        raise UserError(
            f"executor.retry_failed=True: what {cfg.strategy['type']} asked for later depends on what had failed before, so "
            "those trials would be others; start in another --work-dir."
        )
    retries = whole_number("executor.retries", settings.get("retries", 1), 0)
    return Execution(executor=executor, retries=retries, keep_failures=True, retry_failed=again)


def _try(
    cfg: Config,
    strategy: SamplingStrategy,
    sampler: AskTell,
    parts: Mapping[str, Space],
    execution: Execution,
    work_dir: Path,
) -> list[Tried]:
    """Trains what the sampler asks for, as many at a time as the strategy allows."""
    # a trial's result must not depend on how many there are, nor on what asked for it
    recipe = work_dir / TRIALS / "config.py"
    training = {key: value for key, value in cfg.to_dict().items() if key not in _OF_THE_SEARCH}
    write_bytes(recipe, Config(training).pretty_text.encode())
    tried: list[Tried] = []
    while len(tried) < strategy.trials:
        try:
            asked = _ask(sampler, min(strategy.trials - len(tried), strategy.at_once or strategy.trials))
        except NothingWithin:
            # what was tried is kept
            if not tried:
                raise
            execution.say(f"no further architecture is found within the budget: {len(tried)} of {strategy.trials} trials")
            break
        if not asked:
            break
        runs = [_run(recipe, len(tried) + i, parts, architecture, cfg) for i, architecture in enumerate(asked)]
        so_far = functools.partial(_write_so_far, cfg, work_dir, tuple(tried), asked)
        for architecture, result in zip(asked, execution.results(runs, so_far), strict=True):
            tried.append(Tried(architecture, result))
            sampler.tell(architecture, _higher_is_better(cfg, tried[-1]))
        _write_history(cfg, work_dir, tried)
    execution.say(f"{len(tried)} trials, {_failed(tried)} of them failed")
    return tried


def _ask(sampler: AskTell, count: int) -> list[Architecture]:
    asked: list[Architecture] = []
    while len(asked) < count:
        try:
            asked.append(sampler.ask())
        except Exhausted:
            break
        except NothingWithin:
            if not asked:
                raise
            break
    return asked


def _run(recipe: Path, number: int, parts: Mapping[str, Space], architecture: Architecture, cfg: Config) -> Run:
    folder = recipe.parent / f"{number:05d}"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "architecture.json"
    save_architecture(path, split_parts(parts, architecture), {"strategy": cfg.strategy["type"], "trial": number})
    seed = (cfg.get("randomness") or {}).get("seed", cfg.get("seed", 0))
    return Run("train", f"trial {number}", folder / "train", str(recipe), (), seed, path)


def _higher_is_better(cfg: Config, trial: Tried) -> float:
    return -trial.score if (cfg.get("score") or {}).get("rule") == "less" else trial.score


def _write_so_far(
    cfg: Config,
    work_dir: Path,
    tried: Sequence[Tried],
    asked: Sequence[Architecture],
    results: Sequence[Mapping[str, Any]],
) -> None:
    """The history of what was tried before, and of the first of what was asked for since."""
    _write_history(cfg, work_dir, [*tried, *map(Tried, asked, results)])


def _write_history(cfg: Config, work_dir: Path, tried: Sequence[Tried]) -> None:
    lines, best = [], None
    for number, trial in enumerate(tried):
        if not math.isnan(trial.score) and (best is None or _higher_is_better(cfg, trial) > _higher_is_better(cfg, best)):
            best = trial
        result = trial.result
        line = {
            "trial": number,
            "phase": "trial",
            "score": {"validation": trial.score},
            "best": None if best is None else best.score,
            "cost": {"params": result["params"], "macs": result["macs"]},
            "seconds": result["seconds"],
            "cpu_seconds": _cpu_seconds(result),
            "images_per_second": result["images"] / max(result["seconds"], 1e-9),
            "architecture": trial.architecture.to_json(),
        }
        line |= {key: result[key] for key in ("failed", "attempts") if key in result}
        lines.append(json.dumps(finite(line)) + "\n")
    write_bytes(work_dir / HISTORY, "".join(lines).encode())


def _cpu_seconds(result: Mapping[str, Any]) -> float:
    # results of before this was measured have one thread's seconds
    return float(result.get("cpu_seconds", result["seconds"]))


def _cpu_hours(tried: Sequence[Tried]) -> float:
    return sum(_cpu_seconds(trial.result) for trial in tried) / 3600


def _failed(tried: Sequence[Tried]) -> int:
    return sum("failed" in trial.result for trial in tried)


def _finish(
    cfg: Config,
    strategy: SamplingStrategy,
    seed: int,
    recorded: Record,
    tried: Sequence[Tried],
    budget: Budget | None,
    work_dir: Path,
) -> SearchResult:
    """architecture.json, summary.json and the report of the best trial, of equals the first."""
    scored = [(number, trial) for number, trial in enumerate(tried) if not math.isnan(trial.score)]
    if not scored:
        failed = [trial.result["failed"] for trial in tried if "failed" in trial.result]
        if failed:
            raise UserError(f"None of the {len(tried)} trials has a score, {len(failed)} failed: {failed[0]}")
        raise UserError(f"None of the {len(tried)} trials has a score, all diverged: lower the learning rate.")
    number, best = max(scored, key=lambda pair: _higher_is_better(cfg, pair[1]))
    folder = work_dir / TRIALS / f"{number:05d}" / "train"
    derived = json.loads((folder / "summary.json").read_text())["derived"]
    if budget is not None:
        # at the budget's input size, and with latency where it has a table
        derived |= {**budget.figures(best.architecture), "input_size": list(budget.input_size)}
    summary = {
        "task": cfg.task,
        "strategy": strategy.name,
        "seed": seed,
        "config": cfg.filename,
        **environment(),
        "seconds": sum(trial.result["seconds"] for trial in tried),
        "cpu_hours": _cpu_hours(tried),
        **gpu_hours(sum(trial.result.get("gpu_seconds", 0.0) for trial in tried)),
        "trials": len(tried),
        "failed": _failed(tried),
        "best_trial": number,
        "validation": best.score,
        "derived": derived,
        "space": {"size": recorded.space.size, "fingerprint": recorded.space.fingerprint},
    }
    if budget is not None:
        summary["budget"] = budget.summary(best.architecture)
    path = work_dir / "architecture.json"
    provenance = {
        "strategy": strategy.name,
        "seed": seed,
        "task": cfg.task,
        "config": cfg.filename,
        "score": best.score,
        "cost": {key: derived[key] for key in COST if key in derived},
        "commit": summary["versions"]["commit"],
    }
    save_architecture(path, split_parts(recorded.parts, best.architecture), provenance)
    write_json(work_dir / "summary.json", summary)
    report.write(work_dir)
    return SearchResult(best.architecture, path, best.score, summary)
