"""Stratified, disjoint splits of a training set, kept as lists of names with a SHA-256.

A split is made once per work directory and read back by every later run in it, so a resumed search or
training sees the same images even when files were added to the folder meanwhile.
"""

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

from search.space.files import write_atomically

# set apart before anything else, so that no search sees the images that a retraining of equal seed validates on
HELD_APART = "validation"


def stratified(
    labels: Sequence[int], fractions: Mapping[str, float], seed: int, per_class: int | None = None
) -> dict[str, list[int]]:
    """Disjoint index lists (each sorted), with the same fraction of every class to within one image.

    ``labels``: class of each image; ``fractions``: split name -> fraction of each class (they may sum to less
    than 1); ``per_class``: use at most this many images of each class (for quick runs). A class's images are
    shuffled by (seed, class) alone and the first ``validation`` share of the whole class is left to validation,
    of which ``per_class`` uses the first images: with equal seeds and shares no other split of any run holds an
    image that some run validates on. A split with a positive fraction gets at least one image of each class.

    Raises ValueError for fractions outside [0, 1] or summing above 1, and for a class too small to be split.
    """
    exact = {name: Fraction(str(f)) for name, f in fractions.items()}
    if any(not 0 <= f <= 1 for f in exact.values()) or sum(exact.values()) > 1 or not any(exact.values()):
        raise ValueError(f"splits={dict(fractions)} must be fractions between 0 and 1 that sum to at most 1")
    if per_class is not None and per_class < 1:
        raise ValueError(f"splits.per_class={per_class} keeps no image; give a positive number")
    order = sorted(exact, key=lambda name: name != HELD_APART)
    members: dict[int, list[int]] = {}
    for index, label in enumerate(labels):
        members.setdefault(label, []).append(index)
    result: dict[str, list[int]] = {name: [] for name in fractions}
    for label in sorted(members):
        indices = members[label]
        random.Random(f"{seed}/{label}").shuffle(indices)
        used = min(per_class or len(indices), len(indices))
        counts = dict(zip(order, _counts([exact[n] for n in order], used, label), strict=True))
        held = counts.get(HELD_APART, 0)
        reserved = max(held, int(exact.get(HELD_APART, 0) * len(indices) + Fraction(1, 2)))
        start = min(reserved, len(indices) - (sum(counts.values()) - held))
        for name in order:
            if name == HELD_APART:
                result[name] += indices[:held]
            else:
                result[name] += indices[start : start + counts[name]]
                start += counts[name]
    return {name: sorted(indices) for name, indices in result.items()}


def _counts(fractions: list[Fraction], n: int, label: int) -> list[int]:
    """How many of a class's n images each split gets: the first is rounded alone, the rest by largest
    remainder."""
    wanted = [i for i, f in enumerate(fractions) if f > 0]
    if n < len(wanted):
        raise ValueError(
            f"class number {label} has {n} images, too few for {len(wanted)} splits; "
            "add images, remove the class, or set one of the splits to 0"
        )
    counts = [int(f * n) for f in fractions]
    counts[0] = int(fractions[0] * n + Fraction(1, 2))
    left = int(sum(fractions) * n + Fraction(1, 2)) - sum(counts)
    by_remainder = sorted(range(1, len(fractions)), key=lambda i: (-(fractions[i] * n - counts[i]), i))
    for i in by_remainder[: max(left, 0)]:
        counts[i] += 1
    for i in wanted:
        if counts[i] == 0:
            # prefer images that no split uses, then the largest split
            if sum(counts) >= n:
                counts[max(wanted, key=lambda j: counts[j])] -= 1
            counts[i] = 1
    assert sum(counts) <= n
    return counts


def save(folder: Path, lists: Mapping[str, Sequence[str]], settings: Mapping[str, object]) -> dict[str, str]:
    """Write ``<folder>/<split>.txt`` (one name a line) and ``splits.json``; returns split -> SHA-256 of its
    file.

    ``settings`` (JSON values) are what the split was made from; `load` compares them. Each file appears whole
    or not at all; splits.json comes last.
    """
    folder.mkdir(parents=True, exist_ok=True)
    hashes = {}
    for split, names in lists.items():
        data = _encode(names)
        write_atomically(folder / f"{split}.txt", data)
        hashes[split] = hashlib.sha256(data).hexdigest()
    files = {split: {"count": len(lists[split]), "sha256": hashes[split]} for split in lists}
    about = json.dumps({"settings": settings, "files": files}, indent=2, sort_keys=True)
    write_atomically(folder / "splits.json", about.encode())
    return hashes


def load(folder: Path, settings: Mapping[str, object]) -> dict[str, str] | None:
    """Split -> SHA-256 of the lists in ``folder``, verified; None where there are none yet.

    Raises ValueError where the lists were made with other settings, or where a list is missing or was
    changed.
    """
    about = folder / "splits.json"
    if not about.exists():
        return None
    try:
        found = json.loads(about.read_text())
        saved, files = found["settings"], {k: v["sha256"] for k, v in found["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{about} is damaged; use another --work-dir") from None
    now = json.loads(json.dumps(settings))
    if saved != now:
        key = next(k for k in sorted({*saved, *now}) if saved.get(k) != now.get(k))
        raise ValueError(
            f"the splits in {folder} were made with {key}={saved.get(key)!r}, not {now.get(key)!r}; use another --work-dir"
        )
    for split, sha256 in files.items():
        read(folder / f"{split}.txt", sha256)
    return files


def read(path: Path, sha256: str | None = None) -> list[str]:
    """The names in a split list; ValueError where the file is missing or its SHA-256 isn't ``sha256``."""
    if not path.exists():
        raise ValueError(f"the split list {path} is missing; restore it or use another --work-dir")
    data = path.read_bytes()
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise ValueError(f"the split list {path} was changed since it was made; restore it or use another --work-dir")
    return data.decode("utf-8", "surrogateescape").splitlines()


def _encode(names: Sequence[str]) -> bytes:
    for name in names:
        if len(name.splitlines()) != 1:
            raise ValueError(f"the file name {name!r} holds a line break; rename this file")
    return "".join(f"{name}\n" for name in names).encode("utf-8", "surrogateescape")
