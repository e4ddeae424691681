"""A batch that goes through the network in parts: the memory of a part, the step of the whole batch."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor


def parts_of(data: Any, count: int) -> list[tuple[float, Any]]:
    """(share of the images, part) of a prepared batch in ``count`` parts, nearly equal; fewer where it holds fewer images.

    ``data``: a mapping or a sequence of values with an entry for each image, tensors [B, ...] or lists, or None. Tensors of
    parts are views.
    """
    if count == 1:
        return [(1.0, data)]
    values = list(data.values()) if isinstance(data, Mapping) else list(data)
    sizes = {len(value) for value in values if isinstance(value, Tensor | list | tuple)}
    assert len(sizes) == 1, f"a batch's values hold {sizes} images"
    (batch,) = sizes
    count = min(count, batch)
    bounds = [batch * i // count for i in range(count + 1)]
    return [((end - begin) / batch, _cut(data, begin, end)) for begin, end in pairwise(bounds)]


def _cut(data: Any, begin: int, end: int) -> Any:
    if isinstance(data, Mapping):
        return {name: _entries(value, begin, end) for name, value in data.items()}
    return [_entries(value, begin, end) for value in data]


def _entries(value: Tensor | Sequence[Any] | None, begin: int, end: int) -> Any:
    return None if value is None else value[begin:end]
