import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

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


def test_values_can_be_read_from_fake_tensors():
    def run(live):
        norm = nn.utils.clip_grad_norm_([nn.Parameter(torch.ones(3))], 1.0)
        return float(norm), torch.ones(2).sum().item(), torch.ones(2, dtype=torch.long)[0].item(), bool(torch.ones(2)[0] > 3)

    assert followed(run) == (0.0, 0.5, 1, True)
