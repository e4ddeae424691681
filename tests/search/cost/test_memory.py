import pytest
import torch
from torch import nn

from search.cost import bytes_kept, bytes_kept_by


def chain():
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1), nn.Flatten())


def loss_of(model):
    return model(torch.ones(2, 3, 8, 8)).square().sum()


def test_by_hand():
    a = torch.ones(100, requires_grad=True)
    # the square keeps a (excluded here), exp keeps its result once, although two operations use it
    assert bytes_kept(lambda: a.square().sum(), [a]) == 0
    assert bytes_kept(lambda: a.square().sum()) == 400

    def forward():
        e = a.exp()
        return (e * e[:50].repeat(2)).sum()

    # e: 400; the repeated half: 400
    assert bytes_kept(forward, [a]) == 800


def test_a_view_keeps_its_whole_storage():
    a = torch.ones(100, requires_grad=True)
    b = torch.ones(1000)
    assert bytes_kept(lambda: (a * b[:100]).sum(), [a]) == 4000


def test_a_freed_and_reused_address_is_counted_twice():
    a = torch.ones(1 << 16, requires_grad=True)

    def forward():
        # one after the other: what the first graph kept is free before the second is made
        for _ in range(3):
            total = a.exp().sum()
        return total

    assert bytes_kept(forward, [a]) == 3 * 4 * (1 << 16)


def test_fake_equals_real():
    assert bytes_kept_by(chain, loss_of) == bytes_kept_by(chain, loss_of, fake=False) > 0


def test_parameters_and_buffers_are_left_out():
    model = chain()
    with_all = bytes_kept(lambda: loss_of(model))
    own = sum(t.numel() * t.element_size() for t in (model[0].weight, model[1].weight, model[3].weight))
    # batch norm also saves its running mean and variance
    own += 2 * 4 * 4
    assert with_all - bytes_kept(lambda: loss_of(model), [*model.parameters(), *model.buffers()]) == own


def test_nothing_is_kept_without_gradients():
    with torch.no_grad():
        assert bytes_kept_by(chain, loss_of, fake=False) == 0


def test_gradients_are_unchanged():
    torch.manual_seed(0)
    model = chain()
    loss_of(model).backward()
    expected = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    kept = []
    bytes_kept(lambda: kept.append(loss_of(model)) or kept[0])
    kept[0].backward()
    assert all(torch.equal(p.grad, e) for p, e in zip(model.parameters(), expected, strict=True))


@pytest.mark.parametrize("batch", [1, 5])
def test_grows_with_the_batch(batch):
    one = bytes_kept_by(lambda: nn.Conv2d(3, 4, 1), lambda m: m(torch.ones(batch, 3, 8, 8)).sum())
    assert one == batch * 3 * 64 * 4
