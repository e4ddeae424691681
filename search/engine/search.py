"""One search from a config: supernet, loop, decoded architecture, summary, report; or trials, see `trial_search`."""

from pathlib import Path
from typing import Any

from mmengine.config import Config

from search import report
from search.space import Architecture, split_parts
from search.space import save as save_architecture
from search.strategies.one_shot import OneShotStrategy
from search.strategies.random_search import random_architectures
from search.strategies.sampling import SamplingStrategy
from search.strategies.within import NothingWithin, architectures_within

from . import distributed, memory_plan, memory_report
from .bilevel_loop import BilevelLoop
from .budget import TRIES, Budget, Settings, settings_of
from .budgeted_search import BudgetedSearch
from .checkpoint import canonical_config, fingerprint, remove_leftovers, write_json
from .data import Stream, kept_random_states
from .diagnostics import peak_memory_mib
from .errors import UserError
from .run import COST, SearchResult, adapter_of, check_work_dir, closing, environment, prepared, row_of, running, without_test
from .search_runner import SearchRunner, strategy_of
from .spent import Spent

SCORING = "search.SupernetValLoop"
RANDOM = 6  # architectures drawn to be set beside the searched one


def search(cfg: Config, max_memory: int | None = None) -> SearchResult:
    """Searches as the config says and writes everything to ``cfg.work_dir``.

    With ``cfg.resume`` it goes on from the work directory's checkpoint, if there is one, or after its finished trials.

    Args:
        cfg: the config of a search.
        max_memory: bytes of the device that the search may use. Where the config needs more, plan of execution and
            recomputation, precision, parts of a batch, crop and K are changed, in this order, before the first step, see
            `search.cost.planner`; a resumed search keeps its plan.

    Raises:
        BudgetError: no settings fit in ``max_memory``, or no network of the space is within ``cfg.budget``.
        UserError: a mistake in config, data or work directory; ValueError likewise from the task adapter.
    """
    # a config without a strategy is refused below, beside its other missing keys
    strategy = strategy_of(cfg) if "strategy" in cfg else None
    if isinstance(strategy, SamplingStrategy):
        if max_memory is not None:
            raise UserError(f"--max-memory is for supernets, and {cfg.strategy['type']} trains single networks: leave it out.")
        # runs of a comparison are made of searches, and trials are such runs
        from .trial_search import search_by_trials

        return search_by_trials(cfg, strategy)
    if isinstance(strategy, OneShotStrategy):
        if max_memory is not None:
            raise UserError(f"--max-memory is for relaxed supernets, and {cfg.strategy['type']} trains one path at a time.")
        from .one_shot import search_one_shot

        return search_one_shot(cfg, strategy)
    settings = None if cfg.get("budget") is None else settings_of(cfg.budget)
    with running(cfg) as work_dir:
        asked = fingerprint(cfg)
        options = memory_plan.stored(work_dir, max_memory) if cfg.get("resume") else None
        cfg = memory_plan.with_options(cfg, options or {})
        config = canonical_config(cfg)
        any_threads = bool(cfg.get("allow_different_threads", False))
        resume = check_work_dir(work_dir, SearchRunner.kind, config, bool(cfg.get("resume")), any_threads)
        spent = Spent(work_dir, asked)
        for key in ("strategy", "arch_dataloader", "arch_optimizer"):
            if key not in cfg:
                raise UserError(f"The config has no {key}, which a search needs: is it a config for training?")
        if max_memory is not None and options is None and resume:
            raise UserError(f"The search in {work_dir} was started without --max-memory: leave it out to go on.")
        complete = prepared(cfg, work_dir)
        if max_memory is not None and options is None:
            with memory_report.measuring() as tell:
                plan = memory_plan.make(complete, adapter_of(cfg), work_dir, max_memory, tell)
            if distributed.rank() == 0:
                memory_report.show(plan)
            complete = memory_plan.with_options(complete, plan.options)
            config = canonical_config(memory_plan.with_options(cfg, plan.options))
        elif options is None:
            memory_plan.forget(work_dir)
        complete.resume, complete.load_from = resume, None if resume else cfg.get("load_from")
        if complete.get("val_dataloader") is not None:
            complete.val_cfg = {"type": SCORING, **(complete.get("val_cfg") or {})}
            if complete.val_cfg["type"] != SCORING:
                raise UserError(f"val_cfg.type={complete.val_cfg['type']!r}: a search is scored by {SCORING!r}; leave it out.")
        input_size = tuple(adapter_of(cfg).input_size(complete))
        remove_leftovers(work_dir)
        with spent, closing(SearchRunner.from_cfg(without_test(complete))) as runner:
            runner.run_config, runner.allow_different_threads = config, any_threads
            runner.keep_config(complete)
            runner.input_size, runner.task = input_size, adapter_of(cfg)
            if not isinstance(runner.train_loop, BilevelLoop):
                raise UserError(f"train_cfg.type of a search must be 'search.BilevelLoop', not {complete.train_cfg}.")
            runner.check_score()
            if settings is not None:
                runner.budget = _budget(runner, settings)
            runner.train()
            return _finish(runner, complete, spent, work_dir)


