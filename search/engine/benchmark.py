"""Networks under one task's test: each trained by its config with every seed, tested once per training, in one table.

1. Every entry is checked before anything is trained: its config, its architecture, and that it is tested as all others are.
2. Every entry is trained and tested once per seed, in a process of its own; finished runs aren't repeated.
3. The latencies of all are measured in the same rounds, on the device at hand, with the weights of the first seed.
4. Entries stand in the order of their mean score. From 4 seeds on, pairs are compared by exact Mann-Whitney tests: 3 values
   against 3 can't reach p < 0.05 however far apart they are.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from mmengine.config import Config

from search.cost.latency import Timing
from search.engine import checkpoint, command, significance
from search.engine.benchmark_file import Entry
from search.engine.benchmark_latency import Trained, latencies
from search.engine.benchmark_parts import architecture_of, require_buildable, write
from search.engine.benchmark_table import SEEDS_OF_TESTS, markdown
from search.engine.data import require_seed
from search.engine.errors import UserError
from search.engine.history import finite
from search.engine.trials import Execution, Run
from search.report.pareto import pareto
from search.space import Architecture, Space
from search.space.files import write_atomically

# of a data set's config, what says how an image is read and not which images
_PRESENTATION = ("size", "cache")
# transforms that read an image's labels; what comes before them changes the image alone
_LABELS = ("LoadAnnotations", "LoadLabels")
# what a transform packs beside image and labels
_PACKED = ("meta_keys",)
# what of a config is the network, or its test
_NOT_RECIPE = ("model", "test_dataloader", "test_cfg", "test_evaluator", "tta_pipeline", "seed", "task", "score")
PANELS = ((("macs",), 1e6, "multiply-adds, M"), (("latency", "median"), 1.0, "latency, ms"))


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What is trained and how: ``options`` are changes of all configs, after the entries' own; ``timing`` is of latencies."""

    entries: tuple[Entry, ...]
    work_dir: Path
    seeds: tuple[int, ...] = (0, 1, 2)
    options: tuple[str, ...] = ()
    timing: Timing = field(default_factory=Timing)

    def __post_init__(self) -> None:
        if not self.seeds:
            raise UserError("A benchmark needs seeds: none were given.")
        for seed in self.seeds:
            require_seed("seeds", seed)
        if len(set(self.seeds)) < len(self.seeds):
            raise UserError(f"--seeds {' '.join(map(str, self.seeds))}: give each seed once")

    def run(self, entry: Entry, seed: int, arch: Path | None) -> Run:
        """The training of an entry with a seed."""
        folder = self.work_dir / "train" / entry.folder / f"seed{seed}"
        options = (*entry.options, *self.options)
        return Run("train", f"train {entry.name}, seed {seed}", folder, entry.config, options, seed, arch, test=True)


def benchmark(protocol: Protocol, execution: Execution) -> dict[str, Any]:
    """Run what isn't done yet; writes and returns the content of ``benchmark.json``, the table and the plot beside it."""
    configs = {}
    for entry in protocol.entries:
        with _said_of(entry):
            configs[entry.name] = protocol.run(entry, protocol.seeds[0], None).load()
    require_same_test(configs)
    parts, archs = {}, {}
    for entry in protocol.entries:
        with _said_of(entry):
            parts[entry.name] = architecture_of(entry, configs[entry.name])
            archs[entry.name] = write(protocol.work_dir / "architectures" / f"{entry.folder}.json", parts[entry.name])
            require_buildable(protocol.run(entry, protocol.seeds[0], archs[entry.name]).load())
    runs = {entry.name: [protocol.run(entry, seed, archs[entry.name]) for seed in protocol.seeds] for entry in protocol.entries}
    execution.say(f"{len(runs)} entries, each trained {len(protocol.seeds)} times")
    found = iter(execution.results([run for of in runs.values() for run in of]))
    results = {name: [next(found) for _ in of] for name, of in runs.items()}
    summaries = {name: [json.loads((run.work_dir / "summary.json").read_text()) for run in of] for name, of in runs.items()}

    execution.say(f"latencies of {len(runs)} networks")
    trained = {name: Trained(of[0], tuple(summaries[name][0]["derived"]["input_size"])) for name, of in runs.items()}
    measured, conditions = latencies(protocol.work_dir / "latency.json", trained, protocol.timing, execution.threads)
    rows = []
    for entry in protocol.entries:
        row: dict[str, Any] = {"name": entry.name, "config": entry.config, "options": list(entry.options)}
        row |= {"parts": [_described(name, *part) for name, part in parts[entry.name].items()]}
        row |= {"published": list(_published(configs[entry.name].model))}
        row |= _figures(protocol.seeds, results[entry.name], summaries[entry.name])
        rows.append(row | {"latency": measured[entry.name]})
    # JSON has no nan
    result: dict[str, Any] = finite(_summarise(protocol, configs, rows, summaries) | {"latency": conditions})
    checkpoint.write_json(protocol.work_dir / "benchmark.json", result)
    label = result["score"]["key"] or "score"
    plot = pareto(result["entries"], PANELS, f"{label}, test", result["score"]["rule"] == "less")
    if plot is not None:
        write_atomically(protocol.work_dir / "pareto.svg", plot.encode())
    write_atomically(protocol.work_dir / "benchmark.md", markdown(result, plot is not None).encode())
    return result


