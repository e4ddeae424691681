"""Is a search better than chance? Its networks beside random ones, trained by one recipe, tested once each.

1. Every search config runs once per seed; every architecture found is trained from scratch with the retraining config.
2. Random architectures, uniform over the same space, are trained by the same recipe. Where the searches have a budget, they and
   those of random search are uniform over what is within it.
3. Random search at equal cost: as many random architectures as the mean cost of a search and its retraining pays for
   are trained by the recipe (or a stated short form of it), and the best on the validation split is kept; once per seed.
4. The test data are read once per final network. Selection, where there is any, is by the validation split.
5. A group's values are its architectures' test scores (means over the retraining seeds); pairs of groups are compared
   by exact Mann-Whitney tests.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from mmengine.config import Config

from search import report
from search.engine import checkpoint, significance
from search.engine.budget import TRIES, Budget, budget_is_the_users, budget_of
from search.engine.data import require_seed
from search.engine.errors import UserError
from search.engine.history import finite
from search.engine.trials import Execution, Run
from search.space import Architecture, Space, load, save, split_parts
from search.strategies import AskTell, RandomSearch, random_architectures
from search.strategies.within import Within, architectures_within

RANDOM, RANDOM_SEARCH = "random architectures", "random search"
# far from the seeds of searches, so that no group shares its draws with another
RANDOM_SEED, TRIAL_SEED = 10_000, 20_000
# of what a run has cost
UNITS = ("seconds", "images", "cpu_seconds", "gpu_seconds")
Parts = dict[str, tuple[Space, Architecture]]


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What is compared. Options are lists of key=value changes of the configs.

    ``cost``: whether equal cost means equal training ``images`` (forward and backward; deterministic) or ``seconds``.
    ``short``: changes of the retraining config that make the trials of random search cheaper; their best is retrained.
    """

    searches: tuple[str, ...]
    retrain: str
    work_dir: Path
    seeds: tuple[int, ...] = (0, 1, 2)
    random: int = 6
    random_search_seeds: tuple[int, ...] = (0, 1, 2)
    retrain_seeds: tuple[int, ...] = (0,)
    search_options: tuple[str, ...] = ()
    retrain_options: tuple[str, ...] = ()
    short: tuple[str, ...] = ()
    cost: str = "images"

    def __post_init__(self) -> None:
        names = [Path(config).stem for config in self.searches]
        if len(set(names)) < len(names):
            raise UserError(f"Two search configs share the name {max(names, key=names.count)!r}; rename one.")
        for what in ("searches", "seeds", "retrain_seeds"):
            if not getattr(self, what):
                raise UserError(f"A comparison needs {what.replace('_', ' ')}: none were given.")
        if self.cost not in ("images", "seconds"):
            raise UserError(f"cost={self.cost!r}: cost is counted in 'images' or in 'seconds'.")
        if self.random < 0:
            raise UserError(f"--random {self.random}: give a number of architectures, 0 or more.")
        for what in ("seeds", "random_search_seeds", "retrain_seeds"):
            for seed in getattr(self, what):
                require_seed(what.replace("_", " "), seed)

    def search_runs(self) -> list[Run]:
        """The searches, of every config with every seed."""
        return [
            Run(
                "search",
                f"search {Path(config).stem}, seed {seed}",
                self.work_dir / "search" / Path(config).stem / f"seed{seed}",
                config,
                self.search_options,
                seed,
            )
            for config in self.searches
            for seed in self.seeds
        ]

    def training(self, name: str, arch: Path, seed: int, test: bool, options: Sequence[str] = ()) -> Run:
        """The run that trains an architecture file by the recipe."""
        folder = self.work_dir / "train" / f"{arch.parent.name}-{arch.stem}" / f"seed{seed}"
        if options:
            folder = folder.with_name(f"short{seed}")
        options = (*self.retrain_options, *options)
        return Run("train", name, folder, self.retrain, options, seed, arch, test)


