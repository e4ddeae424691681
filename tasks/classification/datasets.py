"""Labelled images: ImageNet-layout folders, CIFAR-10, and the handwritten digits that scikit-learn ships.

Each item is dict(inputs=float32 tensor [C, H, W], label=int). A dataset has a ``name`` for each image, by
which split lists pick images: the path below the folder (ImageFolder) or the number in the source's own
order.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from search.engine import splits
from search.registry import DATASETS
from tasks.classification.images import EXTENSIONS, ImageCache, read_image
from tasks.classification.transforms import Pipeline

# the held-out fifth of the digits never changes
DIGITS_TEST_FRACTION = 0.2
DIGITS_SEED = 0


class LabelledImages(Dataset, ABC):
    """What the datasets share: names, labels, classes, the choice of a split, the pipeline.

    ``pipeline``: transforms (configs) applied to each image; ``split``: path of a list of names to keep
    (default: all); ``split_sha256``: the list's SHA-256, verified. A subclass gives ``image(index)``. Raises
    ValueError for a list that was changed, is missing, or names an image that isn't there.
    """

    def __init__(
        self,
        names: Sequence[str],
        labels: Sequence[int],
        classes: Sequence[str],
        pipeline: Sequence[dict],
        split: str | None,
        split_sha256: str | None,
    ):
        self.classes = tuple(classes)
        self.metainfo = {"classes": self.classes}
        self._pipeline = Pipeline(pipeline)
        chosen = list(range(len(names)))
        if split is not None:
            position = {name: i for i, name in enumerate(names)}
            wanted = splits.read(Path(split), split_sha256)
            missing = next((name for name in wanted if name not in position), None)
            if missing is not None:
                raise ValueError(f"the split list {split} names {missing!r}, which is not in the data; was it moved?")
            chosen = [position[name] for name in wanted]
        elif split_sha256 is not None:
            raise ValueError("split_sha256 is given without a split")
        self.names = [names[i] for i in chosen]
        self.labels = [labels[i] for i in chosen]
        # each item's place in the source
        self._source = chosen

    @abstractmethod
    def image(self, index: int) -> Tensor:
        """Image ``index`` before the pipeline: [C, H, W], uint8 in 0..255 or float in 0..1."""

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict:
        return {"inputs": self._pipeline(self.image(index)), "label": self.labels[index]}


@DATASETS.register_module()
class ImageFolder(LabelledImages):
    """ImageNet layout: ``<data_root>/<folder>/<class>/**/*.{jpg,jpeg,png,bmp,webp}``, any number of classes.

    Classes are the sub-folders of ``folder`` in sorted order (names that start with a dot are skipped); where
    ``classes`` is given, the sub-folders must be the same. ``size``: scale each image to size x size on
    reading, see `read_image`; ``cache``: hold the decoded images in memory, at most ``cache_mib`` MiB of
    them. EXIF orientation is ignored, as in torchvision. Raises ValueError for a folder that is missing,
    empty or has an empty class, for classes that differ, and, on reading, for an image that can't be read.
    """

    def __init__(
        self,
        data_root: str,
        folder: str = "train",
        pipeline: Sequence[dict] = (),
        classes: Sequence[str] | None = None,
        size: int | None = None,
        split: str | None = None,
        split_sha256: str | None = None,
        cache: bool = False,
        cache_mib: int = 1024,
    ):
        if size is not None and size < 1:
            raise ValueError(f"size={size} pixels: give a positive size, or None to keep the images as they are")
        self.root = _existing(data_root, folder)
        self.size = size
        found = sorted(e.name for e in os.scandir(self.root) if e.is_dir() and not e.name.startswith("."))
        if not found:
            raise ValueError(f"{self.root} has no class folders; expected {self.root}/<class>/<image>")
        if classes is not None:
            _same_classes(self.root, found, classes)
        names: list[str] = []
        labels: list[int] = []
        for label, name in enumerate(found):
            images = _images_below(self.root / name)
            if not images:
                raise ValueError(
                    f"the class folder {self.root / name} holds no image ({', '.join(EXTENSIONS)}); "
                    "add images or remove the folder"
                )
            names += [f"{name}/{image}" for image in images]
            labels += [label] * len(images)
        super().__init__(names, labels, found, pipeline, split, split_sha256)
        self.cache = ImageCache(self._decode, len(self), cache_mib) if cache else None

    def _decode(self, index: int) -> Tensor:
        return read_image(self.root / self.names[index], self.size)

    def image(self, index: int) -> Tensor:
        """Image ``index`` before the pipeline: uint8 [3, H, W]."""
        return self._decode(index) if self.cache is None else self.cache[index]


@DATASETS.register_module()
class CIFAR10(LabelledImages):
    """CIFAR-10 as torchvision reads it (``<data_root>/cifar-10-batches-py``); uint8 [3, 32, 32] before the
    pipeline.

    ``folder``: 'train' (50,000 images) or 'test' (10,000); ``download``: let torchvision fetch the archive
    first. Raises ValueError where the files are missing or damaged.
    """

    def __init__(
        self,
        data_root: str,
        folder: str = "train",
        pipeline: Sequence[dict] = (),
        split: str | None = None,
        split_sha256: str | None = None,
        download: bool = False,
    ):
        from torchvision.datasets import CIFAR10 as Source

        _one_of(folder, ("train", "test"))
        try:
            source = Source(data_root, train=folder == "train", download=download)
        except (RuntimeError, OSError):
            raise ValueError(
                f"CIFAR-10 was not found, or is damaged, in {data_root}; give the folder that holds "
                "cifar-10-batches-py by --cfg-options data_root=FOLDER, or set download=True in the datasets"
            ) from None
        self._images = torch.from_numpy(source.data).permute(0, 3, 1, 2).contiguous()
        super().__init__(_numbers(len(source)), source.targets, source.classes, pipeline, split, split_sha256)

    def image(self, index: int) -> Tensor:
        """Image ``index`` before the pipeline: uint8 [3, 32, 32]."""
        return self._images[self._source[index]]


@DATASETS.register_module()
class Digits(LabelledImages):
    """The 1,797 real handwritten digits that ship with scikit-learn: 8x8 grey, 10 classes; no download.

    ``folder``: 'test' is a fixed stratified fifth, 'train' the rest; ``channels``: the grey value is repeated
    this many times (1 or 3). Before the pipeline: float [channels, 8, 8] in 0..1 (the source's 0..16 over
    16).
    """

    def __init__(
        self,
        folder: str = "train",
        pipeline: Sequence[dict] = (),
        channels: int = 3,
        split: str | None = None,
        split_sha256: str | None = None,
    ):
        from sklearn.datasets import load_digits

        _one_of(folder, ("train", "test"))
        if channels not in (1, 3):
            raise ValueError(f"channels={channels}: digits come with 1 channel, or 3 equal ones")
        source = load_digits()
        every = torch.from_numpy(source.images).float()[:, None].div(16).expand(-1, channels, -1, -1)
        fractions = {"test": DIGITS_TEST_FRACTION, "train": 1 - DIGITS_TEST_FRACTION}
        part = splits.stratified(source.target.tolist(), fractions, DIGITS_SEED)[folder]
        numbers = _numbers(len(every))
        names, labels = [numbers[i] for i in part], [int(source.target[i]) for i in part]
        super().__init__(names, labels, [str(d) for d in range(10)], pipeline, split, split_sha256)
        self._images = every[part]

    def image(self, index: int) -> Tensor:
        """Image ``index`` before the pipeline: float [channels, 8, 8] in 0..1."""
        return self._images[self._source[index]]


def _existing(data_root: str, folder: str) -> Path:
    root = Path(data_root)
    way_out = f"give the folder that holds {folder}/<class>/<image> by --cfg-options data_root=FOLDER"
    if not root.is_dir():
        raise ValueError(f"the data folder {root} does not exist; {way_out}")
    if not (root / folder).is_dir():
        raise ValueError(f"the data folder {root} has no folder {folder!r}; {way_out}")
    return root / folder


def _same_classes(root: Path, found: Sequence[str], classes: Sequence[str]) -> None:
    for have, lack, word in ((found, classes, "has"), (classes, found, "lacks")):
        extra = sorted(set(have) - set(lack))
        if extra:
            more = f" and {len(extra) - 1} more" if len(extra) > 1 else ""
            raise ValueError(
                f"{root} {word} the class {extra[0]!r}{more}, unlike the training folder; "
                "make the class folders of both the same"
            )


def _images_below(folder: Path) -> list[str]:
    """Paths of the images below a folder, relative to it, sorted; hidden files and folders are skipped."""
    found = []
    for place, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [f for f in folders if not f.startswith(".")]
        below = os.path.relpath(place, folder)
        for file in files:
            if file.lower().endswith(EXTENSIONS) and not file.startswith("."):
                found.append(file if below == "." else Path(below, file).as_posix())
    return sorted(found)


def _one_of(folder: str, known: Sequence[str]) -> None:
    if folder not in known:
        raise ValueError(f"folder={folder!r} is not one of {', '.join(known)}")


def _numbers(count: int) -> list[str]:
    width = len(str(count - 1))
    return [f"{i:0{width}d}" for i in range(count)]
