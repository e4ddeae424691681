"""Image files of the tasks on OpenMMLab's packages: their sizes from their headers, and reading them by mmcv.

A file that can't be used is told in one sentence that names it.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
from mmcv.transforms import Compose, LoadImageFromFile
from PIL import Image

from search.engine.errors import UserError
from search.registry import TRANSFORMS

_ROTATED = 5  # EXIF orientations from here on swap height and width
_ORIENTATION = 274
_JPEG_BEGINS, _JPEG_ENDS = b"\xff\xd8", b"\xff\xd9"


def unreadable(path: str | Path, error: BaseException) -> UserError:
    """The sentence for an image or a label file that can't be read."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return UserError(f"cannot read {path}: {reason}; replace or remove this file")


def in_threads(function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """The function's values, in order; for reading and decoding, which wait for the disk or run outside of Python's lock."""
    with ThreadPoolExecutor(8) as threads:
        return list(threads.map(function, items))


def size_of(path: str) -> tuple[int, int]:
    """(width, height) that cv2, which mmcv reads with, gives an image, from its header. UserError for no image."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            # cv2 turns it; of a PNG file Pillow would decode all pixels to find out
            turned = image.format == "JPEG" and image.getexif().get(_ORIENTATION, 1) >= _ROTATED
            return (height, width) if turned else (width, height)
    except (OSError, ValueError, SyntaxError) as error:
        raise unreadable(path, error) from error


@TRANSFORMS.register_module()
class LoadImage(LoadImageFromFile):
    """mmcv's LoadImageFromFile. Raises UserError, naming the file, for one that is missing, damaged, cut short or no image."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any] | None:
        """As mmcv's: adds 'img', uint8 [H, W, 3] in BGR, and its shapes."""
        try:
            loaded = super().transform(results)
            # others' bytes aren't on this disk
            backend = (self.file_client_args or self.backend_args or {}).get("backend", "local")
            if loaded is not None and backend in ("local", "disk"):
                require_whole(results["img_path"])
        except (OSError, AssertionError, ValueError, cv2.error) as error:
            if self.ignore_empty:
                return None
            # which cv2 says of an assertion in its source
            empty = isinstance(error, cv2.error) and "buf.empty()" in str(error)
            raise unreadable(results["img_path"], ValueError("the file is empty") if empty else error) from error
        return loaded


def require_whole(path: str | Path) -> None:
    """Pillow's OSError for a JPEG file that is cut short, of which cv2 before 4.12 gives what there is, and grey below.

    A file that ends as it should is taken for whole; what has something behind its end, or no mark of it, is decoded.
    """
    with open(path, "rb") as file:
        if file.read(2) != _JPEG_BEGINS:
            return
        file.seek(-2, os.SEEK_END)
        if file.read() == _JPEG_ENDS:
            return
        with Image.open(file) as image:
            image.load()


def checked(pipeline: Compose) -> Compose:
    """A built pipeline with `LoadImage` in place of mmcv's LoadImageFromFile.

    In a config mmcv's name has to stay: mm's inferencers look for it.
    """
    transforms = [copy.copy(transform) for transform in pipeline.transforms]
    for transform in transforms:
        if type(transform) is LoadImageFromFile:
            transform.__class__ = LoadImage
    return type(pipeline)(transforms)
