"""What the partial-channel node launches, compiled for GPUs that needn't be there."""

from functools import cache
from unittest import mock

import pytest
import torch

from search.kernels.partial_node import launch, operator
from tests.search.kernels.kernel_testing import ARCHITECTURES, compile_launches

LAYOUTS = (torch.contiguous_format, torch.channels_last)
K, CHANNELS, SIZE = 4, 64, 32
EDGES = [[1] * 5, [2, 2, 1, 1, 1]]


def launches() -> None:
    """Forward and backward of nodes of five edges, without gradients of the weights and with, for `compile_launches`."""
    with mock.patch.object(launch, "check_device"):
        for dtype, layout in zip((torch.float32, torch.bfloat16), LAYOUTS, strict=True):
            for strides in EDGES:
                for weighted in (False, True):
                    _launch(dtype, layout, strides, weighted)


def _launch(dtype: torch.dtype, layout: torch.memory_format, strides: list[int], weighted: bool) -> None:
    def made(channels: int, size: int) -> torch.Tensor:
        return torch.empty((2, channels, size, size), dtype=dtype).to(memory_format=layout)

    size = SIZE // max(strides)
    taken = CHANNELS // K
    mixed = [made(taken, size) for _ in strides]
    rests = [made(CHANNELS, size * s)[:, taken:] for s in strides]
    weights = torch.empty(len(strides))
    y, positions = operator.forward_op(mixed, rests, weights, weights, K, strides, not weighted)
    kept = (mixed, rests) if weighted else ([], [])
    sizes = [n for r in rests for n in r.shape[2:]]
    operator.backward_op(y, *kept, weights, weights, positions, K, len(strides), strides, sizes, layout == torch.channels_last)


# kernel -> registers a thread and bytes of shared memory, at most, on any architecture
RESOURCES = {"partial_node_forward_kernel": (96, 4096), "partial_node_backward_kernel": (96, 4096)}


@cache
def compiled(architecture: int) -> list[dict]:
    """The launches, compiled once for all tests."""
    return compile_launches(f"{__name__}:launches", architecture)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_compiles_without_spills(architecture):
    rows = compiled(architecture)
    # one launch forward and one backward; the weights' second stage is a sum of torch's
    assert [row["kernel"] for row in rows] == 8 * list(RESOURCES)
    for row in rows:
        registers, shared = RESOURCES[row["kernel"]]
        assert row["registers"] <= registers and row["shared"] <= shared and row["stack"] == 0, row
