"""history.jsonl: one line of JSON for every epoch; cut back to the checkpoint's position when a run resumes."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .checkpoint import write_bytes
from .errors import UserError

NAME = "history.jsonl"


def finite(value: Any) -> Any:
    """The same value with None in place of nan and infinities, which JSON doesn't have."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {k: finite(v) for k, v in value.items()}
    return [finite(v) for v in value] if isinstance(value, list | tuple) else value


def _trial(text: str) -> dict[str, Any] | None:
    """A line of history that is a trial's; None for any other, and for one that is half written."""
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) and "trial" in line else None


class History:
    """The lines of a run, appended one by one.

    Args:
        path: the file, made at the first line.
    """

    def __init__(self, path: Path):
        self.path = path
        self.lines: list[dict[str, Any]] = []

    def append(self, line: Mapping[str, Any]) -> None:
        """Adds a line to the file and flushes it to disk."""
        plain = finite(line)
        with self.path.open("a") as file:
            file.write(json.dumps(plain) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.lines.append(plain)

    def cut(self, count: int, trials: bool = False) -> None:
        """Reads the file and keeps its first `count` lines; those after it are of steps that will be run again.

        trials: keeps the lines of scored paths that follow at once too, up to one that is half written.

        Raises:
            UserError: the file holds fewer lines, or lines that aren't JSON.
        """
        found = self.path.read_text().splitlines() if self.path.exists() else []
        kept = found[:count]
        try:
            self.lines = [json.loads(line) for line in kept]
        except ValueError as error:
            raise UserError(f"{self.path} is damaged and can't be continued: use another --work-dir.") from error
        for text in found[count:] if trials else ():
            line = _trial(text)
            if line is None:
                break
            kept.append(text)
            self.lines.append(line)
        if len(self.lines) < count:
            raise UserError(
                f"{self.path} holds {len(self.lines)} lines, but the checkpoint was written after {count}: "
                "use another --work-dir."
            )
        if kept or self.path.exists():
            write_bytes(self.path, "".join(line + "\n" for line in kept).encode())
