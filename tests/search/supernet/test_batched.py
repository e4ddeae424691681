"""The batched plan of DARTS's cells equals the reference: outputs, every gradient, running statistics."""

import copy
import random

import pytest
import torch
from torch import nn

from backbones import CellNet
from search.cost import bytes_kept
from search.supernet import ArchParams, Relax, Softmax, building, record, suspended_statistics
from search.supernet.candidates import Chain, Dense, Halves, Other, Pool, Same, kind_of


def pair(dtype=torch.float64, *, edge_logits, memory="fast", **settings):
    """Two supernets of equal weights, one for each plan, and their logits."""
    torch.manual_seed(0)

    def build(plan):
        keeps = memory if plan == "batched" else "fast"
        return CellNet(channels=8, layers=2, reductions=(1,), plan=plan, memory=keeps, **{"affine": False, **settings})

    params = ArchParams(record(lambda: build("reference")).space, edge_logits=edge_logits, std=1.0).to(dtype)
    models = []
    for plan in ("reference", "batched"):
        with building(Relax(params)):
            models.append(build(plan).to(dtype))
    models[1].load_state_dict(models[0].state_dict())
    for name, buffer in models[0].named_buffers():
        if "running" in name:
            low = 0.5 if name.endswith("var") else -0.5
            buffer.copy_(low + torch.rand(buffer.shape, generator=torch.Generator().manual_seed(len(name)), dtype=dtype))
    models[1].load_state_dict(models[0].state_dict())
    return params, models


def step(params, model, x, gate):
    for p in [*model.parameters(), *params.parameters()]:
        p.grad = None
    x = x.clone().requires_grad_()
    with gate():
        outputs = model(x)
    generator = torch.Generator().manual_seed(7)
    sum((y * torch.randn(y.shape, generator=generator, dtype=y.dtype)).sum() for y in outputs).backward()
    grads = {name: p.grad for name, p in [*model.named_parameters(), *params.named_parameters()]}
    return [*outputs], {"x": x.grad, **grads}, dict(model.named_buffers())


def agree(first, second, tolerance=1e-10):
    for a, b in zip(first[0], second[0], strict=True):
        assert (a - b).abs().max() <= tolerance * max(1.0, float(a.detach().abs().max()))
    for kind in (1, 2):
        assert first[kind].keys() == second[kind].keys()
        for name, a in first[kind].items():
            b = second[kind][name]
            assert (a is None) == (b is None), name
            if a is not None:
                assert (a - b).abs().max() <= tolerance * max(1.0, float(a.abs().max())), name


# of every K, mode, type and policy tests/backbones/test_plans.py says it, of smaller cells with edge logits where K > 1
CASES = [
    (4, False, True, True),
    *[(2, True, edge_logits, True) for edge_logits in (True, False)],
    *[
        pytest.param(*case, marks=pytest.mark.slow)
        for case in (
            *[(2, True, edge_logits, False) for edge_logits in (True, False)],
            (1, True, True, True),
            (1, False, True, False),
            (4, False, False, True),
        )
    ],
]


@pytest.mark.parametrize(("k", "affine", "edge_logits", "training"), CASES)
def test_equal_under_softmax(k, affine, edge_logits, training):
    params, models = pair(edge_logits=edge_logits, partial=k, affine=affine, out_indices=(0, 1, 2))
    x = torch.randn(3, 3, 9, 7, dtype=torch.float64)
    for _ in range(2):
        agree(*[step(params, m.train(training), x, lambda: params.gated(Softmax())) for m in models])


def test_weights_handed_over_for_one_call_are_those_of_the_backward():
    params, (reference, batched) = pair(edge_logits=True, partial=2, memory="small")
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    results = []
    for model in (reference, batched):
        weights = {n: (1.1 * p.detach()).requires_grad_() for n, p in model.named_parameters()}
        with params.gated(Softmax()), suspended_statistics(model):
            y = torch.func.functional_call(model.train(), weights, (x,))[0]
        results.append(torch.autograd.grad(y.square().sum(), [*weights.values(), *params.parameters()]))
    for a, b in zip(*results, strict=True):
        assert (a - b).abs().max() <= 1e-10 * max(1.0, float(a.abs().max()))


