"""What the normalised weighted sum launches, compiled for GPUs that needn't be there."""

from collections.abc import Iterable
from itertools import product
from unittest import mock

import pytest
import torch
from torch import Tensor

from search.kernels.norm_sum import launch
from tests.search.kernels.kernel_testing import COMPILED, TYPES, check_resources, compile_launches

LAYOUTS = (torch.contiguous_format, torch.channels_last)


def launches() -> None:
    """Forward and backward of eight candidates in some types and layouts, for `compile_launches`."""
    _launch_all(zip((torch.float32, torch.bfloat16), LAYOUTS, strict=True))


def launches_of_all() -> None:
    """The same in every type and layout."""
    _launch_all(product(TYPES, LAYOUTS))


def launches_beyond_int32() -> None:
    """The same where positions and steps need 64 bits; the tensors needn't be there."""
    far = launch.Views.of

    def huge(tensors, layout):
        views = far(tensors, layout)
        channels = views.shape[1]
        steps = tuple(channels if views.last else 2**32 for _ in views.steps)
        return launch.Views(views.tensors, (channels * 2**32,) * len(steps), steps, (2, channels, 2**32), views.last)

    with mock.patch.object(launch, "check_device"), mock.patch.object(launch.Views, "of", huge):
        for layout in LAYOUTS:
            _launch([torch.empty((2, 2, 4, 4), memory_format=layout)] * 2)


def _launch_all(kinds: Iterable[tuple[torch.dtype, torch.memory_format]]) -> None:
    with mock.patch.object(launch, "check_device"):
        for dtype, layout in kinds:
            _launch([torch.empty((2, 16, 32, 32), dtype=dtype, memory_format=layout) for _ in range(8)])


def _launch(zs: list[Tensor]) -> None:
    rows = torch.empty(len(zs), zs[0].shape[1])
    flags = [True] * len(zs)
    launch.forward(zs, rows[:, 0], rows, rows, None, None, 1e-5, flags)
    launch.backward(zs[0], zs, rows[:, 0], rows, rows, rows, rows, True, flags)


# kernel -> registers a thread and bytes of shared memory, at most, with eight candidates on any architecture
RESOURCES = {
    "norm_sum_stats_kernel": (48, 256),
    "norm_sum_merge_stats_kernel": (64, 128),
    "norm_sum_fwd_kernel": (192, 0),
    "norm_sum_bwd_reduce_kernel": (80, 256),
    "norm_sum_merge_grads_kernel": (80, 128),
    "norm_sum_bwd_kernel": (72, 0),
}


@pytest.mark.parametrize(("function", "architecture"), COMPILED)
def test_compiles_without_spills(function, architecture):
    check_resources(compile_launches(f"{__name__}:{function}", architecture), RESOURCES)


def test_launches_are_three_forward_and_three_backward():
    names = [row["kernel"] for row in compile_launches(f"{__name__}:launches", 90)]
    assert names == 2 * list(RESOURCES)


def test_compiles_for_maps_beyond_two_to_the_31():
    rows = compile_launches(f"{__name__}:launches_beyond_int32", 90)
    assert len(rows) == 2 * len(RESOURCES)
