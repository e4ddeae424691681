"""A one-shot search: a supernet is trained path by path, then a sampler looks for the best path with its weights.

The config is one of a training (splits `train` and `validation`) with `search.SinglePathLoop` and a strategy on top. Scored
paths stand in history.jsonl after the epochs; a killed search goes on with ``resume`` and scores none twice.
"""

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch.distributed as dist
from mmengine.config import Config

from search import report
from search.space import Architecture, split_parts
from search.space import save as save_architecture
from search.strategies.one_shot import OneShotStrategy
from search.strategies.random_search import Exhausted
from search.strategies.told import Trial
from search.strategies.within import NothingWithin, Within, architectures_within

from .budget import TRIES, Budget, budget_is_the_users, refuse_penalty, settings_of
from .checkpoint import canonical_config, fingerprint, remove_leftovers, write_json
from .data import kept_random_states
from .diagnostics import peak_memory_mib
from .errors import UserError
from .history import NAME as HISTORY
from .run import COST, SearchResult, adapter_of, check_work_dir, closing, environment, prepared, row_of, running, without_test
from .single_path import OneShotRunner, SinglePathLoop
from .spent import Spent

SCORING = "search.PathValLoop"
RANDOM = 6  # of the first, random paths, set beside the one that is found
# keys of searches by gradients
_OF_GRADIENTS = ("arch_dataloader", "arch_optimizer")


def search_one_shot(cfg: Config, strategy: OneShotStrategy) -> SearchResult:
    """Searches as the config says and writes everything to ``cfg.work_dir``.

    With ``cfg.budget`` only paths within it are scored. Raises UserError for a mistake in config, data or work directory, and,
    before the supernet is trained, BudgetError where none of a few hundred random paths is within the budget.
    """
    for key in _OF_GRADIENTS:
        if cfg.get(key) is not None:
            raise UserError(f"{cfg.strategy['type']} trains no logits and has no use for {key}: leave it out.")
    refuse_penalty(cfg)
    with running(cfg) as work_dir:
        config = canonical_config(cfg)
        any_threads = bool(cfg.get("allow_different_threads", False))
        resume = check_work_dir(work_dir, OneShotRunner.kind, config, bool(cfg.get("resume")), any_threads)
        spent = Spent(work_dir, fingerprint(cfg))
        complete = prepared(cfg, work_dir)
        if complete.get("val_dataloader") is None:
            raise UserError("A one-shot search scores paths on validation images: give splits.validation a share.")
        complete.resume, complete.load_from = resume, None if resume else cfg.get("load_from")
        complete.val_cfg = {"type": SCORING, **(complete.get("val_cfg") or {})}
        if complete.val_cfg["type"] != SCORING:
            raise UserError(f"val_cfg.type={complete.val_cfg['type']!r}: paths are scored by {SCORING!r}; leave it out.")
        input_size = tuple(adapter_of(cfg).input_size(complete))
        remove_leftovers(work_dir)
        with spent, closing(OneShotRunner.from_cfg(without_test(complete))) as runner:
            runner.run_config, runner.allow_different_threads = config, any_threads
            runner.keep_config(complete)
            runner.input_size, runner.task = input_size, adapter_of(cfg)
            if not isinstance(runner.train_loop, SinglePathLoop):
                raise UserError(f"train_cfg.type of a one-shot search is 'search.SinglePathLoop', not {complete.train_cfg}.")
            runner.check_score()
            budget = None
            if cfg.get("budget") is not None:
                budget = Budget(settings_of(cfg.budget), runner.networks, runner.parts, input_size)
                # an input size that it gives is that of all costs
                runner.input_size = budget.input_size
                with kept_random_states(), budget_is_the_users(budget):
                    # no supernet is trained for nothing: of the paths that will be asked for first, one must do
                    architectures_within(runner.space, 1, runner.seed, budget.within, TRIES)
            runner.train()
            if dist.is_initialized():
                # rank 0 has cut the history, which all read
                dist.barrier()
            try:
                trials, seconds = _evolve(runner, strategy, budget, _scored(work_dir))
            except NothingWithin as error:
                assert budget is not None
                raise budget.nothing(error) from error
            seconds += runner.train_loop.seconds
            return _finish(runner, complete, trials, {"seconds": seconds, **spent.hours(seconds)}, budget, work_dir)


def _scored(work_dir: Path) -> list[dict[str, Any]]:
    """The lines of paths that a run scored before it was killed; a half-written one, and what follows, is left out."""
    path, found = work_dir / HISTORY, []
    for text in path.read_text().splitlines() if path.exists() else []:
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            break
        if "trial" in line:
            found.append(line)
    return found


