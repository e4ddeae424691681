"""report.html: one page that opens offline, made only from the files of a work directory."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from search.report import budget, charts, gates, trials
from search.report.cell import draw_cell
from search.report.graph import cell_names, other_choices
from search.report.pyramid import draw_pyramid, pyramid_names, pyramid_of
from search.report.read import Part, WorkDir, last_moves, number, read, series
from search.report.trellis import draw_trellis
from search.report.words import cell_text, duration, flat, millions, p_text, plain, seconds_text, size_text
from search.space import Walk
from search.space.files import write_atomically


def write(work_dir: str | Path) -> Path:
    """Write `work_dir/report.html` and return its path.

    The same files give the same page, byte for byte. What is missing or half-written is left out, with a note
    on the page; ValueError when `work_dir` isn't a folder or holds nothing to report.
    """
    found = read(work_dir)
    target = found.path / "report.html"
    write_atomically(target, render(found).encode())
    return target


def render(found: WorkDir) -> str:
    """The page's HTML."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return (
        environment.get_template("page.html.jinja").render(
            css=Markup((Path(__file__).parent / "page.css").read_text(encoding="utf-8")),
            title=_title(found),
            name=found.path.resolve().name,
            facts=_facts(found),
            tiles=_tiles(found),
            warnings=_warnings(found.history),
            notes=found.notes,
            parts=[_part(part, found.history) for part in found.parts],
            training=_training(found),
            trials=trials.section(found),
            frozen=any(row.get("phase") == "freeze" for row in found.history),
            settled=_settled(found.history),
            beside=_beside(found.summary),
            compare=_compare(found.compare),
            settings=_settings(found),
            config=found.config,
        )
        + "\n"
    )


def _title(found: WorkDir) -> str:
    task = found.summary.get("task")
    if found.summary or found.parts:
        return f"Architecture search: {task}" if isinstance(task, str) else "Architecture search"
    return "Comparison of searches" if found.compare else "Training"


def _facts(found: WorkDir) -> list[tuple[str, str]]:
    """What was run, for the line below the title."""
    rows = [(key, found.summary.get(key, found.provenance.get(key))) for key in ("strategy", "seed", "config")]
    return [(key, str(value)) for key, value in rows if value is not None]


def _tiles(found: WorkDir) -> list[tuple[str, str, str]]:
    """(label, value, what it means) of the figures at the top."""
    summary, tiles = found.summary, []
    if (value := number(summary, "derived", "params")) is not None:
        tiles.append(("Parameters", millions(value), "derived network"))
    if (value := number(summary, "derived", "macs")) is not None:
        derived = summary["derived"]
        size = derived.get("input_size")
        at = "×".join(map(str, size)) if isinstance(size, list) else "its input size"
        tiles.append(("Multiply-adds", millions(value), f"at {at}"))
    if (value := number(summary, "derived", "score_supernet")) is not None:
        tiles.append((_score_key(found), f"{value:.4g}", "derived, with the supernet's weights"))
    validation = series(found.history, "score", "validation")[1]
    if validation:
        tiles.append((_score_key(found), f"{validation[-1]:.4g}", "validation, last epoch"))
    elif found.trials and (value := number(summary, "validation")) is not None:
        tiles.append((_score_key(found), f"{value:.4g}", "validation, best trial"))
    if (value := number(summary, "space", "size")) is not None:
        tiles.append(("Space", size_text(value), "architectures"))
    seconds = number(summary, "seconds")
    if seconds is None and found.history:
        seconds = sum(series(found.history, "seconds")[1]) or None
    if seconds is not None:
        of = f"{len(found.trials)} trials" if found.trials else f"{len(found.history)} epochs"
        tiles.append(("Time", duration(seconds), of))
    memory = number(summary, "peak_memory_mib") or max(series(found.history, "peak_memory_mib")[1], default=None)
    if memory is not None:
        tiles.append(("Peak memory", f"{memory:,.0f} MiB", "of the process or the device"))
    return tiles


def _score_key(found: WorkDir) -> str:
    score = found.summary.get("score")
    key = score.get("key") if isinstance(score, Mapping) else None
    return str(key) if key else "Score"


def _warnings(history: Sequence[Mapping[str, Any]]) -> list[str]:
    """Each warning once, with the epochs it was given at."""
    by_text: dict[str, list[str]] = {}
    for row in history:
        if isinstance(row.get("warning"), str):
            by_text.setdefault(row["warning"], []).append(f"{row['epoch']}")
    return [
        f"{text} (epoch {epochs[0]})" if len(epochs) == 1 else f"{text} ({len(epochs)} epochs, last {epochs[-1]})"
        for text, epochs in by_text.items()
    ]


