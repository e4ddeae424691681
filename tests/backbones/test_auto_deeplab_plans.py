"""Auto-DeepLab's supernet under the batched plan equals the reference; of every K, type and policy test_plans.py says it."""

import random

import pytest
import torch

from backbones import AutoDeepLab
from search.supernet import ArchParams, Relax, Softmax, building, record

SETTINGS = dict(filters=4, layers=3, blocks=3, stem=(4, 4, 8), affine=False)


def pair(*, edge_logits=False, **settings):
    """Two supernets of equal weights, one for each plan, and their logits."""
    torch.manual_seed(0)

    def build(plan):
        return AutoDeepLab(plan=plan, **{**SETTINGS, **settings})

    params = ArchParams(record(lambda: build("reference")).space, edge_logits=edge_logits, std=1.0).double()
    models = []
    for plan in ("reference", "batched"):
        with building(Relax(params)):
            models.append(build(plan).double())
    models[1].load_state_dict(models[0].state_dict())
    return params, models


def step(params, model, gate):
    """(outputs, gradients, buffers) of one forward and backward."""
    for p in [*model.parameters(), *params.parameters()]:
        p.grad = None
    x = torch.randn(2, 3, 33, 21, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with gate():
        outputs = [y for y in model(x) if y is not None]
    generator = torch.Generator().manual_seed(2)
    sum((y * torch.randn(y.shape, generator=generator, dtype=torch.float64)).sum() for y in outputs).backward()
    grads = {n: p.grad for n, p in [*model.named_parameters(), *params.named_parameters()]}
    return dict(enumerate(outputs)), grads, {n: b.clone() for n, b in model.named_buffers()}


def agree(first, second):
    for one, two in zip(first, second, strict=True):
        assert one.keys() == two.keys()
        for name, a in one.items():
            assert (a is None) == (two[name] is None), name
            if a is not None:
                assert (a - two[name]).abs().max() <= 1e-10 * max(1.0, float(a.detach().abs().max())), name


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "settings",
    [
        dict(partial=4),
        dict(partial=2, layout="published"),
        dict(atrous="depthwise"),
        pytest.param(dict(layout="published"), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_equal_under_softmax(settings, training):
    params, models = pair(edge_logits=True, **settings)
    for _ in range(2):
        agree(*[step(params, m.train(training), lambda: params.gated(Softmax())) for m in models])


@pytest.mark.parametrize("layout", ["search", "published"])
def test_equal_on_single_paths(layout):
    params, models = pair(layout=layout)
    rng = random.Random(0)
    for _ in range(3):
        arch = params.space.sample(rng)
        agree(*[step(params, m.train(), lambda arch=arch: params.masked(arch)) for m in models])
