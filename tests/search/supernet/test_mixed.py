import copy

import pytest
import torch
from torch import nn

from search.supernet import Gates, MixedOp, Zero, inherit, recalibrate, suspended_statistics


class Times(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor, self.runs = factor, 0

    def forward(self, x):
        self.runs += 1
        return self.factor * x


def mixed():
    gates = Gates()
    ops = {"none": Zero(), "two": Times(2.0), "five": Times(5.0)}
    return gates, MixedOp("edge", ops, gates)


def test_weighted_sum_and_gradient_of_the_weights():
    gates, op = mixed()
    w = torch.tensor([0.5, 0.25, 0.25], requires_grad=True)
    x = torch.ones(1, 1, 2, 2)
    with gates.opened({"edge": (w, (0, 1, 2))}):
        y = op(x)
    assert torch.equal(y, 1.75 * x)
    y.sum().backward()
    assert w.grad.tolist() == [0.0, 8.0, 20.0]


def test_only_active_options_run():
    gates, op = mixed()
    with gates.opened({"edge": (torch.tensor([0.0, 0.0, 1.0]), (2,))}):
        assert op(torch.ones(1, 1, 1, 1)).item() == 5.0
    assert (op.ops["two"].runs, op.ops["five"].runs) == (0, 1)


def test_zero_alone_gives_zeros_of_the_strided_shape():
    gates = Gates()
    op = MixedOp("edge", {"none": Zero(2), "two": Times(2.0)}, gates)
    with gates.opened({"edge": (torch.tensor([1.0, 0.0]), (0,))}):
        y = op(torch.full((2, 3, 5, 7), float("nan")))
    assert y.shape == (2, 3, 3, 4) and not y.any()


def test_gates_close_after_an_error_and_nest():
    gates, _ = mixed()
    with pytest.raises(ZeroDivisionError), gates.opened({"edge": (None, (1,))}):
        with gates.opened({"edge": (None, (2,))}):
            assert gates["edge"][1] == (2,)
        assert gates["edge"][1] == (1,)
        raise ZeroDivisionError
    with pytest.raises(RuntimeError, match="closed"):
        gates["edge"]
    assert copy.deepcopy(gates) is gates


def test_suspended_statistics_use_the_batch_and_move_nothing():
    norm = nn.BatchNorm1d(3)
    x = torch.randn(8, 3) * 4 + 1
    before = copy.deepcopy(norm.state_dict())
    with suspended_statistics(norm):
        y = norm(x)
    assert torch.allclose(y.mean(0), torch.zeros(3), atol=1e-5)
    assert all(torch.equal(before[k], v) for k, v in norm.state_dict().items())
    norm(x)
    assert norm.num_batches_tracked == 1


def test_suspended_statistics_leave_eval_mode_to_the_running_statistics():
    norm = nn.BatchNorm1d(3).eval()
    x = torch.randn(8, 3) * 4 + 1
    with suspended_statistics(norm):
        assert torch.allclose(norm(x), x, atol=1e-4)


def test_recalibration_is_the_plain_average_over_batches():
    norm = nn.BatchNorm1d(2, momentum=0.3).eval()
    batches = [torch.randn(16, 2) + i for i in range(3)]
    assert recalibrate(norm, batches, norm) == 3
    assert torch.allclose(norm.running_mean, torch.stack([b.mean(0) for b in batches]).mean(0), atol=1e-6)
    assert torch.allclose(norm.running_var, torch.stack([b.var(0) for b in batches]).mean(0), atol=1e-5)
    assert norm.momentum == 0.3 and not norm.training


def test_recalibration_without_data_keeps_the_statistics():
    norm = nn.BatchNorm1d(2)
    norm.running_mean.fill_(7.0)
    with pytest.raises(ValueError, match="at least one batch"):
        recalibrate(norm, [], norm)
    assert norm.running_mean.tolist() == [7.0, 7.0]


class Narrow(nn.Module):
    def __init__(self, width=2):
        super().__init__()
        self.a, self.extra = nn.Linear(2, width), nn.Linear(1, 1)

    def without_counterpart(self):
        return ["extra.weight", "extra.bias"]


def test_inherit_copies_lists_and_refuses():
    wide = {"a.weight": torch.full((2, 2), 3.0), "a.bias": torch.zeros(2), "b.weight": torch.ones(1)}
    narrow = nn.Sequential(Narrow())
    result = inherit(narrow, {f"0.{k}": v for k, v in wide.items()})
    assert result.loaded == ("0.a.weight", "0.a.bias")
    assert result.without_counterpart == ("0.extra.weight", "0.extra.bias")
    assert (narrow[0].a.weight == 3).all()
    other = Narrow(width=3)
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(ValueError, match=r"a\.weight has shape \(3, 2\).*\(2, 2\)"):
        inherit(other, wide)
    with pytest.raises(ValueError, match=r"a\.bias has no counterpart"):
        inherit(Narrow(), {"a.weight": wide["a.weight"]})
    assert all(torch.equal(before[k], v) for k, v in other.state_dict().items())


def test_recalibration_leaves_frozen_norms_alone():
    class Frozen(nn.Sequential):
        def train(self, mode=True):
            super().train(mode)
            self[0].eval()
            return self

    model = Frozen(nn.BatchNorm1d(2), nn.BatchNorm1d(2))
    model[0].running_mean.fill_(7.0)
    recalibrate(model, [torch.randn(8, 2)], model)
    assert model[0].running_mean.tolist() == [7.0, 7.0] and model[1].running_mean.any()
