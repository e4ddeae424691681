"""Channels-last states are taken by every plan, and give what the same states in NCHW give."""

import pytest
import torch

from tests.backbones.small_supernets import autocast, flat, require_as_accurate, require_equal, results
from tests.devices import needs_triton
from tests.search.supernet.small_cells import cell_of, states


def of_layout(plan, partial, layout, dtype):
    return results(*cell_of(plan, partial=partial, layout=layout), states(partial), dtype=dtype)


@pytest.mark.parametrize(("plan", "partial"), [("reference", 2), ("batched", 1), ("batched", 2)])
def test_channels_last_states_give_the_same(plan, partial):
    layouts = torch.contiguous_format, torch.channels_last
    require_equal(*(of_layout(plan, partial, layout, torch.float64) for layout in layouts))


@needs_triton
@pytest.mark.parametrize("partial", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_channels_last_states_are_as_accurate_by_the_kernels(partial):
    exact = of_layout("reference", partial, torch.contiguous_format, torch.float64)
    layouts = torch.contiguous_format, torch.channels_last
    require_as_accurate(exact, *(of_layout("triton", partial, layout, torch.float32) for layout in layouts))


@needs_triton
@pytest.mark.parametrize("memory", ["fast", pytest.param("small", marks=pytest.mark.slow)])
def test_the_triton_plan_under_autocast_is_as_accurate_as_the_batched_plan(memory):
    exact = results(*cell_of("reference"), states(), dtype=torch.float64)
    batched, triton = (results(*cell_of(plan, memory), states(), autocast) for plan in ("batched", "triton"))
    # the interpreter cuts bfloat16 off, where the batched plan rounds
    epsilon = torch.finfo(torch.bfloat16).eps
    require_as_accurate(exact, batched, triton, rounding=epsilon)
    # autocast did something: one rounding has a third or a sixth of an epsilon by RMS
    outputs, found = flat(exact["outputs"]), flat(triton["outputs"])
    assert (found - outputs).norm() > epsilon / 8 * outputs.norm()
