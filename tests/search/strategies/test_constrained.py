"""Constrained decoding against brute force over all architectures."""

import math

import pytest

from search.space import OneOf, Order, Ordinal, SomeOf, TopInputs, Walk
from search.strategies.constrained import cheapest, likeliest
from search.supernet import ArchParams
from tests.search.cost.toys import BUILDS, learned


@pytest.fixture(scope="module", params=BUILDS)
def cost(request):
    return learned(BUILDS[request.param], quiet=10)


def probabilities(space, seed, edges=True):
    return ArchParams(space, edge_logits=edges, std=1.0, seed=seed).double().probabilities()


def score(space, architecture, probs, subsets):
    """log of what free decoding maximises, choice by choice; of subsets with what is on their edges."""
    total = 0.0
    for name, value in architecture.items():
        choice, row = space[name], probs.get(name)
        if isinstance(choice, OneOf | Ordinal):
            # relative to the best, so that having more active choices costs nothing
            total += math.log(row[choice.options.index(value)])
            total -= math.log(max(p for o, p in zip(choice.options, row, strict=True) if choice.contains(o)))
        elif isinstance(choice, Order):
            total += math.log(row[choice.arrangements.index(value)] / max(row))
        elif isinstance(choice, Walk):
            total += sum(math.log(row[choice.transitions[i]]) for i in choice.transitions_of(value))
        else:
            assert isinstance(choice, SomeOf)
            total += sum(math.log(subsets(choice, i)) for i in value)
    return total


def strength(space, probs):
    def of(choice, option):
        children = [c for c in space if (choice.name, option) in c.when]
        best = max(p for c in children for o, p in zip(c.options, probs[c.name], strict=True) if c.contains(o))
        return best * (probs[choice.name][choice.options.index(option)] if choice.name in probs else 1.0)

    return of


@pytest.mark.parametrize("seed", [0, 1])
def test_the_likeliest_within_limits_is_that_of_brute_force(cost, seed):
    space, probs = cost.space, probabilities(cost.space, seed, edges=seed == 0)
    every = [(cost.of(a), score(space, a, probs, strength(space, probs)), a) for a in space.enumerate()]
    best = max(s for _, s, _ in every)
    decode = TopInputs()
    penalties = decode.penalties(space, probs)
    free = likeliest(cost, penalties, {})
    assert free.architecture == decode(space, probs) and free.nats == pytest.approx(0, abs=1e-6) and free.proven
    for metrics in (("macs",), ("params",), ("macs", "params")):
        for share in (0.0, 0.15, 0.5):
            limits = {}
            for metric in metrics:
                values = sorted(c[metric] for c, _, _ in every)
                limits[metric] = values[int(share * (len(values) - 1))]
            fitting = [(s, a) for c, s, a in every if all(c[m] <= limit for m, limit in limits.items())]
            found = likeliest(cost, penalties, limits)
            if not fitting:
                assert found is None
                continue
            assert space.contains(found.architecture) and found.proven
            assert all(cost.of(found.architecture)[m] <= limit for m, limit in limits.items())
            assert found.nats == pytest.approx(best - max(s for s, _ in fitting), abs=2e-6)
            assert score(space, found.architecture, probs, strength(space, probs)) == pytest.approx(best - found.nats, abs=2e-6)


def test_the_cheapest_is_that_of_brute_force(cost):
    every = [cost.of(a) for a in cost.space.enumerate()]
    for metric in cost.metrics:
        smallest = min(c[metric] for c in every)
        assert cost.of(cheapest(cost, metric, {}).architecture)[metric] == smallest
        assert likeliest(cost, TopInputs().penalties(cost.space, probabilities(cost.space, 0)), {metric: smallest - 1}) is None
        # exactly as much as the cheapest costs
        assert likeliest(cost, TopInputs().penalties(cost.space, probabilities(cost.space, 0)), {metric: smallest}) is not None
    other = min((c for c in every if c["macs"] == min(c["macs"] for c in every)), key=lambda c: c["params"])
    assert cost.of(cheapest(cost, "params", {"macs": other["macs"]}).architecture) == other