@pytest.mark.parametrize("memory", ["fast", "balanced", "small"])
def test_under_autocast_as_accurate_as_the_reference(memory):
    params, models = pair(torch.float32, edge_logits=True, partial=2, memory=memory)
    x = torch.randn(8, 3, 16, 16)

    def gradients(model, enabled):
        with params.gated(Softmax()), torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            y = model.train()(x)[0].float()
        found = torch.autograd.grad(y.square().mean(), [*model.parameters(), *params.parameters()])
        return torch.cat([g.flatten() for g in found])

    exact = gradients(models[0], enabled=False)
    errors = [float((gradients(model, enabled=True) - exact).norm() / exact.norm()) for model in models]
    assert errors[1] < 1.5 * errors[0] < 0.5


def test_less_is_kept():
    x = torch.randn(8, 3, 16, 16)
    kept = []
    for memory in ("fast", "balanced", "small"):
        params, models = pair(torch.float32, edge_logits=True, partial=2, memory=memory)
        for model in models if memory == "fast" else models[1:]:
            with params.gated(Softmax()):
                own = [*model.parameters(), *model.buffers(), *params.parameters()]
                kept.append(bytes_kept(lambda model=model: model(x)[0].sum(), own))
    reference, fast, balanced, small = kept
    assert fast < 0.45 * reference and balanced < 0.9 * fast and small < 0.5 * fast


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("dense", [True, False])
def test_equal_at_a_mask(k, dense):
    params, models = pair(edge_logits=False, partial=k)
    rng = random.Random(1)
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    for _ in range(3):
        arch = params.space.sample(rng)
        agree(*[step(params, m.train(), x, lambda arch=arch: params.masked(arch, dense=dense)) for m in models])


def test_suspended_and_cumulative_statistics():
    params, models = pair(edge_logits=True, partial=2)
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    before = copy.deepcopy(models[1].state_dict())
    with suspended_statistics(models[0]), suspended_statistics(models[1]):
        agree(*[step(params, m.train(), x, lambda: params.gated(Softmax())) for m in models])
    assert all(torch.equal(before[n], t) for n, t in models[1].named_buffers())
    for model in models:
        for norm in model.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.momentum = None
    for _ in range(2):
        agree(*[step(params, m.train(), x, lambda: params.gated(Softmax())) for m in models])


def test_functional_weights_are_read():
    """The virtual step of second order hands over weights that the modules don't hold."""
    params, (reference, batched) = pair(edge_logits=True, partial=2)
    weights = {n: 1.1 * p.detach() for n, p in reference.named_parameters()}
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    with params.gated(Softmax()), suspended_statistics(reference), suspended_statistics(batched):
        a, b = (torch.func.functional_call(m.train(), weights, (x,))[0] for m in (reference, batched))
        assert (a - b).abs().max() <= 1e-10 * a.abs().max() and not torch.equal(a, reference(x)[0])


def test_a_copy_runs_its_own_modules():
    params, (_, batched) = pair(edge_logits=False)
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    with torch.no_grad(), params.gated(Softmax()):
        batched.eval()(x)
        twin = copy.deepcopy(batched)
        for p in twin.parameters():
            p.mul_(1.5)
        fresh = copy.deepcopy(twin)
        for cell in fresh.cells:
            cell.dag._plans = {}
        assert torch.equal(twin(x)[0], fresh(x)[0]) and not torch.equal(twin(x)[0], batched(x)[0])


def test_kinds():
    from backbones.operations import darts_candidates

    for affine in (True, False):
        kinds = {name: kind_of(make(4, 1)) for name, make in darts_candidates(affine).items()}
        assert kinds["none"] is None and isinstance(kinds["skip_connect"], Same)
        assert all(isinstance(kinds[f"{name}_pool_3x3"], Pool) for name in ("max", "avg"))
        assert [len(kinds[f"{name}_conv_{k}"].parts) for name in ("sep", "dil") for k in ("3x3", "5x5")] == [2, 2, 1, 1]
        assert isinstance(kind_of(darts_candidates(affine)["skip_connect"](4, 2)), Halves)
    full = nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 3, padding=2, dilation=2, bias=False), nn.BatchNorm2d(4))
    assert isinstance(kind_of(full), Dense)
    wide = nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4))
    assert isinstance(kind_of(wide), Other) and not isinstance(kind_of(wide), Chain)


def test_an_unknown_plan_is_named():
    arch = record(lambda: CellNet(channels=4, layers=3)).space.at(0)
    for settings, says in [
        (dict(plan="fast"), "plan='fast' is none of reference, batched, triton, auto"),
        (dict(plan="batched", memory="tiny"), "memory='tiny' is none of fast, balanced, small"),
        (dict(memory="small"), "the reference plan recomputes nothing"),
    ]:
        with pytest.raises(ValueError, match=says):
            CellNet(channels=4, layers=3, arch=arch, **settings)
