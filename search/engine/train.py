"""Training a network from scratch (or from a supernet's weights), and evaluating a checkpoint."""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from mmengine.config import Config

from search import report
from search.cost.count import CONVENTIONS, count
from search.space import load as load_architecture
from search.supernet import Inherited
from search.supernet import inherit as inherit_weights

from . import checkpoint
from .checkpoint import canonical_config, remove_leftovers, write_json
from .data import kept_random_states
from .diagnostics import peak_memory_mib
from .errors import UserError
from .loops import TrainLoop
from .run import adapter_of, check_work_dir, closing, environment, prepared, running, without_test
from .runner import ExactRunner
from .searchable import require_architecture


@dataclass(frozen=True)
class TrainResult:
    """A finished training.

    ``score``: on the validation split after the last epoch (None without validation); ``checkpoint``: its file;
    ``summary``: the content of summary.json.
    """

    score: float | None
    checkpoint: Path
    summary: dict[str, Any]


def train(cfg: Config, inherit: str | None = None) -> TrainResult:
    """Trains as the config says and writes everything to ``cfg.work_dir``.

    Args:
        cfg: with ``arch`` in a searchable module. With ``cfg.resume`` it goes on from the work directory's checkpoint.
        inherit: checkpoint of the search whose supernet's weights the network starts from.

    Raises:
        UserError: a mistake in config, data or work directory; ValueError likewise from adapter, architecture or
            inheritance.
    """
    if cfg.get("budget") is not None:
        raise UserError("budget limits what a search may find, and a training has no use for it: leave it out.")
    with running(cfg) as work_dir:
        require_architecture(cfg)
        found = dict(_architectures(cfg.get("model", {})))
        config = canonical_config({**cfg.to_dict(), "architectures": found, "inherit": inherit})
        any_threads = bool(cfg.get("allow_different_threads", False))
        resume = check_work_dir(work_dir, ExactRunner.kind, config, bool(cfg.get("resume")), any_threads)
        complete = prepared(cfg, work_dir)
        complete.resume, complete.load_from = resume, None if resume else cfg.get("load_from")
        if complete.get("val_dataloader") is not None:
            complete.val_cfg = complete.get("val_cfg") or {}
        input_size = tuple(adapter_of(cfg).input_size(complete))
        remove_leftovers(work_dir)
        with closing(ExactRunner.from_cfg(without_test(complete))) as runner:
            runner.run_config, runner.allow_different_threads = config, any_threads
            runner.keep_config(complete)
            runner.extra = {"architectures": found}
            if not isinstance(runner.train_loop, TrainLoop):
                raise UserError(f"train_cfg.type must be 'search.TrainLoop', not {complete.train_cfg}.")
            if inherit is not None and not resume:
                wide = checkpoint.read_own(inherit)
                if wide["visnas"]["kind"] not in ("search", "one-shot"):
                    raise UserError(f"{inherit} isn't the checkpoint of a search, so there is no supernet to inherit.")
                runner.initialise = lambda model: _say_inherited(runner, inherit_weights(model, wide["state_dict"]))
            runner.check_score()
            runner.train()
            return _finish(runner, cfg, work_dir, input_size)


def evaluate(cfg: Config, path: str) -> dict[str, float]:
    """The metrics of a checkpoint on the test data; an architecture that the config doesn't name is the checkpoint's.

    Raises:
        UserError: a mistake in config or data, or a checkpoint that can't be read or doesn't fit.
    """
    with running(cfg) as work_dir:
        saved = checkpoint.read(path)
        cfg = copy.deepcopy(cfg)
        extra = saved["visnas"]["extra"] if "visnas" in saved else {}
        for place, choices in extra.get("architectures", {}).items():
            node = _node(cfg.model, place)
            if node is not None and node.get("arch") is None:
                node["arch"] = choices
        require_architecture(cfg)
        if cfg.get("test_dataloader") is None:
            raise UserError("The config has no test_dataloader, so there is nothing to test on.")
        cfg.test_evaluator = cfg.get("test_evaluator") or cfg.get("val_evaluator")
        cfg.test_cfg = cfg.get("test_cfg") or {}
        # the adapter then asks for the test data alone, and makes no splits
        for key in (*_keys("train"), *_keys("val"), "optim_wrapper", "param_scheduler", "auto_scale_lr"):
            cfg.pop(key, None)
        complete = prepared(cfg, work_dir)
        complete.resume, complete.load_from = False, path
        with closing(ExactRunner.from_cfg(complete)) as runner:
            # a checkpoint that fits in part only would be tested with weights that nobody trained
            runner.strict_loading = True
            _require_classes(path, saved, runner)
            return {key: float(value) for key, value in runner.test().items()}


