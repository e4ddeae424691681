import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from search.cost import bytes_kept
from search.cost.live_bytes import LiveBytes, followed


def test_by_hand():
    with LiveBytes() as live:
        a = torch.ones(100)
        b = a * 2
        assert (live.live, live.peak) == (800, 800)
        a = a[:10]
        # a view holds its whole storage; what is added in place makes none
        a += 1
        assert (live.live, live.peak) == (800, 800)
        del a
        assert (live.live, live.peak) == (400, 800)
        live.start_again()
        assert live.peak == 400
        b = b + 1
        assert (live.live, live.peak) == (400, 800)


def tower():
    return nn.Sequential(*(nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Tanh()) for _ in range(4)))


def step(recompute):
    def run(live):
        model = tower()
        x = torch.ones(256, 64)
        before = live.live
        live.start_again()
        for block in model:
            x = checkpoint(block, x, use_reentrant=False) if recompute else block(x)
        loss = x.sum()
        forward = live.live - before
        loss.backward()
        return before, forward, live.peak

    return run


@pytest.mark.parametrize("recompute", [False, True])
def test_fake_equals_real(recompute):
    assert followed(step(recompute)) == followed(step(recompute), fake=False)


def test_a_peak_has_what_is_recomputed():
    size = 256 * 64 * 4
    weights = 4 * (64 * 64 + 64) * 4
    before, forward, peak = followed(step(False))
    assert before == weights + size
    # two maps of each block, and the loss
    assert forward == 8 * size + 4
    _, forward, recomputed = followed(step(True))
    assert forward == 4 * size + 4
    assert peak > recomputed > before + forward


@pytest.mark.parametrize("fake", [False, True])
def test_what_no_backward_runs_through_is_free_in_the_end(fake):
    """Only the scale's gradient is asked for, so backward frees nothing of the convolution and its output."""

    def run(live):
        conv, scale = nn.Conv2d(3, 8, 3), nn.Parameter(torch.ones(1))
        x, found, before = torch.ones(4, 3, 16, 16), [], live.live

        def forward():
            found.append((scale * conv(x).relu().sigmoid()).sum())
            return found[0]

        for _ in range(2):
            kept = bytes_kept(forward, [*conv.parameters(), scale])
            torch.autograd.grad(found.pop(), scale)
        return kept, live.live - before

    # the input, and what relu and sigmoid gave
    assert followed(run, fake) == (4 * 4 * (3 * 16 * 16 + 2 * 8 * 14 * 14), 0)


def test_second_derivatives_of_what_was_counted():
    x = torch.tensor([0.5], requires_grad=True, dtype=torch.float64)
    found = []
    bytes_kept(lambda: found.append((x * x.tanh()).sum()) or found[0])
    (first,) = torch.autograd.grad(found[0], x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    slope = 1 - torch.tanh(x) ** 2
    assert torch.allclose(second, 2 * slope - 2 * x * torch.tanh(x) * slope, rtol=1e-12)


def test_values_can_be_read_from_fake_tensors():
    def run(live):
        norm = nn.utils.clip_grad_norm_([nn.Parameter(torch.ones(3))], 1.0)
        return float(norm), torch.ones(2).sum().item(), torch.ones(2, dtype=torch.long)[0].item(), bool(torch.ones(2)[0] > 3)

    assert followed(run) == (0.0, 0.5, 1, True)
