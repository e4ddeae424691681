"""A small supernet of every network that has a `MixedDag`, executed by two plans, and how equal these are."""

import copy
from contextlib import contextmanager

import torch
from torch import nn

from backbones import AutoDeepLab, AutoFPN, CellNet, DensePredictionCell, HeadCell
from search.supernet import ArchParams, Relax, Softmax, building, record
from tests.devices import DEVICE


class Levels(nn.Module):
    """Maps of three sizes from an image, and what reads them all."""

    def __init__(self, reader):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3, 8, 3, stride, 1) for stride in (1, 2, 4))
        self.reader = reader

    def forward(self, x):
        return self.reader(tuple(conv(x) for conv in self.convs))


class Shared(nn.Module):
    """A head: one module over the maps of two levels."""

    def __init__(self, head):
        super().__init__()
        self.head = head

    def forward(self, maps):
        return [self.head(x) for x in maps[:2]]


def cells(k, **settings):
    return CellNet(channels=2 * k, layers=1, reductions=(0,), nodes=2, partial=k, affine=False, **settings)


def trellis(k, **settings):
    return AutoDeepLab(filters=2 * k, layers=2, blocks=2, stem=(4, 4, 8), partial=k, affine=False, **settings)


def context(k, **settings):
    return Levels(DensePredictionCell([8] * 3, 2, 2 * k, 2, (1, 3), (2,), dropout=0.0, affine=False, partial=k, **settings))


def pyramid(k, **settings):
    return Levels(AutoFPN([8] * 3, 2 * k, 3, 1, num_outs=3, affine=False, partial=k, **settings))


def heads(k, **settings):
    # 6 channels are three groups
    return Levels(Shared(HeadCell(8, 6 * k, nodes=3, affine=False, partial=k, **settings)))


NETWORKS = {cells: CellNet, trellis: AutoDeepLab, context: DensePredictionCell, pyramid: AutoFPN, heads: HeadCell}


def image(network):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, 3, *((5, 4) if network is cells else (9, 8)), generator=generator).to(DEVICE)


def executed_by(plan, memory, network, k):
    """Logits, a supernet under the reference plan, and the same with the same weights under the other, all in float32."""
    torch.manual_seed(0)

    def build(plan, memory="fast"):
        return network(k, plan=plan, memory=memory)

    params = ArchParams(record(lambda: build("reference")).space, edge_logits=k > 1, std=1.0).to(DEVICE)
    with building(Relax(params)):
        reference, other = build("reference").to(DEVICE), build(plan, memory).to(DEVICE)
    for name, buffer in reference.named_buffers():
        if "running" in name:
            buffer.copy_(torch.rand_like(buffer) + 0.5)
    other.load_state_dict(reference.state_dict())
    return params, reference, other


def softmax(params):
    """The usual gate."""
    return params.gated(Softmax())


@contextmanager
def autocast(params):
    """The same in bfloat16 where autocast says so."""
    with params.gated(Softmax()), torch.autocast(DEVICE, torch.bfloat16):
        yield


def results(params, model, x, gate=softmax, dtype=torch.float32):
    """By kind and name what a forward and backward gives in a dtype; running statistics are moved by it.

    gate: logits -> a context in which the forward runs.
    """
    params, model = params.to(dtype), model.to(dtype)
    for p in [*model.parameters(), *params.parameters()]:
        p.grad = None
    x = x.to(dtype, copy=True).requires_grad_()
    with gate(params):
        maps = [y for y in model(x) if y is not None]
    sum((y * torch.linspace(-1, 1, y.numel(), dtype=dtype, device=y.device).view(y.shape)).sum() for y in maps).backward()
    found = {
        "outputs": {str(i): y for i, y in enumerate(maps)},
        "by the input": {"x": x.grad},
        "by weights": {name: p.grad for name, p in model.named_parameters()},
        "by logits": {name: p.grad for name, p in params.named_parameters()},
        "running statistics": {name: b for name, b in model.named_buffers() if "running" in name},
        "batches": {name: b for name, b in model.named_buffers() if name.endswith("num_batches_tracked")},
    }
    return {
        kind: {name: None if t is None else t.detach().clone() for name, t in of_kind.items()}
        for kind, of_kind in found.items()
    }


def require_equal(reference, other):
    """Every tensor of two results in float64 to 1e-10 of its greatest value, or of one."""
    for kind, of_kind in reference.items():
        assert of_kind.keys() == other[kind].keys()
        for name, t in of_kind.items():
            found = other[kind][name]
            assert (t is None) == (found is None), (kind, name)
            assert t is None or (t - found).abs().max() <= 1e-10 * max(1.0, float(t.abs().max())), (kind, name)


def require_as_accurate(exact, reference, other, rounding=1e-5):
    """Relative RMS errors are those of the type's sums: at most twice the reference plan's own, or `rounding`."""
    for kind in exact:
        t, own, found = (flat(result[kind]) for result in (exact, reference, other))
        if t.numel():
            error = float((found - t).norm())
            assert error <= max(rounding * float(t.norm()), 2 * float((own - t).norm())), (kind, error, float(t.norm()))


def flat(tensors):
    return torch.cat([torch.zeros(0).double().to(DEVICE), *(t.double().flatten() for t in tensors.values() if t is not None)])


def check(plan, network, k, training, dtype, memory="fast", gate=softmax, x=None):
    """The plan's results are the reference's; `gate`: as in `results`; `x`: other images."""
    params, *models = executed_by(plan, memory, network, k)
    for model in models:
        model.train(training)
    x = image(network) if x is None else x
    reference, other = models
    exact = results(params, copy.deepcopy(reference), x, gate, torch.float64)
    if dtype is torch.float64:
        require_equal(exact, results(params, other, x, gate, dtype))
    else:
        require_as_accurate(exact, *(results(params, model, x, gate, dtype) for model in models))
