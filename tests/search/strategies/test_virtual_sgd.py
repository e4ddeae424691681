import pytest
import torch
from torch import nn

from search.strategies import learning_rates, virtual_sgd


def test_equals_the_optimisers_own_next_steps():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)).double()
    sgd = torch.optim.SGD(
        [
            {"params": net[0].parameters(), "lr": 0.2, "momentum": 0.9, "weight_decay": 0.1},
            {"params": net[1].parameters(), "lr": 0.05, "momentum": 0.0, "weight_decay": 0.3},
        ]
    )
    weights = dict(net.named_parameters())
    for step in range(3):
        sgd.zero_grad()
        net(torch.randn(5, 4, dtype=torch.float64)).square().sum().backward()
        # SGD leaves a weight without gradient as it is, decay and momentum included
        net[1].bias.grad = None
        grads = {name: weight.grad for name, weight in weights.items() if weight.grad is not None}
        before = {name: weight.detach().clone() for name, weight in weights.items()}
        ahead = virtual_sgd(sgd, weights, grads)
        assert all(torch.equal(before[name], weights[name]) for name in weights)
        sgd.step()
        for name in weights:
            assert torch.allclose(ahead[name], weights[name], rtol=0, atol=1e-15), (step, name)


def test_is_differentiable_in_the_gradients():
    w = nn.Parameter(torch.ones(3))
    sgd = torch.optim.SGD([w], lr=0.25, momentum=0.9)
    grad = torch.zeros(3, requires_grad=True)
    virtual_sgd(sgd, {"w": w}, {"w": grad})["w"].sum().backward()
    assert grad.grad.tolist() == [-0.25] * 3


def test_rates_follow_the_groups():
    v, w, other = (nn.Parameter(torch.ones(1)) for _ in range(3))
    sgd = torch.optim.SGD([{"params": [v], "lr": 0.1}, {"params": [w], "lr": 0.5}])
    assert learning_rates(sgd, {"v": v, "w": w, "other": other}) == {"v": 0.1, "w": 0.5, "other": 0.0}


@pytest.mark.parametrize(
    "make, word",
    [
        (lambda p: torch.optim.Adam(p), "Adam"),
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True), "nesterov"),
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.5), "dampening"),
        (lambda p: torch.optim.SGD(p, lr=0.1, maximize=True), "maximize"),
    ],
)
def test_other_optimisers_are_refused_by_name(make, word):
    w = nn.Parameter(torch.ones(1))
    with pytest.raises(ValueError, match=word):
        virtual_sgd(make([w]), {"w": w}, {"w": torch.ones(1)})