def run_searches(protocols: Sequence[Protocol], execution: Execution) -> None:
    """The searches of several comparisons at once, which `compare` then finds finished; a mistake in a recipe shows before."""
    for protocol in protocols:
        _lower_is_better(protocol)
    execution.results([run for protocol in protocols for run in protocol.search_runs()])


def compare(protocol: Protocol, execution: Execution) -> dict[str, Any]:
    """Run what isn't done yet; writes and returns the content of ``compare.json``, and the report beside it."""
    searches = protocol.search_runs()
    # a mistake in the recipe shows now, not after the searches
    lower = _lower_is_better(protocol)
    execution.say(f"{len(searches)} searches")
    costs = dict(zip([(Path(r.config).stem, r.seed) for r in searches], execution.results(searches), strict=True))
    spaces = _spaces([run.work_dir / "architecture.json" for run in searches])
    found = [_found(protocol, run) for run in searches]
    budget = _budget(searches, spaces)
    with budget_is_the_users(budget):
        uniform = enumerate(_draw(spaces, protocol.random, budget))
        drawn = [_write(protocol, "random", i, parts, {"strategy": "random", "seed": i}) for i, parts in uniform]

    labelled = [(Path(run.config).stem, run.seed, arch) for run, arch in zip(searches, found, strict=True)]
    labelled += [(RANDOM, i, arch) for i, arch in enumerate(drawn)]
    execution.say(f"{len(labelled)} architectures, each trained {len(protocol.retrain_seeds)} times")
    rows = _trained(protocol, execution, labelled)
    for row in rows:
        if row["group"] != RANDOM:
            cost = costs[row["group"], row["seed"]]
            # GPU-seconds of runs of before they were counted are unknown
            row |= {f"search_{unit}": cost.get(unit, 0.0) for unit in UNITS}
    if protocol.random_search_seeds:
        with budget_is_the_users(budget):
            rows += _random_search(protocol, execution, spaces, rows, lower, budget)

    # JSON has no nan
    result = finite(summarise(protocol, rows, lower))
    checkpoint.write_json(protocol.work_dir / "compare.json", result)
    report.write(protocol.work_dir)
    return result


def _trained(protocol: Protocol, execution: Execution, labelled: Sequence[tuple[str, int, Path]]) -> list[dict[str, Any]]:
    """A row for each (group, seed, architecture file) and retraining seed."""
    of = [(group, seed, arch, again) for group, seed, arch in labelled for again in protocol.retrain_seeds]
    runs = [protocol.training(f"train {g}, {s}", arch, again, test=True) for g, s, arch, again in of]
    rows = []
    for (group, seed, arch, again), result in zip(of, execution.results(runs), strict=True):
        choices = {name: part.architecture.to_json() for name, part in load(arch).parts.items()}
        row = {"group": group, "seed": seed, "retrain_seed": again, "architecture": choices}
        row |= {key: result[key] for key in ("params", "macs", "validation", "test")}
        row |= {f"search_{unit}": 0.0 for unit in UNITS}
        row |= {"train_seconds": result["seconds"], "train_images": result["images"]}
        rows.append(row)
    return rows


