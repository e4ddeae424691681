"""Architecture files: JSON that a training run, another search or a person can read.

    {"format": "visnas-architecture", "version": 1, "provenance": {...}, "parts": {
        "backbone": {"choices": {...}, "fingerprint": "...", "space": {"name": ..., "choices": [...]}}, ...}}

The space travels with the architecture, so that a file of another space can be refused by naming what
differs.
"""

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.space.architecture import Architecture
from search.space.space import Space

FORMAT = "visnas-architecture"
VERSION = 1


@dataclass(frozen=True)
class Part:
    """One searchable module of a file: its space, the space's fingerprint, and what was chosen."""

    space: Space
    fingerprint: str
    architecture: Architecture


@dataclass(frozen=True)
class ArchitectureFile:
    """What an architecture file holds. `provenance` is free: strategy, seed, score, cost, commit."""

    path: str
    parts: dict[str, Part]
    provenance: dict[str, Any]

    def require(self, part_name: str, space: Space) -> Architecture:
        """The architecture of this part, for a module with this space.

        Raises ValueError when the file lacks the part, or holds it for another space (names the first
        difference).
        """
        if part_name not in self.parts:
            raise ValueError(f"{self.path} has no part {part_name!r}; it has {', '.join(sorted(self.parts))}")
        part = self.parts[part_name]
        if part.fingerprint != space.fingerprint:
            raise ValueError(
                f"{self.path}: part {part_name!r} is an architecture of another space: "
                f"{part.space.difference(space, here='the file', there='the network')}"
            )
        return part.architecture


def split_parts(parts: Mapping[str, Space], whole: Mapping[str, Any]) -> dict[str, tuple[Space, Architecture]]:
    """An architecture of all parts' choices together, part by part, as `save` takes it."""
    return {
        name: (space, Architecture({choice.name: whole[choice.name] for choice in space if choice.name in whole}))
        for name, space in parts.items()
    }


def save(
    path: str | os.PathLike[str],
    parts: Mapping[str, tuple[Space, Architecture]],
    provenance: Mapping[str, Any],
) -> None:
    """Write the file so that a reader finds the old one or the whole new one, even when the disk is full.

    Raises ValueError for an architecture that is not of its space, or a provenance that JSON cannot hold;
    OSError from the disk is passed on, and nothing is left behind.
    """
    for name, (space, architecture) in parts.items():
        try:
            space.check(architecture)
        except ValueError as error:
            raise ValueError(f"part {name!r} cannot be saved: {error}") from None
    data = {
        "format": FORMAT,
        "version": VERSION,
        "parts": {
            name: {
                "space": space.to_json(),
                "fingerprint": space.fingerprint,
                "choices": architecture.to_json(),
            }
            for name, (space, architecture) in parts.items()
        },
        "provenance": dict(provenance),
    }
    try:
        text = json.dumps(data, indent=1, sort_keys=True, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise ValueError(f"the provenance of {path} is not plain JSON: {error}") from None
    write_atomically(path, text.encode())


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file whole or not at all: to a temporary file beside it, flushed to disk, then renamed.

    OSError from the disk is passed on; what was there before is then untouched, and nothing is left behind.
    """
    path = Path(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes a file that only its owner may read
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def load(path: str | os.PathLike[str]) -> ArchitectureFile:
    """Read an architecture file.

    Raises ValueError, in a sentence that names the file, when it is missing, not JSON, of another format,
    written by a newer version, or changed so that it contradicts itself.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ValueError(f"there is no architecture file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON ({error}); is it really an architecture file?") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ValueError(f"{path} is not an architecture file: its format must be {FORMAT!r}")
    if data.get("version") != VERSION:
        raise ValueError(f"{path} has version {data.get('version')!r}, but this visnas reads version {VERSION}: update it")
    if not isinstance(data.get("parts"), dict) or not isinstance(data.get("provenance", {}), dict):
        raise ValueError(f"{path} is damaged: parts and provenance must be JSON objects")
    try:
        parts = {name: _part(name, part) for name, part in data["parts"].items()}
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    return ArchitectureFile(str(path), parts, data.get("provenance", {}))


def _part(name: str, data: Any) -> Part:
    if not isinstance(data, dict) or not {"space", "fingerprint", "choices"} <= set(data):
        raise ValueError(f"part {name!r} must have space, fingerprint and choices")
    space = Space.from_json(data["space"])
    if space.fingerprint != data["fingerprint"]:
        raise ValueError(f"the fingerprint of part {name!r} is not that of its space")
    architecture = Architecture.from_json(data["choices"])
    space.check(architecture)
    return Part(space, space.fingerprint, architecture)