def _part(part: Part, history: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One searched module: its cells, paths and pyramids drawn, its other choices listed, its probabilities over time."""
    cells = cell_names(choice.name for choice in part.space)
    pyramids = pyramid_names(choice.name for choice in part.space)
    walks = [choice for choice in part.space if isinstance(choice, Walk) and choice.name in part.architecture]
    others, more = gates.others_over_time(part.space, history)
    return {
        "name": part.name,
        "space": part.space.name,
        "fingerprint": part.fingerprint,
        "size": size_text(part.space.size),
        "cells": [(cell or part.space.name, Markup(draw_cell(part.space, part.architecture, cell))) for cell in cells],
        "walks": [
            (walk.name, Markup(draw_trellis(walk, part.architecture[walk.name], last_moves(history, walk.name))))
            for walk in walks
        ],
        "pyramids": [(name, Markup(draw_pyramid(part.space, part.architecture, name))) for name in pyramids],
        "choices": [
            (name, plain(value))
            for name, value in other_choices(part.architecture).items()
            if name not in {walk.name for walk in walks} and pyramid_of(name) not in pyramids
        ],
        "gates": [
            (cell or part.space.name, Markup(svg))
            for cell in cells
            if (svg := gates.over_time(part.space, history, cell)) is not None
        ],
        "others": Markup(others) if others else None,
        "more": more,
    }


def _training(found: WorkDir) -> list[tuple[str, str, Markup]]:
    """(title, what to see, chart) of the epochs."""
    if not found.history:
        return []
    rows = [
        ("Losses", "Mean over each epoch.", charts.losses(found.history)),
        (
            "Scores",
            "On the validation split, with the weights of that epoch.",
            charts.scores(found.history, _score_key(found)),
        ),
        (
            "Discretisation gap",
            "Score of the supernet less that of the derived architecture with the same weights.",
            charts.gap(found.history),
        ),
        (
            "Skip share and entropy",
            "Entropy: 1 where the gates are undecided, 0 where they are decided.",
            charts.skips(found.history),
        ),
    ]
    return [(title, text, Markup(svg)) for title, text, svg in rows if svg is not None]


def _settled(history: Sequence[Mapping[str, Any]]) -> str | None:
    """When the derived architecture changed last, in words."""
    known = [(row["epoch"], row["architecture"]) for row in history if isinstance(row.get("architecture"), Mapping)]
    if len(known) < 2:
        return None
    changes = [after[0] for before, after in itertools.pairwise(known) if before[1] != after[1]]
    if not changes:
        return f"The derived architecture was the same after every epoch from {known[0][0]} to {known[-1][0]}."
    return (
        f"The derived architecture changed after {len(changes)} of {len(known) - 1} epochs, the last time "
        f"after epoch {changes[-1]} of {known[-1][0]}."
    )


def _beside(summary: Mapping[str, Any]) -> dict[str, Any] | None:
    """The searched architecture beside the random ones, as a table and a chart."""
    derived = summary.get("derived")
    if not isinstance(derived, Mapping):
        return None
    random = charts.rows_of(summary.get("random"))
    table = [("searched", *_costs(derived))]
    table += [(f"random {i}", *_costs(row)) for i, row in enumerate(random, 1)]
    chart = charts.beside_random(summary)
    scored = [number(row, "score_supernet") for row in random]
    return {
        "table": table,
        "chart": Markup(chart) if chart else None,
        "supernet": millions(value) if (value := number(summary, "supernet", "params")) is not None else None,
        "convention": derived.get("counted", derived.get("convention")),
        "random": sum(score is not None for score in scored),
        "budget": budget.section(summary),
    }


def _costs(row: Mapping[str, Any]) -> tuple[str, str, str]:
    params, macs, score = (number(row, key) for key in ("params", "macs", "score_supernet"))
    return (
        "–" if params is None else millions(params),
        "–" if macs is None else millions(macs),
        "–" if score is None else f"{score:.2f}",
    )


def _compare(compare: Mapping[str, Any]) -> dict[str, Any] | None:
    """The comparison's tables and chart."""
    if not compare:
        return None
    runs = [
        (
            str(row.get("group")),
            str(row.get("seed")),
            *_costs(row)[:2],
            *(cell_text(row.get(key)) for key in ("validation", "test")),
            *(seconds_text(row.get(key)) for key in ("search_seconds", "train_seconds")),
        )
        for row in charts.rows_of(compare["runs"])
    ]
    groups = compare.get("groups")
    chart = charts.groups(compare)
    return {
        "chart": Markup(chart) if chart else None,
        "runs": runs,
        "groups": [
            (
                str(name),
                *(cell_text(row.get(key)) for key in ("n", "mean", "std")),
                cell_text(number(row, "selected", "test")),
                seconds_text(row.get("seconds")),
            )
            for name, row in (groups.items() if isinstance(groups, Mapping) else ())
            if isinstance(row, Mapping)
        ],
        "tests": [
            (
                str(row.get("a")),
                str(row.get("b")),
                str(row.get("verdict", "–")),
                cell_text(row.get("u")),
                p_text(row.get("p")),
            )
            for row in charts.rows_of(compare.get("tests"))
        ],
        "protocol": flat(compare.get("protocol")),
    }


def _settings(found: WorkDir) -> list[tuple[str, list[tuple[str, str]]]]:
    """(heading, rows) of what the run was made with."""
    summary, sections = found.summary, []
    run = flat(
        {key: summary[key] for key in ("task", "strategy", "seed", "config", "hardware", "threads", "epochs") if key in summary}
    )
    speed = series(found.history, "images_per_second")[1]
    if speed:
        run.append(("images per second", f"{sum(speed) / len(speed):.1f} (mean of {len(speed)} epochs)"))
    seconds = series(found.history, "seconds")[1]
    if seconds:
        run.append(("time per epoch", f"{duration(min(seconds))} to {duration(max(seconds))}"))
    sections.append(("Run", run))
    sections.append(("Versions", flat(summary.get("versions"))))
    sections.append(
        (
            "Splits",
            [
                (name, f"{count:,} images" + (f", SHA-256 {digest}" if digest else ""))
                for name, (count, digest) in found.splits.items()
            ],
        )
    )
    sections.append(("Provenance of architecture.json", flat(found.provenance)))
    return [(heading, rows) for heading, rows in sections if rows]
