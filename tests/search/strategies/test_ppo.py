import io
import math
from collections import Counter

import pytest
import torch

from search.space import OneOf, Order, SomeOf, Space, Walk
from search.strategies import PPO, Exhausted, PPOTrials, RandomSearch
from search.strategies.controller import Controller
from search.strategies.decisions import Decisions
from tests.search.strategies.spaces import digits, mixed, steps

SMALL = dict(hidden=16, batch=5, lr=0.01)


def controller(space, seed=0, spread=1.0):
    """One that has learned something, or might have."""
    made = Controller(space, 12, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(10 * spread)
    return made


def run(search, evaluations, score=steps):
    for _ in range(evaluations):
        architecture = search.ask()
        search.tell(architecture, score(architecture))
    return search


def test_every_architecture_is_one_sequence_of_decisions():
    space = mixed()
    decisions, met = Decisions(space), set()
    for architecture in space.enumerate():
        taken = decisions.of(architecture)
        maker = decisions.make()
        try:
            asked = next(maker)
            for decision, index in taken:
                assert asked == decision
                asked = maker.send(index)
            raise AssertionError("more decisions than it has")
        except StopIteration as end:
            assert end.value == architecture
        assert all(decision.ways[index] > 0 for decision, index in taken)
        met.add(tuple(taken))
    assert len(met) == space.size


@pytest.mark.parametrize(
    "choice",
    [
        SomeOf("c", ("a", "b", "c", "d", "e"), k=(1, 3)),
        SomeOf("c", ("a", "b", "c"), k=0),
        Order("c", (1, 2, 3, 4)),
        Walk("c", 5, {"x": ("x", "y"), "y": ("x", "z"), "z": ("end",), "end": ()}, start=("x", "y")),
        OneOf("c", ("a", "b", "none"), relax_only=("none",)),
    ],
)
def test_ways_count_the_values_that_go_on_with_a_token(choice):
    """By counting them one by one; so an untrained controller whose head is silent draws a choice's values evenly."""
    space = Space("one", [choice])
    decisions, prefixes = Decisions(space), Counter()
    for architecture in space.enumerate():
        path = ()
        for decision, index in decisions.of(architecture):
            path = (*path, (decision.first, index))
            prefixes[path] += 1
    for architecture in space.enumerate():
        path = ()
        for decision, index in decisions.of(architecture):
            for other, ways in enumerate(decision.ways):
                assert prefixes[(*path, (decision.first, other))] == ways
            path = (*path, (decision.first, index))
    silent = controller(space, spread=0.0)
    log_probs = silent(list(space.enumerate()))[0].sum(1)
    assert torch.allclose(log_probs, torch.full_like(log_probs, -math.log(space.size)), atol=1e-12)


def test_probabilities_of_all_architectures_sum_to_one():
    space = mixed()
    made = controller(space)
    with torch.no_grad():
        log_probs, entropies = made(list(space.enumerate()))
    probabilities = log_probs.sum(1).exp()
    assert float(probabilities.sum()) == pytest.approx(1, abs=1e-12)
    assert float(probabilities.max()) > 5 * float(probabilities.min())
    # the chain rule: the decisions' entropies, expected along the way, are the distribution's
    expected = float((probabilities * entropies.sum(1)).sum())
    assert expected == pytest.approx(-float((probabilities * log_probs.sum(1)).sum()), abs=1e-10)


def test_what_is_drawn_has_the_recomputed_probability_and_frequency():
    space = Space(
        "small", [OneOf("op", ("a", "b")), SomeOf("in", (1, 2, 3), k=(1, 2), when=(("op", "a"),)), Order("o", (1, 2))]
    )
    made, generator = controller(space), torch.Generator().manual_seed(1)
    everything = list(space.enumerate())
    probabilities = made(everything)[0].sum(1).exp()
    drawn = made.sample(generator, 2500) + [made.sample(generator)[0] for _ in range(500)]
    again = made([one.architecture for one in drawn])[0]
    for row, one in zip(again.tolist(), drawn, strict=True):
        assert row[: len(one.log_probs)] == pytest.approx(one.log_probs, abs=1e-12)
        assert all(rest == 0 for rest in row[len(one.log_probs) :])
    counts = Counter(one.architecture for one in drawn)
    chi2 = sum(
        (counts[a] - 3000 * p) ** 2 / (3000 * p) for a, p in zip(everything, probabilities.tolist(), strict=True) if p > 1e-3
    )
    # far beyond 99.9 % of a chi-square of at most 13 degrees of freedom
    assert len(everything) == 14 and chi2 < 40


def test_only_architectures_of_the_space_are_emitted():
    space = mixed()
    for seed in range(5):
        made, generator = controller(space, seed), torch.Generator().manual_seed(seed)
        assert all(space.contains(drawn.architecture) for drawn in made.sample(generator, 100))


def test_an_update_is_the_clipped_objective():
    """Against the formula, decision by decision, with gradients by finite differences of it."""
    space = digits(length=2, base=2)
    search = PPO(space, 0, hidden=3, batch=3, epochs=1, lr=0.05, clip=0.1, entropy=0.3)
    drawn = search.controller.sample(search._generator, 3)
    scores, old = [1.0, 2.0, 6.0], [list(one.log_probs) for one in drawn]
    # an older policy, so that some ratios are beyond the clip
    old = [[value + shift for value in row] for row, shift in zip(old, (0.3, -0.05, -0.4), strict=True)]
    spread = math.sqrt(sum((s - 3) ** 2 for s in scores) / 3)

    def objective():
        log_probs, entropies = search.controller([one.architecture for one in drawn])
        total = 0.0
        for b, score in enumerate(scores):
            advantage = (score - 3) / spread
            for t in range(2):
                ratio = math.exp(float(log_probs[b, t]) - old[b][t])
                gain = min(ratio * advantage, min(max(ratio, 0.9), 1.1) * advantage)
                total += gain + 0.3 * float(entropies[b, t])
        return total / 3

    parameter = search.controller.head.bias
    expected = []
    with torch.no_grad():
        for i in range(len(parameter)):
            values = []
            for change in (1e-6, -2e-6):
                parameter[i] += change
                values.append(objective())
            parameter[i] += 1e-6
            expected.append((values[0] - values[1]) / 2e-6)
    search._learned = [(one._replace(log_probs=tuple(row)), s) for one, row, s in zip(drawn, old, scores, strict=True)]
    search._update()
    assert [-float(g) for g in parameter.grad] == pytest.approx(expected, abs=1e-6)
    assert max(map(abs, expected)) > 0.01
    assert search._baseline == pytest.approx(3.0)


def test_the_baseline_takes_scores_up_after_they_were_used():
    search = run(PPO(digits(), 0, hidden=4, batch=2, decay=0.75), 2, score=lambda a: 4.0)
    assert search._baseline == 4.0
    run(search, 2, score=lambda a: 8.0)
    assert search._baseline == 0.75 * 4 + 0.25 * 8


def test_nothing_is_asked_for_twice_until_all_were():
    space = Space("small", [OneOf("a", (0, 1, 2)), OneOf("b", (0, 1), when=(("a", 0),)), SomeOf("c", (1, 2, 3), k=2)])
    search = run(PPO(space, 1, hidden=8, batch=3, lr=0.1), space.size, score=lambda a: float(a["a"]))
    assert {trial.architecture for trial in search.history} == set(space.enumerate())
    with pytest.raises(Exhausted):
        search.ask()


def test_what_has_no_score_isnt_learned_from():
    search = PPO(digits(), 0, **SMALL)
    before = {name: value.clone() for name, value in search.controller.state_dict().items()}
    run(search, 20, score=lambda a: math.nan)
    assert all(torch.equal(value, before[name]) for name, value in search.controller.state_dict().items())
    assert len(search.history) == 20 and search.best is None
    run(search, 4)
    assert all(torch.equal(value, before[name]) for name, value in search.controller.state_dict().items())
    run(search, 1)
    assert not torch.equal(search.controller.head.weight, before["head.weight"])


def test_goes_on_from_its_state_as_if_never_stopped():
    """In the middle of a batch, with architectures asked for and not told; the file is read without running code."""
    space = mixed()

    def score(a):
        return a["width"] + 10.0 * len(a["inputs"])

    whole, first = (run(PPO(space, 5, **SMALL), 13, score) for _ in range(2))
    pending = [[search.ask() for _ in range(3)] for search in (whole, first)]
    assert pending[0] == pending[1]
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    run(first, 10, score)
    file.seek(0)
    second = PPO(space, 99, **SMALL)
    second.load_state_dict(torch.load(file, weights_only=True))
    for search in (whole, second):
        for architecture in pending[0]:
            search.tell(architecture, score(architecture))
        run(search, 20, score)
    assert second.history == whole.history and second.best == whole.best
    states = [search.controller.state_dict() for search in (whole, second)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_depends_on_its_own_seed_only():
    before = torch.get_rng_state()
    a, b = (run(PPO(digits(), 1, **SMALL), 20).history for _ in range(2))
    assert a == b != run(PPO(digits(), 2, **SMALL), 20).history
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.slow
def test_finds_what_random_search_doesnt():
    """A digit's worth depends on the one before, which a controller without memory couldn't use."""
    settings = dict(hidden=32, batch=10, lr=0.01, entropy=0.01)
    searches = [run(PPO(digits(), seed, **settings), 200) for seed in range(3)]
    chance = [run(RandomSearch(digits(), seed), 200).best.score for seed in range(3)]
    assert sum(search.best.score for search in searches) > sum(chance)
    # and it comes to prefer what is right
    for search in searches:
        assert sum(t.score for t in search.history[-50:]) > 1.5 * sum(t.score for t in search.history[:50])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (dict(hidden=0), "hidden=0: give a whole number, 1 or more"),
        (dict(lr=0), "lr=0: give a number above 0"),
        (dict(clip="x"), "clip='x': give a number"),
        (dict(entropy=-1.0), "entropy=-1.0: give a weight of 0 or more"),
        (dict(decay=1.0), "decay=1.0: give the share of the old baseline"),
        (dict(trials=20), "batch=20 with trials=20 never uses what is learned"),
        (dict(at_once=0), "at_once=0"),
    ],
)
def test_mistakes_are_one_sentence(change, says):
    with pytest.raises(ValueError, match=says):
        PPOTrials(**{"trials": 100, **change})


def test_refuses_foreign_states():
    search = PPO(digits(), 0, **SMALL)
    with pytest.raises(ValueError, match="of another space"):
        search.load_state_dict(PPO(mixed(), 0, **SMALL).state_dict())
    with pytest.raises(ValueError, match=r"is of lr=0\.02, not of lr=0\.01"):
        search.load_state_dict(PPO(digits(), 0, **{**SMALL, "lr": 0.02}).state_dict())


def test_as_a_config_names_it():
    assert PPOTrials(trials=100).at_once == 20 and PPOTrials(trials=100, at_once=4).at_once == 4
    sampler = PPOTrials(trials=100, hidden=7, lr=0.1, batch=9).sampler(digits(), 3)
    assert sampler.settings["hidden"] == 7 and sampler.controller.lstm.hidden_size == 7 and sampler.batch == 9
