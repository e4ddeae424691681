"""Scenes drawn from scikit-learn's real digits and real photographs.

A photograph's crop is the background; on it lie handwritten digits of many sizes, tilted, coloured, some in front of
others. Training, validation and test scenes use different digits and different parts of the photographs, so that what is
tested was never seen.

Letters: H, W height and width of a scene in pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
# of a label map; the number of a class is its place here
CLASSES = ("background", *DIGITS)
PALETTE = (
    (60, 60, 60),
    (230, 25, 75),
    (60, 180, 75),
    (255, 225, 25),
    (0, 130, 200),
    (245, 130, 48),
    (145, 30, 180),
    (70, 240, 240),
    (240, 50, 230),
    (210, 245, 60),
    (250, 190, 212),
)
# the label of pixels that a digit's blurred edge covers in part
IGNORED = 255
PHOTOGRAPHS = ("china", "flower")
SPLITS = ("train", "val", "test")
# of the photographs' width, and of every five digits of a class: what each split is drawn from
_BANDS = {"train": (0.0, 0.56), "val": (0.56, 0.78), "test": (0.78, 1.0)}
_FIFTHS = {"train": (0, 1, 2), "val": (3,), "test": (4,)}
# every tenth scene is empty, and every eighth has a crowd
_EMPTY, _CROWD = (10, 9), (8, 3)
# a digit's side, in parts of the scene's shorter side
_SMALLEST, _LARGEST, _IN_CROWD = 0.3, 0.6, 0.16


@dataclass
class Thing:
    """A digit in a scene, or a crowd of equal ones. ``mask``: its visible pixels, bool [H, W]."""

    digit: int
    mask: np.ndarray
    crowd: bool = False


@dataclass(frozen=True)
class Scene:
    """``image``: uint8 [H, W, 3], RGB; ``labels``: uint8 [H, W], of `CLASSES` or `IGNORED`; ``things``: what lies there."""

    image: np.ndarray
    labels: np.ndarray
    things: tuple[Thing, ...]


def draw(seed: int, split: str, index: int, width: int, height: int) -> Scene:
    """Scene ``index`` of a split; it depends on these arguments alone."""
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    canvas = _Canvas(_background(rng, split, index, width, height))
    if index % _EMPTY[0] != _EMPTY[1]:
        if index % _CROWD[0] == _CROWD[1]:
            canvas.crowd(rng, split)
        for _ in range(rng.integers(4, 10)):
            side = math.exp(rng.uniform(math.log(_SMALLEST), math.log(_LARGEST))) * min(width, height)
            canvas.digit(rng, split, int(rng.integers(10)), side)
    return canvas.scene()


class _Canvas:
    """A scene being drawn: later things hide earlier ones."""

    def __init__(self, image: np.ndarray) -> None:
        self.image = image
        self.labels = np.zeros(image.shape[:2], np.uint8)
        self.things: list[Thing] = []

    def digit(self, rng: np.random.Generator, split: str, digit: int, side: float) -> None:
        """Put a digit where it hides little; nothing where there is no such place."""
        cover = _stamp(rng, split, digit, side)
        for _ in range(10):
            place = self._place(rng, cover)
            if (self.labels[place] != 0)[cover > 0].mean() <= 0.1:
                self.things.append(Thing(digit, self._paint(rng, cover, place, digit)))
                return

    def crowd(self, rng: np.random.Generator, split: str) -> None:
        """Put a block of 3 x 3 small digits of one class, which together are one thing."""
        digit = int(rng.integers(10))
        stamps = [_stamp(rng, split, digit, _IN_CROWD * min(self.labels.shape)) for _ in range(9)]
        cover = np.vstack([np.hstack(stamps[i : i + 3]) for i in (0, 3, 6)])
        self.things.append(Thing(digit, self._paint(rng, cover, self._place(rng, cover), digit), crowd=True))

    def scene(self) -> Scene:
        """What was drawn, without things of which nothing is to be seen."""
        return Scene(self.image, self.labels, tuple(thing for thing in self.things if thing.mask.any()))

    def _place(self, rng: np.random.Generator, cover: np.ndarray) -> tuple[slice, slice]:
        top, left = (int(rng.integers(have - need + 1)) for have, need in zip(self.labels.shape, cover.shape, strict=True))
        return slice(top, top + cover.shape[0]), slice(left, left + cover.shape[1])

    def _paint(self, rng: np.random.Generator, cover: np.ndarray, place: tuple[slice, slice], digit: int) -> np.ndarray:
        """Blend a colour in by ``cover`` (0 to 1, [h, w]) and label it; returns the thing's mask [H, W]."""
        behind = self.image[place].astype(np.float64)
        colour = _contrast(rng, behind[cover > 0.5].mean(axis=0))
        self.image[place] = np.rint(behind + cover[..., None] * (colour - behind)).astype(np.uint8)
        inside, touched = cover > 0.5, cover > 0.15
        mask = np.zeros(self.labels.shape, bool)
        mask[place] = inside
        hidden = np.zeros(self.labels.shape, bool)
        hidden[place] = touched
        for thing in self.things:
            thing.mask &= ~hidden
        self.labels[hidden] = IGNORED
        self.labels[mask] = digit + 1
        return mask


