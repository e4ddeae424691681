"""Closed forms, worked out by hand: L_train = (w - a)^2 / 2, L_val = w^2 / 2, w = 1, a = 2, lr = 0.1."""

import pytest
import torch
from torch import nn
from torch.func import functional_call

from search.strategies import Bilevel, FirstOrder, Unrolled, learning_rates, virtual_sgd

UPDATES = [Unrolled(), Unrolled(exact=True)]


def quadratic(lr=0.1, momentum=0.0, weight_decay=0.0, buffer=None, w=1.0, a=2.0, average=None):
    w = nn.Parameter(torch.tensor(w, dtype=torch.float64))
    a = nn.Parameter(torch.tensor(a, dtype=torch.float64))
    sgd = torch.optim.SGD([w], lr=lr, momentum=momentum, weight_decay=weight_decay)
    if buffer is not None:
        sgd.state[w]["momentum_buffer"] = torch.tensor(buffer, dtype=torch.float64)
    weights = {"w": w}

    def value(of):
        return w if of is None else of["w"]

    return Bilevel(
        train_loss=lambda of: (value(of) - a) ** 2 / 2,
        val_loss=lambda of: value(of) ** 2 / 2,
        weights=weights,
        logits={"a": a},
        virtual_step=lambda grads: virtual_sgd(sgd, weights, grads),
        lr=lr,
        **({} if average is None else {"average": average}),
    )


@pytest.mark.parametrize("update", UPDATES)
def test_unrolled_matches_closed_form(update):
    # w' = 1 - 0.1 * (1 - 2) = 1.1;  dL_val/da = w' * dw'/da = 1.1 * 0.1
    assert update(quadratic())["a"].item() == pytest.approx(0.11, abs=1e-12)


def test_first_order_has_no_gradient_there():
    assert FirstOrder()(quadratic()) == {}


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize(
    "options, expected",
    [
        # before the first step there is no buffer: momentum changes nothing
        (dict(momentum=0.9), 0.11),
        # step = 0.9 * 0.5 - 1 = -0.55;  w' = 1.055
        (dict(momentum=0.9, buffer=0.5), 0.1055),
        # step = -1 + 0.2 * 1 = -0.8;  w' = 1.08
        (dict(weight_decay=0.2), 0.108),
        # step = 0.9 * 0.5 - 1 + 0.2 = -0.35;  w' = 1.035
        (dict(momentum=0.9, buffer=0.5, weight_decay=0.2), 0.1035),
        # a buffer is left over, but the optimiser has no momentum
        (dict(momentum=0.0, buffer=0.5), 0.11),
        # nothing moves: the virtual weights don't depend on a
        (dict(lr=0.0), None),
        # w' = 1 - 1 * (1 - 0) = 0, where L_val is flat
        (dict(lr=1.0, a=0.0), 0.0),
    ],
)
def test_momentum_and_weight_decay(update, options, expected):
    gradient = update(quadratic(**options))
    if expected is None:
        assert gradient == {} or gradient["a"].item() == 0.0
    else:
        assert gradient.get("a", torch.zeros(())).item() == pytest.approx(expected, abs=1e-12)


def test_two_learning_rates():
    # L_train = ((v - a)^2 + (w - a)^2) / 2, L_val = (v^2 + w^2) / 2, v = 1, w = 3, a = 2, lr 0.1 and 0.5
    # v' = 1.1, w' = 3 - 0.5 = 2.5;  dL_val/da = 1.1 * 0.1 + 2.5 * 0.5 = 1.36
    v, w, a = (nn.Parameter(torch.tensor(x, dtype=torch.float64)) for x in (1.0, 3.0, 2.0))
    sgd = torch.optim.SGD([{"params": [v], "lr": 0.1}, {"params": [w], "lr": 0.5}])
    weights = {"v": v, "w": w}

    def of(given):
        return weights if given is None else given

    problem = Bilevel(
        train_loss=lambda x: sum((value - a) ** 2 for value in of(x).values()) / 2,
        val_loss=lambda x: sum(value**2 for value in of(x).values()) / 2,
        weights=weights,
        logits={"a": a},
        virtual_step=lambda grads: virtual_sgd(sgd, weights, grads),
        lr=learning_rates(sgd, weights),
    )
    for update in UPDATES:
        assert update(problem)["a"].item() == pytest.approx(1.36, abs=1e-10)


