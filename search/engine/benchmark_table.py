"""A benchmark's table, as Markdown and on the console."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

COLUMNS = ("network", "test", "each", "params (M)", "MACs (M)", "latency (ms)", "training (s)", "memory (MiB)", "input", "from")

CLOCKS = {"wall": "", "cpu": ", of the processor's time alone"}
# two-sided tests of fewer values in each group can't reach the level
SEEDS_OF_TESTS = 4
_ARCHS = Path(__file__).resolve().parents[2] / "backbones" / "archs"


def show(result: Mapping[str, Any], console: Console) -> None:
    """Print the content of ``benchmark.json``: the entries in order, and the tests' verdicts."""
    table = Table(title=_title(result))
    for name in COLUMNS:
        table.add_column(name, justify="left" if name in ("network", "each", "from") else "right")
    for row in result["entries"]:
        table.add_row(*cells(row))
    console.print(table)
    if result["tests"]:
        tests = Table(title="Exact Mann-Whitney tests, two-sided")
        for name in ("first", "second", "the first is"):
            tests.add_column(name)
        for test in result["tests"]:
            tests.add_row(test["a"], test["b"], test["verdict"])
        console.print(tests)


def markdown(result: Mapping[str, Any], plot: bool) -> str:
    """The page ``benchmark.md``. ``plot``: whether there is a plot beside it."""
    blocks = [f"# {_title(result)}", "\n".join(_table(COLUMNS, [cells(row) for row in result["entries"]]))]
    if plot:
        blocks.append("![score against cost](pareto.svg)")
    blocks.append("\n".join(f"- {line}" for line in _notes(result)))
    metrics = list(dict.fromkeys(key for row in result["entries"] for key in row["metrics"]))
    if len(metrics) > 1:
        rows = [[row["name"], *(figure(row["metrics"].get(key)) for key in metrics)] for row in result["entries"]]
        blocks += ["## Every metric, mean over the seeds", "\n".join(_table(["network", *metrics], rows))]
    if result["tests"]:
        tests = [[test["a"], test["b"], test["verdict"]] for test in result["tests"]]
        blocks += ["## Exact Mann-Whitney tests, two-sided", "\n".join(_table(["first", "second", "the first is"], tests))]
    return "\n\n".join(blocks) + "\n"


def cells(row: Mapping[str, Any]) -> list[str]:
    """An entry's row, see ``COLUMNS``."""
    score, latency = row["score"], row["latency"]
    origins = [f"{part['part']}: {origin(part['from'])}" for part in row["parts"]]
    origins += [f"published, {name}" for name in row["published"]]
    spread = "" if score["std"] is None else f" ± {score['std']:.2g}"
    return [
        row["name"],
        figure(score["mean"]) + spread,
        ", ".join(figure(run["test"]) for run in row["runs"]),
        figure(row["params"] / 1e6),
        figure(row["macs"] / 1e6),
        f"{latency['median']:.3g} ± {latency['iqr'] / 2:.2g}",
        f"{row['train_seconds']:.0f}",
        f"{row['peak_memory_mib']:.0f}",
        "×".join(map(str, row["input_size"])),
        "; ".join(origins) or Path(row["config"]).stem,
    ]


def origin(provenance: Mapping[str, Any]) -> str:
    """Where an architecture is from, in words: the search's strategy, task, config and seed, a published source, or a file."""
    strategy = provenance.get("strategy")
    if strategy == "random" and "file" not in provenance:
        return f"random, seed {provenance['seed']}"
    if strategy is None:
        file = Path(provenance["file"])
        return f"published, {file.stem}" if file.resolve().parent == _ARCHS else f"from {'/'.join(file.parts[-2:])}"
    where = [Path(str(provenance[key])).stem for key in ("task", "config") if provenance.get(key)]
    seed = [] if provenance.get("seed") is None else [f"seed {provenance['seed']}"]
    return ", ".join([f"searched by {strategy}", *where, *seed])


def figure(value: float | None) -> str:
    """Four digits, a dash for none."""
    return "–" if value is None else f"{value:.4g}"


def _title(result: Mapping[str, Any]) -> str:
    return f"Benchmark of {result['task']}: {result['score']['key'] or 'score'} of the test data"


def _notes(result: Mapping[str, Any]) -> Iterator[str]:
    better = "lower" if result["score"]["rule"] == "less" else "higher"
    data = ", ".join(f"{key.removeprefix('test_dataloader.')}={value}" for key, value in result["test"].items())
    yield f"Scores: {better} is better; mean ± sample standard deviation over seeds {_list(result['seeds'])}, then each."
    yield f"Tested on: {data}."
    if len(result["seeds"]) < SEEDS_OF_TESTS:
        yield f"Pairs aren't tested for differences: that takes {SEEDS_OF_TESTS} seeds."
    if result["options"]:
        yield f"All configs with {' '.join(result['options'])}."
    yield f"MACs: {result['counted']}; of one image of the size given, which latency is measured on too."
    latency = result["latency"]
    yield (
        f"Latency: median ± half the interquartile range, all networks in the same rounds, batch {latency['batch_size']}, on "
        f"{latency['device']} with {_threads(latency['threads'])}{CLOCKS[latency['clock']]}; without decoding, and two-stage "
        "detectors on 1,000 boxes."
    )
    hardware = "; ".join(f"{one['hardware']} with {_threads(one['threads'])}" for one in result["hardware"])
    yield f"Training: seconds, the seeds' mean, and the most memory of the process or the device, on {hardware}."
    if result["recipes"]:
        yield f"Schedule, data or augmentation differ, see benchmark.json: {_list(result['recipes'])}."
    else:
        yield "All entries are trained by the same schedule, data and augmentation."
    yield "Networks, their losses and their initial weights are each config's own."


def _threads(number: int) -> str:
    return f"{number} thread{'s' if number > 1 else ''}"


def _list(values: Sequence[Any] | Mapping[str, Any]) -> str:
    return ", ".join(map(str, values))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    lines = [head, ["---"] * len(head), *rows]
    yield from (f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
