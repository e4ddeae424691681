"""What the depthwise bank launches, compiled for GPUs that needn't be there."""

from itertools import product
from unittest import mock

import pytest
import torch

from search.kernels.depthwise_bank import launch, operator
from tests.search.kernels.kernel_testing import COMPILED, TYPES, check_resources, compile_launches

LAYOUTS = (torch.contiguous_format, torch.channels_last)
# kernel sizes and dilations: of the DARTS space, and the widest window beside a dilated one
DARTS, WIDE = ((3, 5, 3, 5), (1, 1, 2, 2)), ((7, 3), (1, 2))
# a bank's launches: forward, backward for the input alone, backward for the weights too
KERNELS = ["bank_forward_kernel", "bank_backward_kernel", "bank_backward_kernel", "bank_sum_kernel"]


def launches() -> None:
    """A bank of each kind, in one layout, type and stride each, for `compile_launches`."""
    _launch(torch.float32, torch.contiguous_format, *DARTS, 1)
    _launch(torch.bfloat16, torch.channels_last, *WIDE, 2)


def launches_of_all() -> None:
    """Every type, layout and stride, for `compile_launches`."""
    for dtype, layout, bank, stride in product(TYPES, LAYOUTS, (DARTS, WIDE), (1, 2)):
        _launch(dtype, layout, *bank, stride)


def _launch(dtype, layout, sizes, dilations, stride) -> None:
    """Forward with both pools, backward for the input alone, and for the weights too."""
    x = torch.empty((2, 16, 32, 32), dtype=dtype, memory_format=layout)
    weights = [torch.empty((4 * 16, 1, size, size), dtype=dtype) for size in sizes]
    with mock.patch.object(launch, "check_device"):
        *made, codes = operator.forward_op(x, weights, dilations, stride, True, True, True)
        for need_weights in (False, True):
            given = (x, weights, dilations, stride, True, made[:-2], made[-2], codes, made[-1])
            operator.backward_op(*given, need_weights)


# kernel -> registers a thread and bytes of shared memory, at most, on any architecture. The assembler gives the first two all
# registers that a thread may have (launch.REGISTERS): that these are enough is said by spills, of which there are none.
RESOURCES = {"bank_forward_kernel": (255, 0), "bank_backward_kernel": (255, 32), "bank_sum_kernel": (40, 512)}


@pytest.mark.parametrize(("function", "architecture"), COMPILED)
def test_compiles_without_spills(function, architecture):
    check_resources(compile_launches(f"{__name__}:{function}", architecture), RESOURCES)


def test_one_launch_forward_and_two_backward():
    assert [row["kernel"] for row in compile_launches(f"{__name__}:launches", 90)] == 2 * KERNELS