@contextmanager
def _said_of(entry: Entry) -> Iterator[None]:
    """A mistake inside the block is said of the entry."""
    try:
        yield
    except Exception as error:
        sentence = command.mistake(error)
        if sentence is None:
            raise
        raise UserError(f"entry {entry.name!r}: {sentence}") from error


def require_same_test(configs: Mapping[str, Config]) -> None:
    """UserError where entries differ in task, test data, what is done to labels, or metric."""
    (first, reference), *others = ((name, _tested_by(cfg)) for name, cfg in configs.items())
    for name, test in others:
        for key in (*reference, *test):
            if reference.get(key) != test.get(key):
                raise UserError(
                    f"entries {first!r} and {name!r} have no test in common: {key} is {reference.get(key)!r} and "
                    f"{test.get(key)!r}; compare them apart."
                )


def _tested_by(cfg: Config) -> dict[str, Any]:
    """What the test score of a config is a score of: task, data with their labels, and metric, by key."""
    if cfg.get("test_dataloader") is None:
        raise UserError("an entry's config has no test_dataloader, so there is nothing to test on.")
    keys = ("task", "data_root", "val_ann", "val_img")
    test = {key: cfg.get(key) for key in keys}
    test["test_evaluator"] = cfg.get("test_evaluator") or cfg.get("val_evaluator")
    images = _images(cfg.test_dataloader.get("dataset"), cfg.get("default_scope"))
    test |= {"score": cfg.get("score"), "test_dataloader.dataset": images}
    return dict(_flat(json.loads(json.dumps(test, default=str))))


def _images(dataset: Any, scope: str | None) -> Any:
    """A data set's config without what says how an image is read; of its pipeline what is done to labels."""
    if isinstance(dataset, Mapping):
        kept = {key: value for key, value in dataset.items() if key not in (*_PRESENTATION, "pipeline")}
        labels = {"labels": of} if (of := _of_labels(dataset.get("pipeline") or (), scope)) else {}
        return {key: _images(value, scope) for key, value in kept.items()} | labels
    return [_images(value, scope) for value in dataset] if isinstance(dataset, list | tuple) else dataset


def _of_labels(pipeline: Sequence[Any], scope: str | None) -> str:
    """The transforms from the first on that reads labels, in words; types without a scope are of ``scope``.

    What comes before changes the image alone: predictions are brought to the labels' size.
    """
    first = next((i for i, transform in enumerate(pipeline) if _reads_labels(transform)), len(pipeline))
    return ", ".join(_transform(transform, scope) for transform in pipeline[first:])


def _reads_labels(transform: Any) -> bool:
    if isinstance(transform, Mapping):
        named = str(transform.get("type")).rpartition(".")[2] in _LABELS
        return named or any(map(_reads_labels, transform.values()))
    return isinstance(transform, list | tuple) and any(map(_reads_labels, transform))


