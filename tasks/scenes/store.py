"""The scenes on disk: made when they are first needed, whole or not at all, and made again when their settings changed."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

from tasks.scenes import layouts
from tasks.scenes.drawing import SPLITS, draw

# raised whenever equal settings give other scenes
VERSION = 1
MARKER = "scenes.json"
# scenes of these splits are written in COCO's layout too
_COCO = ("train", "val")


@dataclass(frozen=True)
class Settings:
    """What scenes there are.

    ``width``, ``height``: of each, in pixels; ``train``, ``val``, ``test``: how many; ``seed``: of all that is drawn. A
    scene depends on seed, split, number and size alone, so more scenes begin with the same ones.

    Raises ValueError for a size below 32 or above 1024 pixels or of an extreme shape, for a split without scenes and for a
    negative seed.
    """

    width: int = 192
    height: int = 128
    train: int = 240
    val: int = 60
    test: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not isinstance(value, int) or isinstance(value, bool):
                raise ValueError(f"scenes.{name}={value!r} must be a whole number")
        for name in ("width", "height"):
            if not 32 <= getattr(self, name) <= 1024:
                raise ValueError(f"scenes.{name}={getattr(self, name)} must be from 32 to 1024 pixels")
        if not 1 / 3 <= self.width / self.height <= 3:
            raise ValueError(f"scenes of {self.width}x{self.height} pixels are too narrow: no side may be 3 times the other")
        for split in SPLITS:
            if getattr(self, split) < 1:
                raise ValueError(f"scenes.{split}={getattr(self, split)}: every split needs a scene")
        if self.seed < 0:
            raise ValueError(f"scenes.seed={self.seed} must not be negative")


def cache_folder() -> Path:
    """Where embedded data lie by default: the folder that VISNAS_CACHE names, else ``visnas`` in the user's cache."""
    named = os.environ.get("VISNAS_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "visnas"


def make(settings: Settings | None = None, root: str | Path | None = None) -> Path:
    """The folder with the scenes of these settings, drawn now unless it is there already (seconds).

    ``root``: the folder; by default one in `cache_folder`, which is named after the settings. It appears under its name
    when it is complete. Scenes of other settings in ``root`` are replaced.

    Raises ValueError for a ``root`` that holds anything else, and for a cache that can't be written to.
    """
    settings = settings or Settings()
    content = json.dumps(dict(format="visnas-scenes", version=VERSION, **asdict(settings)), sort_keys=True)
    name = f"scenes-{sha256(content.encode()).hexdigest()[:12]}"
    folder = cache_folder() / name if root is None else Path(root)
    found = _marker(folder)
    if found == content:
        return folder
    if found is None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} holds no scenes but something else: give another data_root, or none for the cache")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        new = folder.parent / f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp"
        new.mkdir()
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise ValueError(
            f"scenes can't be written to {folder.parent} ({error.strerror}): name a folder in the variable VISNAS_CACHE"
        ) from error
    try:
        _write(new, settings)
        (new / MARKER).write_text(content)
        _put(new, folder, content)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return folder


def _marker(folder: Path) -> str | None:
    path = folder / MARKER
    return path.read_text() if path.is_file() else None


def _write(root: Path, settings: Settings) -> None:
    for split in SPLITS:
        count = getattr(settings, split)
        scenes = [draw(settings.seed, split, index, settings.width, settings.height) for index in range(count)]
        for index, scene in enumerate(scenes):
            layouts.write_cityscapes(root, split, index, scene)
        if split in _COCO:
            layouts.write_coco(root, split, scenes)
    layouts.write_class_names(root)


def _put(new: Path, folder: Path, content: str) -> None:
    """Give a finished folder its name; another process may have been faster."""
    old = new.with_suffix(".old")
    if folder.exists():
        folder.rename(old)
    try:
        new.rename(folder)
    except OSError:
        if _marker(folder) != content:
            raise
    finally:
        shutil.rmtree(old, ignore_errors=True)
