"""The Triton plan of one graph, in the interpreter without a GPU. Networks are in tests/backbones/test_plans.py."""

import copy
import os
import random
from functools import partial

import pytest
import torch
from torch import nn

from backbones.operations import darts_candidates
from search.supernet import MixedDag, Softmax, reading
from search.supernet.fused import Fused
from search.supernet.plans import choose_plan
from tests.backbones.small_supernets import cells, check, executed_by
from tests.devices import DEVICE, needs_triton

CANDIDATES = darts_candidates(False)


class Cell(nn.Module):
    """One node that reads the image by all of DARTS's candidates, or by `only` some."""

    def __init__(self, k, only=tuple(CANDIDATES), **settings):
        super().__init__()
        candidates = {name: make for name, make in CANDIDATES.items() if name in only}
        with reading("cell") as pick:
            self.dag = MixedDag(pick, "cell", candidates, channels=3, inputs=1, nodes=1, keep=1, relax_only=(), **settings)

    def forward(self, x):
        return self.dag(x)


@needs_triton
def test_equals_the_reference_under_the_softmax(monkeypatch):
    ran = []
    monkeypatch.setattr(Fused, "_run", lambda self, x, run=Fused._run: ran.append(self.nodes()) or run(self, x))
    check("triton", Cell, 1, True, torch.float32, x=torch.randn(2, 3, 4, 3, device=DEVICE))
    # all candidates as one operation
    assert ran == [(1,)]


@pytest.mark.parametrize("only", ["sep_conv_3x3", "dil_conv_3x3", "avg_pool_3x3"])
@pytest.mark.parametrize("plan", ["reference", "batched", pytest.param("triton", marks=needs_triton)])
def test_a_single_value_has_no_variance(plan, only):
    params, _, model = executed_by(plan, "fast", partial(Cell, only=(only, "skip_connect")), 1)
    before = {name: copy.deepcopy(b) for name, b in model.named_buffers() if "running" in name}
    assert before
    x = torch.randn(1, 3, 1, 1, device=DEVICE)
    with params.gated(Softmax()):
        with pytest.raises(ValueError, match="Expected more than 1 value per channel when training, got input size"):
            model.train()(x)
        assert model.eval()(x)[0].shape == x.shape
        assert all(torch.equal(b, model.get_buffer(name)) for name, b in before.items())
    params, _, model = executed_by(plan, "fast", partial(Cell, only=("skip_connect",)), 1)
    with params.gated(Softmax()):
        assert torch.allclose(model.train()(x)[0], x)


@needs_triton
def test_equals_the_reference_on_one_path():
    def gate(params):
        return params.masked(params.space.sample(random.Random(3)))

    check("triton", cells, 2, True, torch.float32, gate=gate)


@needs_triton
def test_auto_takes_what_runs():
    assert choose_plan(torch.device("cpu"), torch.float32) == (
        "batched",
        "the Triton kernels need CUDA, and the supernet is on cpu",
    )
    assert choose_plan(torch.device("cuda"), torch.float32)[0] == "triton"
    assert choose_plan(torch.device("cuda"), torch.float64) == (
        "batched",
        "the Triton kernels take float32, bfloat16 and float16, and the supernet is in float64",
    )


def test_where_the_kernels_cannot_run_the_plan_says_so(monkeypatch):
    monkeypatch.setitem(os.environ, "TRITON_INTERPRET", "0")
    params, _, triton = executed_by("triton", "fast", cells, 1)
    params.cpu()
    with params.gated(Softmax()), pytest.raises(ValueError, match=r"plan='triton' can't run: .* on cpu; set plan='auto'"):
        triton.cpu()(torch.randn(2, 3, 6, 6))
