"""Costs of every architecture and their mean, against counting whole networks and against brute force over small spaces."""

import itertools
import math
import random

import pytest
import torch

from search.cost.expected import ExpectedCost
from search.cost.operations import cost_of
from search.space import OneOf, Order, Ordinal, SomeOf, TopInputs, Walk
from search.supernet import ArchParams, Softmax
from tests.search.cost.toys import BUILDS, SIZE, learned


@pytest.fixture(scope="module", params=BUILDS)
def known(request):
    build = BUILDS[request.param]
    return build, learned(build, quiet=10)


def probability(space, architecture, weights):
    """Of an architecture under what the gates say, written down for each kind of choice."""
    p = 1.0
    for name, value in architecture.items():
        choice, row = space[name], weights.get(name)
        if isinstance(choice, OneOf | Ordinal):
            shares = {o: w for o, w in zip(choice.options, row.tolist(), strict=True) if choice.contains(o)}
            p *= shares[value] / sum(shares.values())
        elif isinstance(choice, Order):
            p *= row[choice.arrangements.index(value)].item()
        elif isinstance(choice, Walk):
            p *= math.prod(row[i].item() for i in choice.transitions_of(value))
        else:
            strength = []
            for i, option in enumerate(choice.options):
                children = [c for c in space if (name, option) in c.when]
                rows = [zip(c.options, weights[c.name].tolist(), strict=True) for c in children]
                best = max(w for c, row_ in zip(children, rows, strict=True) for o, w in row_ if c.contains(o))
                strength.append(best * (1.0 if row is None else row[i].item()))
            drawn = 0.0
            for order in itertools.permutations(value):
                left, q = sum(strength), 1.0
                for one in order:
                    s = strength[choice.options.index(one)]
                    q, left = q * s / left, left - s
                drawn += q
            p *= drawn
    return p


def weights_of(space, scale, seed=0, edges=True):
    params = ArchParams(space, edge_logits=edges, std=scale, seed=seed).double()
    return {name: w for name, (w, _) in Softmax()(space, params.logits).items()}


def test_every_architecture_costs_what_is_counted(known):
    build, cost = known
    rng = random.Random(7)
    assert cost.exact and not any(any(errors) for errors in cost.errors.values())
    for architecture in [cost.space.sample(rng) for _ in range(12)]:
        counted = cost_of(build, architecture, SIZE)
        assert cost.of(architecture) == {m: getattr(counted, m) for m in ("macs", "params", "activations")}


@pytest.mark.parametrize("edges", [True, False])
def test_the_expected_cost_is_the_mean_over_all_architectures(known, edges):
    _, cost = known
    space = cost.space
    weights = weights_of(space, 1.0, edges=edges)
    expected = ExpectedCost(cost)(weights)
    total, mean = 0.0, dict.fromkeys(cost.metrics, 0.0)
    for architecture in space.enumerate() if space.size < 20000 else ():
        p = probability(space, architecture, weights)
        total += p
        for metric, value in cost.of(architecture).items():
            mean[metric] += p * value
    assert space.size < 20000 and total == pytest.approx(1)
    for metric in cost.metrics:
        assert expected[metric].item() == pytest.approx(mean[metric], rel=1e-9)


@pytest.mark.parametrize("seed", [0, 1])
def test_certain_gates_expect_what_they_decode_to(known, seed):
    """Logits far apart: of each choice one option is left, of each node as many inputs as it keeps."""
    _, cost = known
    space = cost.space
    params = ArchParams(space, edge_logits=True, std=1.0, seed=seed).double()
    with torch.no_grad():
        for name, logit in params.logits.items():
            logit.copy_(200.0 * logit.argsort().argsort())
            for option in getattr(space[name], "relax_only", ()):
                logit[space[name].options.index(option)] = -200.0
    weights = {name: w for name, (w, _) in Softmax()(space, params.logits).items()}
    # of a subset the weights of all but the first are 0: the second is as strong as what is left makes it
    for choice in space:
        if isinstance(choice, SomeOf):
            weights[choice.name] = torch.softmax(params.logits[choice.name] / 20, 0)
    probs = {name: p if isinstance(p, dict) else weights[name].tolist() for name, p in params.probabilities().items()}
    expected, decoded = ExpectedCost(cost)(weights), cost.of(TopInputs()(space, probs))
    assert {metric: value.item() for metric, value in expected.items()} == pytest.approx(decoded, rel=1e-3)


def test_the_gradient_is_that_of_finite_differences(known):
    _, cost = known
    params = ArchParams(cost.space, edge_logits=True, std=1.0, seed=3).double()
    expected = ExpectedCost(cost)

    def mean():
        return expected({name: w for name, (w, _) in Softmax()(cost.space, params.logits).items()})["macs"]

    logits = params.logits
    exact = dict(zip(logits, torch.autograd.grad(mean(), list(logits.values()), allow_unused=True), strict=True))
    for name, logit in logits.items():
        for i in range(len(logit)):
            with torch.no_grad():
                logit[i] += 1e-5
                above = mean()
                logit[i] -= 2e-5
                below = mean()
                logit[i] += 1e-5
            slope = (above - below).item() / 2e-5
            assert slope == pytest.approx(0.0 if exact[name] is None else exact[name][i].item(), abs=1e-3 * mean().item())
