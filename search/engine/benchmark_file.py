"""A benchmark's file: a Python config with a list of entries, each a network by the config that trains it.

    entries = [
        dict(name="FCOS, ResNet-18", config="../detection/fcos_resnet18_scenes_cpu_retrain.py"),
        dict(name="cells", config="../detection/cells_scenes_cpu_retrain.py", arch="architecture.json"),
    ]

Keys of an entry: ``name``; ``config``, of a training; ``arch``, an architecture file or a list of them, where parts come from
several; or instead ``random``, the seed of an architecture drawn uniformly from the config's space; ``options``, a list of
key=value changes of the config, before those of the command line. Files are named from the folder of the benchmark's file.
Other names at the top of the file begin with an underscore.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmengine.config import Config

from search.engine.config_check import unknown
from search.engine.data import require_seed
from search.engine.errors import UserError

KEYS = ("name", "config", "arch", "random", "options")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A network of a benchmark: its name, the config that trains it, what that leaves open, and changes of the config."""

    name: str
    config: str
    arch: tuple[str, ...] = ()
    random: int | None = None
    options: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """The name as that of a folder."""
        return re.sub(r"[^\w.-]+", "_", self.name).strip("._")


def read(paths: Sequence[str]) -> list[Entry]:
    """The entries of all files, in order. UserError for a file or an entry that isn't one, and for a name given twice."""
    entries = [entry for path in paths for entry in _entries(Path(path))]
    folders: dict[str, str] = {}
    for name, folder in [(entry.name, entry.folder.lower()) for entry in entries]:
        if not folder:
            raise UserError(f"entry {name!r}: its name needs a letter or a digit")
        if name == folders.get(folder):
            raise UserError(f"two entries are named {name!r}: rename one")
        if folder in folders:
            raise UserError(f"entries {folders[folder]!r} and {name!r} have names that differ in signs alone: rename one")
        folders[folder] = name
    return entries


def chosen(entries: Sequence[Entry], only: Sequence[str], archs: Sequence[str]) -> list[Entry]:
    """The entries named in ``only`` (none: all), with the files of ``archs``, NAME=FILE, in place of their own."""
    names = {entry.name for entry in entries}
    given: dict[str, list[str]] = {}
    for text in archs:
        name, equals, file = text.rpartition("=")
        if not (name and equals and file):
            raise UserError(f"--arch {text}: expected NAME=FILE, an entry's name and an architecture file")
        given.setdefault(name, []).append(file)
    for option, wanted in (("--only", only), ("--arch", given)):
        for name in wanted:
            if name not in names:
                raise UserError(f"{option}: {unknown(name, names, 'entry')}")
    kept = [entry for entry in entries if not only or entry.name in only]
    for name in given:
        if name not in {entry.name for entry in kept}:
            raise UserError(f"--arch: --only leaves out entry {name!r}")
    return [replace(e, arch=tuple(given[e.name]), random=None) if e.name in given else e for e in kept]


def _entries(path: Path) -> list[Entry]:
    if not path.is_file():
        raise UserError(f"benchmark file {path} does not exist")
    try:
        values = Config.fromfile(path).to_dict()
    except Exception as error:  # a config is a program of the user's: whatever it raises is the user's to see
        raise UserError(f"benchmark file {path} can't be read: {' '.join(f'{error}'.split())}") from error
    for key in values:
        if key != "entries" and not key.startswith("_"):
            raise UserError(f"{path}: {unknown(key, ['entries'])}; a variable's name begins with an underscore")
    entries = values.get("entries")
    if not isinstance(entries, list | tuple) or not entries:
        raise UserError(f"{path} has no list of entries, such as entries=[dict(name='cells', config='cells_retrain.py')]")
    return [_entry(path, number, values) for number, values in enumerate(entries)]


def _entry(path: Path, number: int, values: Any) -> Entry:
    where = f"{path}: entries[{number}]"
    if not isinstance(values, Mapping):
        raise UserError(f"{where} is a {type(values).__name__}: give a dict of {', '.join(KEYS)}")
    for key in values:
        if key not in KEYS:
            raise UserError(f"{where}: {unknown(key, KEYS)}")
    for key in ("name", "config"):
        if not isinstance(values.get(key), str) or not values[key]:
            raise UserError(f"{where} has no {key}: give {key}='...'")
    given = values.get("arch")
    archs = _texts(f"{where}.arch", [given] if isinstance(given, str) else given)
    random = values.get("random")
    if random is not None:
        require_seed(f"{where}.random", random)
        if archs:
            raise UserError(f"{where} has both arch and random: an architecture is given or drawn, leave one out")
    return Entry(
        name=values["name"],
        config=_beside(path, values["config"]),
        arch=tuple(_beside(path, arch) for arch in archs),
        random=random,
        options=_texts(f"{where}.options", values.get("options")),
    )


def _texts(where: str, values: Any) -> tuple[str, ...]:
    if values is None:
        return ()
    if not isinstance(values, list | tuple) or not all(isinstance(value, str) for value in values):
        raise UserError(f"{where}={values!r}: give a list of texts")
    return tuple(values)


def _beside(path: Path, file: str) -> str:
    # a path in an entry is absolute, or from the folder of the benchmark's file
    return str((path.parent / Path(file).expanduser()).resolve())
