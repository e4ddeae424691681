"""Reading a work directory: what is there, what is broken, in words for the page.

A file that is missing or half-written never stops a report: `WorkDir.notes` says what was left out and why.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from search.space import Architecture, Space, load

FILES = ("history.jsonl", "summary.json", "architecture.json", "compare.json")


@dataclass(frozen=True)
class Part:
    """One searched module: its space and what was chosen."""

    name: str
    space: Space
    fingerprint: str
    architecture: Architecture


@dataclass
class WorkDir:
    """The readable content of a work directory; what could not be read is None or empty, and noted.

    history: one mapping per epoch's line of history.jsonl, in file order; trials: per trial's line. splits: file name ->
    (entries, hash or None).
    """

    path: Path
    history: list[dict[str, Any]] = field(default_factory=list)
    trials: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    compare: dict[str, Any] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    config: str | None = None
    splits: dict[str, tuple[int, str | None]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read(work_dir: str | Path) -> WorkDir:
    """Read a work directory; ValueError when it isn't one or holds nothing to report."""
    path = Path(work_dir)
    if not path.is_dir():
        raise ValueError(f"no work directory at {str(path)!r}: give the --work-dir of a search, a training or a comparison")
    if not any((path / name).is_file() for name in FILES):
        raise ValueError(f"nothing to report in {str(path)!r}: it holds none of {', '.join(FILES)}")
    found = WorkDir(path)
    lines = _history(path / "history.jsonl", found.notes)
    found.history = [row for row in lines if is_number(row.get("epoch"))]
    found.trials = [row for row in lines if not is_number(row.get("epoch"))]
    found.summary = _object(path / "summary.json", found.notes)
    found.compare = _object(path / "compare.json", found.notes)
    if found.compare and not isinstance(found.compare.get("runs"), list):
        found.notes.append("compare.json has no list of runs: the comparison is left out")
        found.compare = {}
    _architecture(path / "architecture.json", found)
    if (path / "config.py").is_file():
        found.config = (path / "config.py").read_text(encoding="utf-8", errors="replace")
    found.splits = _splits(path / "splits", found.notes)
    return found


def _history(path: Path, notes: list[str]) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            row = None
        if not isinstance(row, dict) or not (is_number(row.get("epoch")) or is_number(row.get("trial"))):
            where = "the last line" if number == len(lines) else f"line {number}"
            notes.append(f"{where} of history.jsonl can't be read (half-written?) and is left out")
            continue
        rows.append(row)
    return rows


def _object(path: Path, notes: list[str]) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except json.JSONDecodeError as error:
        notes.append(f"{path.name} is not JSON (line {error.lineno}: {error.msg}): what it would show is left out")
        return {}
    if not isinstance(value, dict):
        notes.append(f"{path.name} holds a {type(value).__name__}, not an object: what it would show is left out")
        return {}
    return value


def _architecture(path: Path, found: WorkDir) -> None:
    if not path.is_file():
        return
    try:
        file = load(path)
    except ValueError as error:
        found.notes.append(f"the architecture is left out: {error}")
        return
    found.parts = tuple(Part(name, part.space, part.fingerprint, part.architecture) for name, part in file.parts.items())
    found.provenance = file.provenance


def _splits(path: Path, notes: list[str]) -> dict[str, tuple[int, str | None]]:
    """Images of each list, and its SHA-256, as splits/splits.json states them."""
    files = _object(path / "splits.json", notes).get("files")
    found = {}
    for name, row in files.items() if isinstance(files, Mapping) else ():
        count = number(row, "count") if isinstance(row, Mapping) else None
        if count is not None:
            digest = row.get("sha256")
            found[str(name)] = (int(count), digest if isinstance(digest, str) else None)
    return found


def is_number(value: object) -> bool:
    """Whether a value of a JSON file is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def number(mapping: Mapping[str, Any], *keys: str) -> float | None:
    """The number at a path of keys, None when there is none."""
    value: Any = mapping
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if is_number(value) else None


def series(history: Sequence[Mapping[str, Any]], *keys: str) -> tuple[list[float], list[float]]:
    """(epochs, values) of the lines that have a number at the path of keys."""
    pairs = [(float(row["epoch"]), number(row, *keys)) for row in history]
    kept = [(epoch, value) for epoch, value in pairs if value is not None]
    return [epoch for epoch, _ in kept], [value for _, value in kept]


def probabilities(history: Sequence[Mapping[str, Any]], choice: str) -> tuple[list[float], list[list[float]]]:
    """(epochs, one list of probabilities per epoch) of a choice; lines of another length are left out."""
    rows = []
    for row in history:
        values = row.get("probabilities")
        values = values.get(choice) if isinstance(values, Mapping) else None
        if isinstance(values, list) and values and all(is_number(value) for value in values):
            rows.append((float(row["epoch"]), values))
    width = len(rows[-1][1]) if rows else 0
    kept = [(epoch, values) for epoch, values in rows if len(values) == width]
    return [epoch for epoch, _ in kept], [values for _, values in kept]


def last_moves(history: Sequence[Mapping[str, Any]], walk: str) -> dict[str, float]:
    """The probabilities of a walk's moves in the last line that has them, by the moves' names; empty when none has."""
    for row in reversed(history):
        every = row.get("probabilities")
        values = every.get(walk) if isinstance(every, Mapping) else None
        if isinstance(values, Mapping) and values:
            return {str(move): value for move, value in values.items() if is_number(value)}
    return {}
