"""What the partial-channel node launches, compiled for GPUs that needn't be there."""

from collections.abc import Iterable
from itertools import product
from unittest import mock

import pytest
import torch

from search.kernels.partial_node import launch, operator
from tests.search.kernels.kernel_testing import COMPILED, TYPES, check_resources, compile_launches

LAYOUTS = (torch.contiguous_format, torch.channels_last)
K, CHANNELS, SIZE = 4, 64, 32
EDGES = [[1] * 5, [2, 2, 1, 1, 1]]


def launches() -> None:
    """Nodes and pools in some types and layouts, for `compile_launches`."""
    _launch_all(zip((torch.float32, torch.bfloat16), LAYOUTS, strict=True))


def launches_of_all() -> None:
    """The same in every type and layout."""
    _launch_all(product(TYPES, LAYOUTS))


def _launch_all(kinds: Iterable[tuple[torch.dtype, torch.memory_format]]) -> None:
    """Forward and backward of nodes of five edges, without gradients of the weights and with, and of 2x2 pools alone."""
    with mock.patch.object(launch, "check_device"):
        for dtype, layout in kinds:
            for strides in EDGES:
                for weighted in (False, True):
                    _launch(dtype, layout, strides, weighted)
            _launch_pool(dtype, layout)


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


def _launch_pool(dtype: torch.dtype, layout: torch.memory_format) -> None:
    """What `max_pool_2x2` is: all channels are in the rest."""
    x = torch.empty((2, CHANNELS, SIZE, SIZE), dtype=dtype).to(memory_format=layout)
    y, positions = operator.forward_op([], [x], None, None, 1, [2], True)
    operator.backward_op(y, [], [], None, None, positions, 1, 0, [2], [SIZE, SIZE], layout == torch.channels_last)


# kernel -> registers a thread and bytes of shared memory, at most, on any architecture
RESOURCES = {"partial_node_forward_kernel": (96, 4096), "partial_node_backward_kernel": (96, 4096)}


@pytest.mark.parametrize(("function", "architecture"), COMPILED)
def test_compiles_without_spills(function, architecture):
    check_resources(compile_launches(f"{__name__}:{function}", architecture), RESOURCES)


def test_one_launch_forward_and_one_backward():
    # the weights' second stage is a sum of torch's; of each kind four nodes and a pool
    assert [row["kernel"] for row in compile_launches(f"{__name__}:launches", 90)] == 2 * 5 * list(RESOURCES)
