"""Whether an exported network computes what the original does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

# of how much an output varies from image to image. Sums in another order differ: untrained ENAS cells in float32 are 6e-5 from
# those in float64, and 4e-4 at 96 pixels on white noise; a wrong operation differs by more than a hundredth
TOLERANCE = 1e-3
# a network whose output hardly varies is compared to this part of the output itself
_LEAST_VARIATION = 0.01


def random_images(input_size: Sequence[int], batch: int = 2, seed: int = 0) -> Tensor:
    """Images [batch, C, H, W] of coarse and fine noise; fine noise alone looks the same to a network in every image."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(batch, input_size[0], 4, 4, generator=generator)
    fine = torch.randn(batch, *input_size, generator=generator)
    return F.interpolate(coarse, size=tuple(input_size[1:]), mode="bilinear") + fine / 2


@torch.no_grad()
def difference(original: Callable[[Tensor], Any], exported: Callable[[Tensor], Any], batches: Sequence[Tensor]) -> float:
    """Largest difference of two networks' outputs over `batches`, as a part of the original's variation between images.

    Relative to the outputs themselves an untrained network would pass whatever its layers do: its outputs are nearly those of
    its last bias. `batches` hold at least two images. Infinite where the outputs' numbers, shapes or finiteness differ.
    Raises ValueError where the original's own outputs aren't finite.
    """
    assert sum(map(len, batches)) > 1
    expected, found = _outputs(original, batches), _outputs(exported, batches)
    if not all(torch.isfinite(values).all() for values in expected):
        raise ValueError("the network's outputs on random images aren't finite, so there is nothing to compare with")
    if [values.shape for values in expected] != [values.shape for values in found]:
        return float("inf")
    worst = 0.0
    for one, other in zip(expected, found, strict=True):
        variation = (one.amax(0) - one.amin(0)).max()
        scale = torch.maximum(variation, _LEAST_VARIATION * one.abs().max())
        distance = (one - other).abs().max()
        if not torch.isfinite(distance):
            return float("inf")
        if distance > 0:
            worst = max(worst, float(distance / scale))
    return worst


def also_at(original: nn.Module, exported: nn.Module, input_size: Sequence[int]) -> bool | None:
    """Whether two networks also agree on images of this size; None where the original doesn't take them."""
    batches = [random_images(input_size, batch=3)]
    try:
        with torch.no_grad():
            original(batches[0])
    except RuntimeError:
        return None
    try:
        return difference(original, exported, batches) <= TOLERANCE
    except RuntimeError:
        return False


def require_equal(found: float) -> None:
    """Raises ValueError for a `difference` beyond `TOLERANCE`."""
    if not found <= TOLERANCE:
        raise ValueError(
            f"the exported network's outputs differ from the original's by {found:.1g} of their variation between images, "
            f"more than {TOLERANCE:g}, so nothing was written"
        )


def _outputs(network: Callable[[Tensor], Any], batches: Sequence[Tensor]) -> list[Tensor]:
    """The output tensors, those of all batches together."""
    runs = [[leaf for leaf in tree_leaves(network(batch)) if isinstance(leaf, Tensor)] for batch in batches]
    return [torch.cat(parts) for parts in zip(*runs, strict=True)]
