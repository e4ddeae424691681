"""Image transforms that configs name: torchvision's v2 by their own names, and what it lacks.

All work on tensors [C, H, W], uint8 in 0..255 or float in 0..1, and draw from torch's global generator, which
the engine seeds for each sample.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor
from torchvision.transforms import v2

from search.registry import TRANSFORMS

_FROM_TORCHVISION = (
    v2.CenterCrop,
    v2.ColorJitter,
    v2.Pad,
    v2.RandomCrop,
    v2.RandomErasing,
    v2.RandomHorizontalFlip,
    v2.RandomResizedCrop,
    v2.RandomRotation,
    v2.RandomVerticalFlip,
    v2.Resize,
    v2.TrivialAugmentWide,
)
for _transform in _FROM_TORCHVISION:
    TRANSFORMS.register_module(module=_transform)


@TRANSFORMS.register_module()
class Normalize:
    """Float tensor (x - mean) / std by channel; mean and std are in units of 0..1, uint8 input is first
    divided by 255."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        if len(mean) != len(std) or not all(s > 0 for s in std):
            raise ValueError(f"Normalize needs as many mean values as std values and std > 0, got {mean} and {std}")
        self._mean = torch.tensor(mean).view(-1, 1, 1)
        self._std = torch.tensor(std).view(-1, 1, 1)

    def __call__(self, image: Tensor) -> Tensor:
        """[C, H, W] uint8 or float -> [C, H, W] float32."""
        if image.dtype == torch.uint8:
            image = image.float() / 255
        return (image - self._mean) / self._std


@TRANSFORMS.register_module()
class Cutout:
    """Set a square of ``length`` pixels around a uniformly drawn pixel to 0 (the mean, after Normalize).

    Paper: DeVries and Taylor, arXiv 1708.04552. Geometry as in the code of DARTS (quark0/darts, utils.py):
    the centre is any pixel of the image and the square is cut at the border, so rows max(0, y - length // 2)
    up to but without min(H, y + length // 2) are zeroed, and the same for columns.
    """

    def __init__(self, length: int):
        if length < 2 or length % 2:
            raise ValueError(f"Cutout length={length} must be an even number of pixels, at least 2")
        self.length = length

    def __call__(self, image: Tensor) -> Tensor:
        """[C, H, W] -> a copy [C, H, W] with the square zeroed."""
        height, width = image.shape[-2:]
        y = int(torch.randint(height, ()))
        x = int(torch.randint(width, ()))
        half = self.length // 2
        image = image.clone()
        image[..., max(0, y - half) : y + half, max(0, x - half) : x + half] = 0
        return image


class Pipeline:
    """The transforms of a config, in order."""

    def __init__(self, transforms: Iterable[dict | Callable[[Tensor], Tensor]]):
        self._steps = [TRANSFORMS.build(t) if isinstance(t, dict) else t for t in transforms]

    def __call__(self, image: Tensor) -> Tensor:
        """[C, H, W] uint8 or float -> [C, H', W'] float32."""
        for step in self._steps:
            shape = tuple(image.shape)
            try:
                image = step(image)
            except ValueError as error:
                raise ValueError(f"the transform {step} does not fit an image of shape {shape}: {error}") from error
        return image if image.is_floating_point() else image.float() / 255
