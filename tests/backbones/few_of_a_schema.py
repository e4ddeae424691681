"""Published rows as tests' parameters, of which `make test` takes a few."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

FEW = 4


def parameters(rows: Iterable[dict]) -> Iterator[Any]:
    """The rows, slow from the fifth of a schema and family on: what reads and builds them is the same for all."""
    seen: Counter[tuple[str, str]] = Counter()
    for row in rows:
        kind = (row["spec"]["schema"], row["family"])
        seen[kind] += 1
        yield pytest.param(row, id=row["name"].replace(" ", "-"), marks=[pytest.mark.slow] if seen[kind] > FEW else [])