def _random_search(
    protocol: Protocol,
    execution: Execution,
    spaces: dict[str, Space],
    rows: Sequence[dict[str, Any]],
    lower: bool,
    budget: Budget | None,
) -> list[dict[str, Any]]:
    """Rows of random search at the cost of each search config, of which all but the most costly reuse the trials."""
    unit, first = protocol.cost, protocol.retrain_seeds[0]
    once = [row for row in rows if row["retrain_seed"] == first]
    full = fmean(row[f"train_{unit}"] for row in once)
    budgets = {
        config: fmean(row[f"search_{unit}"] + row[f"train_{unit}"] for row in once if row["group"] == config)
        for config in (Path(path).stem for path in protocol.searches)
    }
    joint, task = _joint(spaces), _recipe(protocol).get("task")
    strategies: dict[int, AskTell] = {seed: RandomSearch(joint, TRIAL_SEED + seed) for seed in protocol.random_search_seeds}
    if budget is not None:
        strategies = {seed: Within(strategy, budget.within, TRIES) for seed, strategy in strategies.items()}
    trials: dict[int, list[tuple[Path, dict[str, Any]]]] = {seed: [] for seed in strategies}
    each = full

    def try_up_to(count: int) -> None:
        asked = []
        for seed, strategy in strategies.items():
            for i in range(len(trials[seed]), min(count, joint.size)):
                parts = split_parts(spaces, strategy.ask())
                origin = {"strategy": RANDOM_SEARCH, "seed": seed, "trial": i, "task": task, "config": protocol.retrain}
                asked.append((seed, _write(protocol, f"random_search{seed}", i, parts, origin)))
        runs = [protocol.training(f"random search {seed}, trial", arch, first, False, protocol.short) for seed, arch in asked]
        for (seed, arch), result in zip(asked, execution.results(runs), strict=True):
            trials[seed].append((arch, result))

    if protocol.short:
        # the cost of a short training is known once one is done
        try_up_to(1)
        each = fmean(result[unit] for done in trials.values() for _, result in done)
    counts = {config: max(1, round((budget - (full if protocol.short else 0.0)) / each)) for config, budget in budgets.items()}
    execution.say(f"random search: {', '.join(f'{n} trials at the cost of {c}' for c, n in counts.items())}")
    try_up_to(max(counts.values()))

    kept, spent = [], []
    for config, count in counts.items():
        for seed, done in trials.items():
            tried = done[:count]
            best = _best(tried, lower)
            kept.append((f"{RANDOM_SEARCH}, {unit} of {config}", seed, tried[best][0]))
            # without a short form the winner's own training is both a trial and the final training
            others = [r for i, (_, r) in enumerate(tried) if protocol.short or i != best]
            spent.append({key: sum(result.get(key, 0.0) for result in others) for key in UNITS})
    found = _trained(protocol, execution, kept)
    for i, row in enumerate(found):
        row |= {f"search_{unit}": value for unit, value in spent[i // len(protocol.retrain_seeds)].items()}
    return found


def _best(tried: Sequence[tuple[Path, dict[str, Any]]], lower: bool) -> int:
    """The trial with the best validation score, the first of equals; diverged ones are never best."""
    scores = [-result["validation"] if lower else result["validation"] for _, result in tried]
    if all(math.isnan(score) for score in scores):
        raise UserError("No trial of random search has a validation score: give the recipe a validation split.")
    return max(range(len(scores)), key=lambda i: -math.inf if math.isnan(scores[i]) else scores[i])


def _lower_is_better(protocol: Protocol) -> bool:
    """Reads and checks the recipe, in its short form too."""
    _recipe(protocol, protocol.short)
    return (_recipe(protocol).get("score") or {}).get("rule") == "less"


def _recipe(protocol: Protocol, options: Sequence[str] = ()) -> Config:
    return Run("train", "", protocol.work_dir, protocol.retrain, (*protocol.retrain_options, *options), 0).load()


def _spaces(files: Sequence[Path]) -> dict[str, Space]:
    """The spaces by part, which all searches must share."""
    first = load(files[0]).parts
    for path in files[1:]:
        other = load(path)
        if other.parts.keys() != first.keys():
            raise UserError(f"{files[0]} and {path} search different parts; compare them apart.")
        for name, part in first.items():
            if other.parts[name].fingerprint != part.fingerprint:
                raise UserError(
                    f"{files[0]} and {path} are of different spaces, so they have no random baseline in common: "
                    f"{part.space.difference(other.parts[name].space)}; compare them apart."
                )
    return {name: part.space for name, part in first.items()}


def _budget(searches: Sequence[Run], spaces: dict[str, Space]) -> Budget | None:
    """What the searches' networks may cost. UserError where they differ in it."""
    given = [run.load().get("budget") for run in searches]
    for run, own in zip(searches, given, strict=True):
        if own != given[0]:
            raise UserError(f"{searches[0].config} and {run.config} have different budgets: compare them apart.")
    return None if given[0] is None else budget_of(searches[0].work_dir, spaces)


def _draw(spaces: dict[str, Space], count: int, budget: Budget | None) -> list[Parts]:
    joint = _joint(spaces)
    number = min(count, joint.size)
    if budget is None:
        drawn = random_architectures(joint, number, RANDOM_SEED)
    else:
        drawn = architectures_within(joint, number, RANDOM_SEED, budget.within, TRIES)
    return [split_parts(spaces, architecture) for architecture in drawn]


def _joint(spaces: dict[str, Space]) -> Space:
    """All parts' choices as one space, so that random architectures are uniform over whole networks."""
    return Space("all parts", [choice for space in spaces.values() for choice in space])


def _found(protocol: Protocol, run: Run) -> Path:
    """A searched architecture beside the random ones, named after its search, whose provenance it keeps."""
    file, group = load(run.work_dir / "architecture.json"), Path(run.config).stem
    whole = {name: (part.space, part.architecture) for name, part in file.parts.items()}
    return _write(protocol, group, run.seed, whole, {"strategy": group, "seed": run.seed, **file.provenance})


def _write(protocol: Protocol, group: str, number: int, parts: Parts, provenance: Mapping[str, Any]) -> Path:
    path = protocol.work_dir / "architectures" / group / f"{number}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    save(path, parts, provenance)
    return path


def summarise(protocol: Protocol, rows: Sequence[dict[str, Any]], lower: bool) -> dict[str, Any]:
    """The content of ``compare.json``: protocol, runs, groups, and the tests of every pair of groups."""
    values: dict[str, list[float]] = {}
    groups: dict[str, dict[str, Any]] = {}
    for group in dict.fromkeys(row["group"] for row in rows):
        of = [row for row in rows if row["group"] == group]
        seeds = list(dict.fromkeys(row["seed"] for row in of))
        tests = {seed: fmean(row["test"] for row in of if row["seed"] == seed) for seed in seeds}
        values[group] = list(tests.values())
        groups[group] = significance.describe(values[group])
        scored = [row for row in of if not math.isnan(row["validation"])]
        if scored:
            best = (min if lower else max)(scored, key=lambda row: row["validation"])
            groups[group]["selected"] = {key: best[key] for key in ("seed", "validation", "test")}
        for unit in ("seconds", "images"):
            groups[group][unit] = fmean(row[f"search_{unit}"] + row[f"train_{unit}"] for row in of)
        groups[group]["search_cpu_hours"] = fmean(row["search_cpu_seconds"] for row in of) / 3600
        groups[group]["search_gpu_hours"] = fmean(row["search_gpu_seconds"] for row in of) / 3600
    # a test says "better" of higher values
    signed = {group: [-value if lower else value for value in of] for group, of in values.items()}
    return {
        "protocol": _described(protocol),
        "runs": rows,
        "groups": groups,
        "tests": significance.all_pairs(signed, [group for group in groups if group.startswith(RANDOM_SEARCH)]),
    }


def _described(protocol: Protocol) -> dict[str, Any]:
    searches = [f"{config} {' '.join(protocol.search_options)}".strip() for config in protocol.searches]
    return {
        "searches": searches,
        "search seeds": list(protocol.seeds),
        "recipe": f"{protocol.retrain} {' '.join(protocol.retrain_options)}".strip(),
        "recipe seeds": list(protocol.retrain_seeds),
        "random architectures": protocol.random,
        "random search": {
            "seeds": list(protocol.random_search_seeds),
            "equal cost in": f"training {protocol.cost}",
            "recipe of trials": " ".join(protocol.short) or "the same",
        },
        "selection": "validation split; the test data are read once per final network",
        "tests": "two-sided exact Mann-Whitney of the architectures' test scores, ties by midranks; "
        f"better or worse only below p = {significance.LEVEL}, not corrected for the number of pairs",
    }
