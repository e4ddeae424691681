"""One search from a config: supernet, loop, decoded architecture, summary, report."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from search import report
from search.cost.count import CONVENTIONS
from search.space import Architecture
from search.space import save as save_architecture
from search.strategies.random_search import random_architectures

from . import distributed, memory_plan, memory_report
from .bilevel_loop import BilevelLoop
from .checkpoint import canonical_config, remove_leftovers, write_json
from .data import Stream
from .diagnostics import peak_memory_mib
from .errors import UserError
from .run import adapter_of, check_work_dir, closing, environment, prepared, running, without_test
from .search_runner import SearchRunner

SCORING = "search.SupernetValLoop"
RANDOM = 6  # architectures drawn to be set beside the searched one


@dataclass(frozen=True)
class SearchResult:
    """A finished search.

    ``architecture``: what was decoded, of all parts; ``path``: its file; ``score``: of the supernet masked to it, on the
    validation split; ``summary``: the content of summary.json.
    """

    architecture: Architecture
    path: Path
    score: float | None
    summary: dict[str, Any]


def search(cfg: Config, max_memory: int | None = None) -> SearchResult:
    """Searches as the config says and writes everything to ``cfg.work_dir``.

    With ``cfg.resume`` it goes on from the work directory's checkpoint, if there is one.

    Args:
        cfg: the config of a search.
        max_memory: bytes of the device that the search may use. Where the config needs more, plan of execution and
            recomputation, precision, parts of a batch, crop and K are changed, in this order, before the first step, see
            `search.cost.planner`; a resumed search keeps its plan.

    Raises:
        BudgetError: no settings fit in ``max_memory``.
        UserError: a mistake in config, data or work directory; ValueError likewise from the task adapter.
    """
    with running(cfg) as work_dir:
        options = memory_plan.stored(work_dir, max_memory) if cfg.get("resume") else None
        cfg = memory_plan.with_options(cfg, options or {})
        config = canonical_config(cfg)
        any_threads = bool(cfg.get("allow_different_threads", False))
        resume = check_work_dir(work_dir, SearchRunner.kind, config, bool(cfg.get("resume")), any_threads)
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
        with closing(SearchRunner.from_cfg(without_test(complete))) as runner:
            runner.run_config, runner.allow_different_threads = config, any_threads
            runner.keep_config(complete)
            runner.input_size = input_size
            runner.derived_model = getattr(adapter_of(cfg), "derived_model", None)
            if not isinstance(runner.train_loop, BilevelLoop):
                raise UserError(f"train_cfg.type of a search must be 'search.BilevelLoop', not {complete.train_cfg}.")
            runner.check_score()
            runner.train()
            return _finish(runner, complete, work_dir)


def _batch(stream: Stream) -> int:
    return stream.loader.batch_sampler.global_batch


def _finish(runner: SearchRunner, cfg: Config, work_dir: Path) -> SearchResult:
    """Scores beside random architectures, architecture.json, summary.json and the report."""
    architecture = runner.decode()
    drawn = random_architectures(runner.space, min(RANDOM, runner.space.size), runner.seed)
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
        "peak_memory_mib": peak_memory_mib(),
        "epochs": runner.epoch,
        # as run: the adapter lowers those above a split's size
        "batch_sizes": {"weights": _batch(runner.train_loop.stream), "architecture": _batch(runner.train_loop.arch_stream)},
        "supernet": {"params": sum(p.numel() for p in runner.model.parameters())},
        "derived": {k: v for k, v in derived.items() if k != "architecture"},
        "random": randoms,
        "space": {"size": runner.space.size, "fingerprint": runner.space.fingerprint},
    }
    if runner.rank == 0:
        parts = {
            name: (
                space,
                Architecture({c.name: architecture[c.name] for c in space if c.name in architecture}),
            )
            for name, space in runner.parts.items()
        }
        provenance = {
            "strategy": runner.strategy.name,
            "seed": runner.seed,
            "score": derived["score_supernet"],
            "cost": {k: derived[k] for k in ("params", "macs", "input_size", "convention")},
            "commit": summary["versions"]["commit"],
        }
        save_architecture(path, parts, provenance)
        write_json(work_dir / "summary.json", summary)
        report.write(work_dir)
    return SearchResult(architecture, path, derived["score_supernet"], summary)


def _row(runner: SearchRunner, architecture: Architecture) -> dict[str, Any]:
    cost = runner.cost_of(architecture)
    assert cost is not None
    score = None
    if runner.val_loop is not None:
        score = runner.score_of(runner.val_loop.score(architecture))
    return {
        "architecture": architecture.to_json(),
        "params": cost.params,
        "macs": cost.macs,
        "input_size": list(cost.input_size),
        "convention": cost.convention,
        "counted": CONVENTIONS[cost.convention],
        "score_supernet": score,
    }