def _budget(runner: SearchRunner, settings: Settings) -> BudgetedSearch:
    """The config's budget; an input size that it gives is that of all costs."""
    budget = Budget(settings, runner.networks, runner.parts, runner.input_size)
    runner.input_size = budget.input_size
    with kept_random_states():
        return BudgetedSearch.prepared(
            budget, runner.strategy, runner.space, runner.probabilities(), runner.seed, runner.logger.info
        )


def _random(runner: SearchRunner) -> list[Architecture]:
    """Random architectures to be set beside the searched one; with a budget within it."""
    number = min(RANDOM, runner.space.size)
    if runner.budget is None:
        return random_architectures(runner.space, number, runner.seed)
    try:
        return architectures_within(runner.space, number, runner.seed, runner.budget.within, TRIES)
    except NothingWithin as error:
        runner.logger.warning(f"no random architecture is set beside the searched one: {error}")
        return []


def _batch(stream: Stream) -> int:
    return stream.loader.batch_sampler.global_batch


def _finish(runner: SearchRunner, cfg: Config, spent: Spent, work_dir: Path) -> SearchResult:
    """Scores beside random architectures, architecture.json, summary.json and the report."""
    architecture = runner.decode()
    drawn = _random(runner)
    with runner.averaged_weights():
        rows = [_row(runner, a) for a in (architecture, *drawn)]
    derived, randoms = rows[0], rows[1:]
    path = work_dir / "architecture.json"
    summary = {
        "task": cfg.task,
        "strategy": runner.strategy.name,
        "seed": runner.seed,
        "config": cfg.filename,
        **environment(),
        "seconds": runner.train_loop.seconds,
        **spent.hours(runner.train_loop.seconds),
        "peak_memory_mib": peak_memory_mib(),
        "epochs": runner.epoch,
        # as run: the adapter lowers those above a split's size
        "batch_sizes": {"weights": _batch(runner.train_loop.stream), "architecture": _batch(runner.train_loop.arch_stream)},
        "supernet": {"params": sum(p.numel() for p in runner.model.parameters())},
        "derived": {k: v for k, v in derived.items() if k != "architecture"},
        "random": randoms,
        "space": {"size": runner.space.size, "fingerprint": runner.space.fingerprint},
    }
    if runner.budget is not None:
        summary["budget"] = runner.budget.summary(runner.arch_params.logits, runner.probabilities())
    if runner.rank == 0:
        provenance = {
            "strategy": runner.strategy.name,
            "seed": runner.seed,
            "task": cfg.task,
            "config": cfg.filename,
            "score": derived["score_supernet"],
            "cost": {k: derived[k] for k in COST if k in derived},
            "commit": summary["versions"]["commit"],
        }
        save_architecture(path, split_parts(runner.parts, architecture), provenance)
        write_json(work_dir / "summary.json", summary)
        report.write(work_dir)
    return SearchResult(architecture, path, derived["score_supernet"], summary)


def _row(runner: SearchRunner, architecture: Architecture) -> dict[str, Any]:
    cost = runner.cost_of(architecture)
    assert cost is not None
    score = None
    if runner.val_loop is not None:
        score = runner.score_of(runner.val_loop.score(architecture))
    return row_of(architecture, cost, score, None if runner.budget is None else runner.budget.figures(architecture))