def _keys(phase: str) -> tuple[str, ...]:
    return tuple(f"{phase}_{what}" for what in ("dataloader", "cfg", "evaluator"))


def _architectures(model: Any, place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """(place in the model config, choices) of each architecture file that a module names."""
    if not isinstance(model, Mapping):
        return
    arch = model.get("arch")
    if isinstance(arch, str) and arch.endswith(".json"):
        parts = load_architecture(arch).parts
        name = model.get("part", place.rsplit(".", 1)[-1])
        part = next(iter(parts.values())) if len(parts) == 1 else parts.get(name)
        if part is None:
            raise UserError(f"{arch} has no part {name!r}, only {', '.join(parts)}.")
        yield place, part.architecture.to_json()
    elif isinstance(arch, Mapping):
        yield place, dict(arch)
    for key, value in model.items():
        if key != "arch":
            yield from _architectures(value, f"{place}.{key}" if place else key)


def _node(model: Any, place: str) -> Any:
    for key in place.split(".") if place else ():
        model = model.get(key) if isinstance(model, Mapping) else None
    return model if isinstance(model, Mapping) else None


def _say_inherited(runner: ExactRunner, found: Inherited) -> None:
    runner.logger.info(f"inherited {len(found.loaded)} parameters and buffers of the supernet")
    for field, meaning in (
        ("without_counterpart", "new, for the supernet has none"),
        ("dropped", "left behind, for the network has none"),
    ):
        if names := getattr(found, field):
            runner.logger.info(f"{meaning}: {', '.join(names)}")


def _require_classes(path: str, saved: Mapping[str, Any], runner: ExactRunner) -> None:
    """Refuses test data of other classes than those that a checkpoint was trained on."""
    there = ((saved.get("meta") or {}).get("dataset_meta") or {}).get("classes")
    here = (getattr(runner.test_dataloader.dataset, "metainfo", None) or {}).get("classes")
    if there is None or here is None:
        return
    for number, (a, b) in enumerate(zip_longest(there, here)):
        if a != b:
            names = [f"{name!r}" if name is not None else "missing" for name in (a, b)]
            raise UserError(
                f"{path} was trained on other classes: number {number} is {names[0]} there and {names[1]} in the test data."
            )


def _finish(runner: ExactRunner, cfg: Config, work_dir: Path, input_size: tuple[int, ...]) -> TrainResult:
    lines = [line for line in runner.history.lines if line["score"]]
    score = lines[-1]["score"]["validation"] if lines else None
    with kept_random_states():
        cost = count(runner.bare_model, input_size)
    summary = {
        "task": cfg.task,
        "strategy": None,
        "seed": runner.seed,
        "config": cfg.filename,
        **environment(),
        "seconds": runner.train_loop.seconds,
        "peak_memory_mib": peak_memory_mib(),
        "epochs": runner.epoch,
        "derived": {
            "params": cost.params,
            "macs": cost.macs,
            "activations": cost.activations,
            "input_size": list(cost.input_size),
            "convention": cost.convention,
            "counted": CONVENTIONS[cost.convention],
        },
        "validation": score,
        "architectures": runner.extra["architectures"],
    }
    if runner.rank == 0:
        write_json(work_dir / "summary.json", summary)
        report.write(work_dir)
    return TrainResult(score, runner.checkpoint_path, summary)
