"""Reading one image file, and a memory cache of decoded images.

Letters: H, W height and width in pixels; images are uint8 tensors [3, H, W] in 0..255, RGB.
"""

import os
import struct
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from search.engine.errors import passing

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
# what Pillow raises on damaged files, besides OSError
_DAMAGE = (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
_CACHE_BLOCK = 256


class UnreadableImage(ValueError):
    """A file that should be an image can't be read; the message is one sentence that names it.

    A DataLoader rebuilds a worker's exception from a text that holds the worker's traceback; only its last
    line, which is our sentence, is kept.
    """

    def __init__(self, message: str):
        last = message.strip().splitlines()[-1]
        super().__init__(last.split("UnreadableImage: ", 1)[-1])


def read_image(path: Path | str, size: int | None = None) -> Tensor:
    """The image file as a uint8 tensor [3, H, W].

    With ``size`` the shorter side is scaled to ``size`` pixels (antialiased bilinear) and the centre square
    is kept: [3, size, size]; JPEG files are then decoded at a reduced scale where that loses nothing. Grey,
    palette, CMYK and 16-bit files become 8-bit RGB. Raises UnreadableImage (a ValueError) naming a file that
    is missing, no image, or truncated.
    """
    try:
        with Image.open(path) as image:
            if size is not None:
                image.draft(None, (size, size))
            if image.mode.startswith("I;16"):
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            image = image.convert("RGB")
    except _DAMAGE as error:
        if passing(error):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableImage(f"cannot read the image {path}: {reason}; replace or remove this file") from None
    if size is not None:
        image = _square(image, size)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def _square(image: Image.Image, size: int) -> Image.Image:
    """The centre square of the image, scaled to ``size`` pixels a side (one resampling, antialiased)."""
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    if (side, side) == image.size == (size, size):
        return image
    box = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.BILINEAR, box=box)


class ImageCache:
    """Decoded images in one flat uint8 tensor, which forked loader workers share without copying.

    Images are read at once, in order, by a few threads, until ``limit_mib`` MiB are used; the others are read
    from disk each time (``cached`` says how many are held).
    """

    def __init__(self, read: Callable[[int], Tensor], count: int, limit_mib: int):
        if limit_mib <= 0:
            raise ValueError(f"cache_mib={limit_mib} holds no image; give a positive number of MiB or cache=False")
        self._read = read
        # pages that stay untouched are never committed, so a generous limit costs nothing
        self._flat = torch.empty(limit_mib * 2**20, dtype=torch.uint8)
        self._offsets = [0]
        self._shapes: list[torch.Size] = []
        with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as threads:
            for start in range(0, count, _CACHE_BLOCK):
                for image in threads.map(read, range(start, min(start + _CACHE_BLOCK, count))):
                    if not self._keep(image):
                        return

    def _keep(self, image: Tensor) -> bool:
        start, end = self._offsets[-1], self._offsets[-1] + image.numel()
        if end > self._flat.numel():
            return False
        self._flat[start:end] = image.reshape(-1)
        self._offsets.append(end)
        self._shapes.append(image.shape)
        return True

    @property
    def cached(self) -> int:
        """How many images are held."""
        return len(self._shapes)

    @property
    def bytes_used(self) -> int:
        """Bytes that the held images take."""
        return self._offsets[-1]

    def __getitem__(self, index: int) -> Tensor:
        """Image ``index``, uint8 [3, H, W]: a view of the cache, or read from disk where the cache was
        full."""
        if index >= self.cached:
            return self._read(index)
        return self._flat[self._offsets[index] : self._offsets[index + 1]].view(self._shapes[index])
