"""What a state's mixed operations launch, compiled for GPUs that needn't be there."""

from collections.abc import Iterable
from itertools import product
from unittest import mock

import pytest
import torch

from search.kernels.depthwise_bank import launch as bank
from search.kernels.mixed_state import Structure, passes
from search.kernels.norm_sum import launch as sums
from tests.search.kernels.kernel_testing import COMPILED, TYPES, check_resources, compile_launches

# the DARTS space's candidates for four nodes, and a chain of 7x7 ones
DARTS = Structure(4, (2, 2, 1, 1), (3, 5, 3, 5, 3, 5), (1, 1, 2, 2, 1, 1), 1, True, True, True, True, 0)
WIDE = Structure(2, (3,), (7, 7, 7), (1, 1, 2), 2, False, False, False, False, 1)


def launches() -> None:
    """Forward and backward in a type each, for `compile_launches`."""
    _launch_all([(DARTS, torch.float32), (WIDE, torch.bfloat16)])


def launches_of_all() -> None:
    """The same in every type."""
    _launch_all(product((DARTS, WIDE), TYPES))


def _launch_all(kinds: Iterable[tuple[Structure, torch.dtype]]) -> None:
    with mock.patch.object(bank, "check_device"), mock.patch.object(sums, "check_device"):
        for structure, dtype in kinds:
            x, channels = torch.empty((2, 16, 32, 32), dtype=dtype), 16
            weights = torch.empty(structure.weights(channels), dtype=dtype)
            rows = structure.targets * channels
            gates = torch.empty(len(structure.normalise()), structure.targets)
            side = 32 // structure.stride
            others = [torch.empty((2, rows, side, side), dtype=dtype)] * structure.others
            inner = sum(len(step.sizes) * rows for step in list(structure.steps(channels))[1:])
            vectors = [torch.empty(len(gates), rows), torch.empty(len(gates), rows), torch.empty(inner), torch.empty(inner)]
            given = (x, weights, structure, passes.Vectors(gates, *(vectors if structure is WIDE else [None] * 4)), others)
            y, kept = passes.forward(*given, 1e-5)
            passes.backward(y, *given, kept, True)


# kernel -> registers a thread and bytes of shared memory, at most, on any architecture; of the bank's forward see its own test
RESOURCES = {
    "bank_forward_kernel": (255, 0),
    "step_forward_kernel": (128, 0),
    "norm_sum_stats_kernel": (48, 16),
    "norm_sum_merge_stats_kernel": (64, 128),
    "norm_sum_fwd_kernel": (72, 0),
    "norm_sum_bwd_reduce_kernel": (56, 16),
    "norm_sum_merge_grads_kernel": (80, 128),
    "norm_sum_bwd_kernel": (48, 0),
    "norm_sum_bwd_shared_kernel": (40, 0),
    "step_backward_kernel": (168, 0),
    "bank_backward_kernel": (216, 0),
    "bank_sum_kernel": (40, 512),
}


@pytest.mark.parametrize(("function", "architecture"), COMPILED)
def test_compiles_without_spills(function, architecture):
    check_resources(compile_launches(f"{__name__}:{function}", architecture), RESOURCES)


def test_a_dozen_launches_forward():
    names = [row["kernel"] for row in compile_launches(f"{__name__}:launches", 90)]
    forward = names[: names.index("norm_sum_bwd_reduce_kernel")]
    statistics = ["norm_sum_stats_kernel", "norm_sum_merge_stats_kernel"]
    # two matrix products beside them
    assert forward == ["bank_forward_kernel", *statistics, "step_forward_kernel", *statistics, "norm_sum_fwd_kernel"]