def _evolve(
    runner: OneShotRunner, strategy: OneShotStrategy, budget: Budget | None, scored: Sequence[Mapping[str, Any]]
) -> tuple[list[Trial], float]:
    """The paths that the sampler asked for with their scores, and the seconds of all of them.

    ``scored``: the lines of history of those that are known; others are scored, and their lines added.
    """
    epochs = len(runner.history.lines) - len(scored)
    sampler = strategy.sampler(runner.space, runner.seed)
    asked = sampler if budget is None else Within(sampler, budget.within, TRIES)
    trials: list[Trial] = []
    seconds, best = 0.0, math.nan
    less = runner.score[1] == "less"
    with runner.averaged_weights():
        while len(trials) < strategy.trials:
            try:
                architecture = asked.ask()
            except Exhausted:
                break
            except NothingWithin:
                # what was scored is kept
                if not trials:
                    raise
                runner.logger.warning(
                    f"no further path is found within the budget: {len(trials)} of {strategy.trials} are scored"
                )
                break
            number = len(trials)
            known = number < len(scored) and scored[number]["architecture"] == architecture.to_json()
            line = scored[number] if known else _line(runner, number, architecture)
            value = line["score"]["validation"]
            score = math.nan if value is None else float(value)
            best = score if math.isnan(best) or (score < best if less else score > best) else best
            seconds += line["seconds"]
            trials.append(Trial(architecture, score))
            asked.tell(architecture, -score if less else score)
            if known:
                continue
            if runner.rank == 0:
                # what was asked for after another path
                if number < len(scored):
                    runner.history.cut(epochs + number)
                runner.history.append({**line, "best": best})
            scored = scored[:number]
    return trials, seconds


def _line(runner: OneShotRunner, number: int, architecture: Architecture) -> dict[str, Any]:
    start = time.perf_counter()
    score = runner.score_of(runner.val_loop.score(architecture))
    cost = runner.cost_of(architecture)
    assert cost is not None
    return {
        "trial": number,
        "phase": "trial",
        "score": {"validation": score},
        "cost": {"params": cost.params, "macs": cost.macs},
        "seconds": time.perf_counter() - start,
        "architecture": architecture.to_json(),
    }


def _finish(
    runner: OneShotRunner,
    cfg: Config,
    trials: Sequence[Trial],
    took: Mapping[str, float],
    budget: Budget | None,
    work_dir: Path,
) -> SearchResult:
    """architecture.json, summary.json and the report of the best path, of equals the first."""
    known = [number for number, trial in enumerate(trials) if not math.isnan(trial.score)]
    if not known:
        raise UserError(f"None of the {len(trials)} paths has a score: the supernet diverged; lower the learning rate.")
    sign = -1.0 if runner.score[1] == "less" else 1.0
    number = max(known, key=lambda i: sign * trials[i].score)
    best = trials[number]
    derived = _row(runner, best, budget)
    path = work_dir / "architecture.json"
    summary = {
        "task": cfg.task,
        "strategy": runner.strategy.name,
        "seed": runner.seed,
        "config": cfg.filename,
        **environment(),
        **took,
        "peak_memory_mib": peak_memory_mib(),
        "epochs": runner.epoch,
        "supernet": {"params": sum(p.numel() for p in runner.model.parameters())},
        "trials": len(trials),
        "best_trial": number,
        "validation": best.score,
        "derived": {key: value for key, value in derived.items() if key != "architecture"},
        # evolution begins with random ones
        "random": [_row(runner, trial, budget) for trial in trials[:RANDOM]],
        "space": {"size": runner.space.size, "fingerprint": runner.space.fingerprint},
    }
    if budget is not None:
        summary["budget"] = budget.summary(best.architecture)
    if runner.rank == 0:
        provenance = {
            "strategy": runner.strategy.name,
            "seed": runner.seed,
            "task": cfg.task,
            "config": cfg.filename,
            "score": best.score,
            "cost": {key: derived[key] for key in COST if key in derived},
            "commit": summary["versions"]["commit"],
        }
        save_architecture(path, split_parts(runner.parts, best.architecture), provenance)
        write_json(work_dir / "summary.json", summary)
        report.write(work_dir)
    return SearchResult(best.architecture, path, best.score, summary)


def _row(runner: OneShotRunner, trial: Trial, budget: Budget | None) -> dict[str, Any]:
    cost = runner.cost_of(trial.architecture)
    assert cost is not None
    return row_of(trial.architecture, cost, trial.score, None if budget is None else budget.figures(trial.architecture))
