"""Every plan of execution gives what the reference gives, for every network: outputs, all gradients, running statistics.

NAS-FPN's relaxation has one way of execution (`backbones/merging_mixture.py`); Triton runs in its interpreter without a GPU.
"""

import copy
import inspect
from itertools import product

import pytest
import torch

from search.testing import registered_searchable
from tests.backbones.small_supernets import (
    NETWORKS,
    autocast,
    cells,
    check,
    executed_by,
    heads,
    image,
    require_as_accurate,
    results,
)
from tests.devices import needs_triton

SHARES = (1, 2, 4, 8)
POLICIES = ("fast", "balanced", "small")
slow = pytest.mark.slow


def test_every_network_with_plans_is_here():
    assert {n for n in registered_searchable().values() if "plan" in inspect.signature(n).parameters} == set(NETWORKS.values())


def batched_cases():
    """All of them; every network in each mode and type is quick, at one K and one policy, which take turns."""
    for turn, (training, dtype, network) in enumerate(product((True, False), (torch.float64, torch.float32), NETWORKS)):
        for k, memory in product(SHARES, POLICIES):
            quick = k == SHARES[turn % 4] and memory == POLICIES[turn % 3]
            name = f"{network.__name__}-{k}-{memory}-{'train' if training else 'eval'}-{str(dtype).removeprefix('torch.')}"
            yield pytest.param(network, k, memory, training, dtype, id=name, marks=[] if quick else slow)


@pytest.mark.parametrize(("network", "k", "memory", "training", "dtype"), batched_cases())
def test_batched(network, k, memory, training, dtype):
    check("batched", network, k, training, dtype, memory)


def test_batched_under_autocast_with_group_norms():
    params, reference, batched = executed_by("batched", "fast", heads, 1)
    x = image(heads)
    exact = results(params, copy.deepcopy(reference), x, dtype=torch.float64)
    require_as_accurate(exact, *(results(params, model.float(), x, autocast) for model in (reference, batched)))


def triton_cases():
    """What is quick in the interpreter: cells in eval mode. A quick one in training mode is in test_fused.py."""
    for network, k, training in product(NETWORKS, SHARES, (True, False)):
        quick = network is cells and k == 2 and not training
        name = f"{network.__name__}-{k}-{'train' if training else 'eval'}"
        yield pytest.param(network, k, training, id=name, marks=[] if quick else slow)


@needs_triton
@pytest.mark.parametrize(("network", "k", "training"), triton_cases())
def test_triton(network, k, training):
    check("triton", network, k, training, torch.float32)


@needs_triton
@slow
@pytest.mark.parametrize("memory", POLICIES[1:])
def test_triton_when_recomputed(memory):
    check("triton", cells, 2, True, torch.float32, memory)