class Net(nn.Module):
    """A tanh layer whose two candidates are weighted by a softmax of the logits."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(5, 7), nn.Linear(5, 7)
        self.out = nn.Linear(7, 3)
        self.unused = nn.Linear(2, 2)

    def forward(self, x, gates):
        return self.out(torch.tanh(gates[0] * self.one(x) + gates[1] * torch.relu(self.two(x))))


def nonlinear(seed=0, average=None, rows=slice(None)):
    torch.manual_seed(seed)
    net = Net().double()
    logits = nn.Parameter(torch.tensor([0.3, -0.2], dtype=torch.float64))
    idle = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    data = [torch.randn(12, 5, dtype=torch.float64) for _ in range(2)]
    target = [torch.randint(3, (12,)) for _ in range(2)]
    weights = dict(net.named_parameters())
    sgd = torch.optim.SGD(net.parameters(), lr=0.3, momentum=0.9, weight_decay=0.01)

    def loss(which):
        def value(of):
            gates = torch.softmax(logits, 0)
            scores = functional_call(net, dict(weights if of is None else of), (data[which][rows], gates))
            return nn.functional.cross_entropy(scores, target[which][rows])

        return value

    # one real step, so that there are momentum buffers
    loss(0)(None).backward()
    sgd.step()
    sgd.zero_grad()
    logits.grad = None
    return Bilevel(
        train_loss=loss(0),
        val_loss=loss(1),
        weights=weights,
        logits={"logits": logits, "idle": idle},
        virtual_step=lambda grads: virtual_sgd(sgd, weights, grads),
        lr=0.3,
        **({} if average is None else {"average": average}),
    )


def test_finite_difference_tends_to_the_exact_gradient():
    problem = nonlinear()
    exact = Unrolled(exact=True)(problem)["logits"]
    first = FirstOrder()(problem)["logits"]
    errors = [(Unrolled(epsilon=e)(problem)["logits"] - exact).norm().item() for e in (1e-1, 1e-2, 1e-4)]
    assert (first - exact).norm() > 1e-3 * exact.norm(), "the implicit term must matter here"
    # a central difference: the error falls with the square of the step
    assert errors[1] < errors[0] / 50
    assert errors[2] < 1e-7 * exact.norm()


def test_exact_gradient_equals_a_difference_of_whole_virtual_steps():
    problem = nonlinear()
    logits = problem.logits["logits"]

    def after_step():
        grads = torch.autograd.grad(problem.train_loss(None), list(problem.weights.values()), allow_unused=True)
        known = {n: g for n, g in zip(problem.weights, grads, strict=True) if g is not None}
        return problem.val_loss(problem.virtual_step(known)).item()

    numeric = []
    for i in range(2):
        sides = []
        for sign in (1, -1):
            with torch.no_grad():
                logits[i] += sign * 1e-5
            sides.append(after_step())
            with torch.no_grad():
                logits[i] -= sign * 1e-5
        numeric.append((sides[0] - sides[1]) / 2e-5)
    assert Unrolled(exact=True)(problem)["logits"].tolist() == pytest.approx(numeric, rel=1e-6)


@pytest.mark.parametrize("update", [FirstOrder(), *UPDATES])
def test_nothing_is_changed_and_unused_logits_have_no_gradient(update):
    problem = nonlinear()
    before = {name: value.detach().clone() for name, value in problem.weights.items()}
    gradient = update(problem)
    assert gradient.keys() == {"logits"}
    assert all(torch.equal(value, problem.weights[name]) for name, value in before.items())
    assert all(value.grad is None for value in (*problem.weights.values(), *problem.logits.values()))
    assert not gradient["logits"].requires_grad


@pytest.mark.parametrize("update", [FirstOrder(), Unrolled(epsilon=1e-3), *UPDATES])
def test_two_processes_with_half_a_batch_each_equal_one(update):
    """The two ranks run in turn; what each hands to ``average`` is averaged once both are known."""
    whole = update(nonlinear())["logits"]
    halves = (slice(0, 6), slice(6, 12))
    means: list[list[torch.Tensor]] = []
    while True:
        handed = []

        class Waiting(Exception):
            pass

        results = []
        for rows in halves:
            calls = iter(range(100))

            def average(tensors, calls=calls, handed=handed):
                call = next(calls)
                if call < len(means):
                    return [tensor.clone() for tensor in means[call]]
                handed.append([tensor.clone() for tensor in tensors])
                raise Waiting

            problem = nonlinear(average=average, rows=rows)
            try:
                results.append(update(_with_state_of_whole(problem, average))["logits"])
            except Waiting:
                continue
        if results:
            break
        means.append([(a + b) / 2 for a, b in zip(*handed, strict=True)])
    assert len(means) == (1 if isinstance(update, FirstOrder) else 3)
    for result in results:
        assert torch.allclose(result, whole, rtol=1e-9, atol=1e-12)


def _with_state_of_whole(problem, average):
    """The half batch's losses, at the weights and momentum of the whole batch's problem."""
    whole = nonlinear()
    with torch.no_grad():
        for name, weight in problem.weights.items():
            weight.copy_(whole.weights[name])

    def virtual_step(grads):
        # the optimiser of ``whole`` holds its own, equal tensors and the momentum of the whole batch
        return whole.virtual_step(grads)

    return Bilevel(
        train_loss=problem.train_loss,
        val_loss=problem.val_loss,
        weights=problem.weights,
        logits=problem.logits,
        virtual_step=virtual_step,
        lr=problem.lr,
        average=average,
    )


def test_a_step_of_zero_is_refused():
    with pytest.raises(ValueError, match="epsilon=0"):
        Unrolled(epsilon=0)
