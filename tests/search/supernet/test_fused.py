"""The Triton plan equals the reference: outputs, every gradient, running statistics; in the interpreter without a GPU."""

import copy
import os
import random

import pytest
import torch
from torch import nn

from backbones import AutoDeepLab, AutoFPN, CellNet, DensePredictionCell
from search.supernet import ArchParams, Relax, Softmax, building, record
from search.supernet.plans import choose_plan

pytest.importorskip("triton")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def cells(k, **settings):
    return CellNet(channels=k * 2, layers=1, reductions=(0,), partial=k, nodes=2, affine=False, **settings)


def trellis(k, **settings):
    return AutoDeepLab(filters=2 * k, layers=2, blocks=2, stem=(4, 4, 8), partial=k, affine=False, **settings)


class Necked(nn.Module):
    """Maps of three sizes from an image, and a neck that reads them."""

    def __init__(self, neck):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3, 4, 3, stride, 1) for stride in (1, 2, 4))
        self.neck = neck

    def forward(self, x):
        return self.neck(tuple(conv(x) for conv in self.convs))


def context(k, **settings):
    neck = DensePredictionCell([4] * 3, 2, 2 * k, 2, (1, 3), (2,), dropout=0.0, affine=False, partial=k, **settings)
    return Necked(neck)


def pyramid(k, **settings):
    return Necked(AutoFPN([4] * 3, 2 * k, 3, 1, num_outs=3, affine=False, partial=k, **settings))


def models_of(k, memory="fast", network=cells):
    """A float64 reference, the same in float32, and the Triton plan in float32, of equal weights, and their logits."""
    torch.manual_seed(0)

    def build(plan):
        return network(k, plan=plan, memory="fast" if plan == "reference" else memory)

    params = ArchParams(record(lambda: build("reference")).space, edge_logits=k > 1, std=1.0).to(DEVICE)
    with building(Relax(params)):
        reference, triton = build("reference").to(DEVICE), build("triton").to(DEVICE)
    triton.load_state_dict(reference.state_dict())
    exact = copy.deepcopy(reference).double()
    return params, (exact, reference, triton)


def results(params, model, x, gate):
    for p in [*model.parameters(), *params.parameters()]:
        p.grad = None
    dtype = next(model.parameters()).dtype
    x = x.to(dtype, copy=True).requires_grad_()
    params = params.to(dtype)
    with gate(params):
        y = torch.cat([y.flatten() for y in model(x) if y is not None])
    (y * torch.linspace(-1, 1, y.numel(), dtype=dtype, device=y.device).view(y.shape)).sum().backward()
    found = {
        "output": [y],
        "by the input": [x.grad],
        "by weights": [p.grad for p in model.parameters() if p.grad is not None],
        "by logits": [p.grad for p in params.parameters() if p.grad is not None],
        "running statistics": [b for n, b in model.named_buffers() if "running" in n],
        "batches": [b for n, b in model.named_buffers() if n.endswith("num_batches_tracked")],
    }
    found = {name: torch.cat([t.detach().double().flatten() for t in ts]) for name, ts in found.items() if ts}
    params.float()
    return found


def check(exact, reference, triton):
    """The Triton plan's relative RMS errors are those of float32 sums: at most twice the reference plan's own."""
    for name, t in exact.items():
        own, found = (float((other[name] - t).norm()) for other in (reference, triton))
        assert found <= max(1e-5 * float(t.norm()), 2 * own), (name, found, own, float(t.norm()))


@pytest.mark.parametrize(
    ("k", "memory", "training"),
    [
        pytest.param(2, "fast", True, marks=pytest.mark.slow),
        (2, "fast", False),
        *(pytest.param(k, "fast", True, marks=pytest.mark.slow) for k in (1, 4, 8)),
        *(pytest.param(2, memory, True, marks=pytest.mark.slow) for memory in ("balanced", "small")),
    ],
)
def test_equals_the_reference(k, memory, training):
    params, models = models_of(k, memory)
    x = torch.randn(2, 3, 5, 4, device=DEVICE)
    exact, reference, triton = (results(params, model.train(training), x, lambda p: p.gated(Softmax())) for model in models)
    check(exact, reference, triton)


@pytest.mark.slow
@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("network", [trellis, context, pyramid])
def test_every_network_equals_the_reference(network, k):
    params, models = models_of(k, network=network)
    x = torch.randn(3, 3, 9, 8, device=DEVICE)
    exact, reference, triton = (results(params, model.train(), x, lambda p: p.gated(Softmax())) for model in models)
    check(exact, reference, triton)


def test_equals_the_reference_on_one_path():
    params, models = models_of(2)
    arch = params.space.sample(random.Random(3))
    x = torch.randn(2, 3, 6, 6, device=DEVICE)
    exact, reference, triton = (results(params, model.train(), x, lambda p: p.masked(arch)) for model in models)
    check(exact, reference, triton)


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
    params, (_, _, triton) = models_of(1)
    params.cpu()
    with params.gated(Softmax()), pytest.raises(ValueError, match=r"plan='triton' can't run: .* on cpu; set plan='auto'"):
        triton.cpu()(torch.randn(2, 3, 6, 6))