def _transform(value: Any, scope: str | None) -> str:
    """A transform's config as a call."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(_transform(one, scope) for one in value)}]"
    if not isinstance(value, Mapping):
        return repr(value)
    name = str(value.get("type", "dict"))
    name = f"{scope}.{name}" if scope and "type" in value and "." not in name else name
    given = sorted(key for key in value if key not in ("type", *_PACKED))
    return f"{name}({', '.join(f'{key}={_transform(value[key], scope)}' for key in given)})"


def _flat(value: Any, place: str = "") -> list[tuple[str, Any]]:
    """(place, value) of everything in nested mappings."""
    if not isinstance(value, Mapping):
        return [(place, value)]
    return [row for key, inner in value.items() for row in _flat(inner, f"{place}.{key}" if place else key)]


def _published(model: Any) -> Iterator[str]:
    """Names of published networks in a model's config."""
    if isinstance(model, Mapping):
        if model.get("type") == "search.published" and isinstance(model.get("name"), str):
            yield model["name"]
        for value in model.values():
            yield from _published(value)


def _described(name: str, space: Space, architecture: Architecture, origin: Mapping[str, Any]) -> dict[str, Any]:
    return {"part": name, "fingerprint": space.fingerprint, "choices": architecture.to_json(), "from": dict(origin)}


def _figures(
    seeds: Sequence[int], results: Sequence[Mapping[str, Any]], summaries: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """What is known of an entry's trainings, each and taken together."""
    runs = [
        {
            "seed": seed,
            **{key: result[key] for key in ("test", "metrics", "validation")},
            **{f"train_{key}": result[key] for key in ("seconds", "cpu_seconds", "images")},
            **{key: summary[key] for key in ("peak_memory_mib", "epochs", "hardware", "threads")},
        }
        for seed, result, summary in zip(seeds, results, summaries, strict=True)
    ]
    derived = summaries[0]["derived"]
    return {
        "runs": runs,
        "score": significance.describe([run["test"] for run in runs]),
        "metrics": {key: fmean(run["metrics"][key] for run in runs) for key in runs[0]["metrics"]},
        **{key: derived[key] for key in ("params", "macs", "activations", "input_size") if key in derived},
        "train_seconds": fmean(run["train_seconds"] for run in runs),
        "peak_memory_mib": max(run["peak_memory_mib"] for run in runs),
    }


def _summarise(
    protocol: Protocol,
    configs: Mapping[str, Config],
    rows: Sequence[dict[str, Any]],
    summaries: Mapping[str, Sequence[Mapping[str, Any]]],
) -> dict[str, Any]:
    """The content of ``benchmark.json``, the latencies' conditions apart."""
    first = next(iter(configs.values()))
    lower = (first.get("score") or {}).get("rule") == "less"
    rows = ordered(rows, lower)
    signed = {row["name"]: [-run["test"] if lower else run["test"] for run in row["runs"]] for row in rows}
    every = [summary for of in summaries.values() for summary in of]
    return {
        "task": first.task,
        "score": {"key": (first.get("score") or {}).get("key"), "rule": "less" if lower else "greater"},
        "test": {key: value for key, value in _tested_by(first).items() if value is not None},
        "seeds": list(protocol.seeds),
        "options": list(protocol.options),
        "entries": rows,
        "tests": significance.all_pairs(signed) if len(protocol.seeds) >= SEEDS_OF_TESTS else [],
        "recipes": differences({name: _recipe(cfg) for name, cfg in configs.items()}),
        "counted": every[0]["derived"]["counted"],
        "hardware": [{"hardware": name, "threads": n} for name, n in sorted({(s["hardware"], s["threads"]) for s in every})],
        "versions": every[0]["versions"],
    }


def ordered(rows: Sequence[dict[str, Any]], lower: bool) -> list[dict[str, Any]]:
    """The best mean score first; one that isn't a number comes last."""

    def place(row: Mapping[str, Any]) -> tuple[bool, float]:
        mean = row["score"]["mean"]
        return math.isnan(mean), mean if lower else -mean

    return sorted(rows, key=place)


def _recipe(cfg: Config) -> dict[str, Any]:
    """How a config trains, by key; what is the model's own, such as losses and initial weights, is not in it."""
    settings = json.loads(checkpoint.canonical_config(cfg))
    return dict(_flat({key: value for key, value in settings.items() if key not in _NOT_RECIPE}))


def differences(recipes: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """By key every entry's value, of the keys in which recipes differ."""
    keys = dict.fromkeys(key for recipe in recipes.values() for key in recipe)
    found = {key: {name: recipe.get(key) for name, recipe in recipes.items()} for key in keys}
    return {key: values for key, values in found.items() if len({json.dumps(v, sort_keys=True) for v in values.values()}) > 1}