def _background(rng: np.random.Generator, split: str, index: int, width: int, height: int) -> np.ndarray:
    """A crop of a photograph's band, brought to [H, W, 3], mirrored at random and darkened, so that digits stand out."""
    photograph = _photographs()[PHOTOGRAPHS[index % len(PHOTOGRAPHS)]]
    start, end = (round(edge * photograph.width) for edge in _BANDS[split])
    widest = min(end - start, photograph.height * width / height)
    crop_width = rng.uniform(0.7, 1.0) * widest
    crop_height = crop_width * height / width
    left = start + rng.uniform(0, end - start - crop_width)
    top = rng.uniform(0, photograph.height - crop_height)
    box = (left, top, left + crop_width, top + crop_height)
    pixels = np.asarray(photograph.resize((width, height), Image.Resampling.BILINEAR, box=box)).astype(np.float64)
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    return np.clip(np.rint(pixels * rng.uniform(0.3, 0.6)), 0, 255).astype(np.uint8)


def _stamp(rng: np.random.Generator, split: str, digit: int, side: float) -> np.ndarray:
    """How much of each pixel a handwritten digit covers, 0 to 1: [round(side), round(side)]."""
    samples = _digits()[digit, split]
    pixels = np.pad(samples[rng.integers(len(samples))], 1) / 16
    size = max(10, round(side))
    image = Image.fromarray(pixels.astype(np.float32)).resize((size, size), Image.Resampling.BICUBIC)
    turned = image.rotate(rng.uniform(-8, 8), Image.Resampling.BILINEAR)
    # strokes of the source are soft: half grey counts as ink
    return np.clip(np.asarray(turned, np.float64) * 2 - 0.3, 0, 1)


def _contrast(rng: np.random.Generator, behind: np.ndarray) -> np.ndarray:
    """A bright colour that stands out from the mean colour behind it: float [3] in 0..255."""
    colours = rng.uniform(140, 255, (8, 3))
    return colours[np.argmax(np.abs(colours - behind).sum(axis=1))]


@cache
def _photographs() -> dict[str, Image.Image]:
    from sklearn.datasets import load_sample_image

    return {name: Image.fromarray(load_sample_image(f"{name}.jpg")) for name in PHOTOGRAPHS}


@cache
def _digits() -> dict[tuple[int, str], np.ndarray]:
    """(digit, split) -> [n, 8, 8], ink 0 to 16: of every five digits of a class three train, one validates, one tests."""
    from sklearn.datasets import load_digits

    source = load_digits()
    found = {}
    for digit in range(10):
        samples = source.images[source.target == digit]
        for split, fifths in _FIFTHS.items():
            found[digit, split] = samples[np.isin(np.arange(len(samples)) % 5, fifths)]
    return found
