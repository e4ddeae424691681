import json
import math
import random
from collections import Counter

import pytest

from search.space import OneOf, Ordinal, SomeOf, Space
from search.strategies import Evolution, EvolutionTrials, Exhausted, RandomSearch
from search.strategies.evolution import mutation
from tests.search.strategies.spaces import digits, mixed, steps


def run(search, evaluations, score=steps):
    for _ in range(evaluations):
        architecture = search.ask()
        search.tell(architecture, score(architecture))
    return search


def value(architecture):
    """No two of the same score."""
    return float(sum(digit * 4**i for i, digit in enumerate(architecture.values())))


def test_before_there_is_a_population_it_is_random_search():
    space = digits()
    search, random_search = Evolution(space, 3, population=7, sample=3), RandomSearch(space, 3)
    assert [run(search, 1).history[-1].architecture for _ in range(7)] == [random_search.ask() for _ in range(7)]
    assert search.ask() != random_search.ask()


def test_a_child_is_one_step_from_the_tournaments_winner_and_the_oldest_leaves():
    """With a sample far above the population every tournament has its best in it (but once in 1e20)."""
    space = digits(length=12)
    search = run(Evolution(space, 0, population=5, sample=200), 5, score=value)
    for number in range(60):
        population = [trial.architecture for trial in search.history[-5:]]
        assert [trial.architecture for trial in search.population] == population
        best = max(search.history[-5:], key=lambda trial: trial.score).architecture
        child = search.ask()
        assert len([name for name in best if best[name] != child[name]]) == 1
        # the oldest may be the best of all, and leaves all the same
        search.tell(child, 1e9 if number == 0 else value(child))
    assert search.best.score == 1e9 and all(trial.score < 1e9 for trial in search.population)


def test_tournaments_draw_with_replacement():
    """Of 2 with a sample of 2, the worse is the parent in a quarter of the tournaments."""
    space = digits(length=1, base=1000)
    worse = 0
    for seed in range(2000):
        # of 1000 options any is a step away, so parents are told by another choice: watch the draw itself
        search = Evolution(space, seed, population=2, sample=2)
        first, second = search.ask(), search.ask()
        search.tell(first, 1.0)
        search.tell(second, 0.0)
        drawn = search._rng.choices(search.population, k=search.sample)
        worse += max(drawn, key=lambda trial: trial.score).score == 0.0
    assert abs(worse / 2000 - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 2000)


def test_a_mutations_choice_is_uniform_and_then_its_step():
    space = Space(
        "three",
        [
            OneOf("op", tuple(range(9))),
            Ordinal("width", (1, 2, 3)),
            SomeOf("inputs", ("a", "b", "c", "d"), k=2),
            OneOf("fixed", (0,)),
        ],
    )
    parent, rng, n = space.canonical({"op": 0, "width": 1, "inputs": ("a", "b"), "fixed": 0}), random.Random(0), 4000
    children = Counter(mutation(space, parent, rng) for _ in range(n))
    changed = Counter()
    for child, count in children.items():
        (name,) = [name for name in parent if child[name] != parent[name]]
        changed[name] += count
    # 8 operations, 1 width, 4 exchanged inputs
    assert len(children) == 8 + 1 + 4
    for name in ("op", "width", "inputs"):
        assert abs(changed[name] / n - 1 / 3) < 4 * math.sqrt(2 / 9 / n)


def test_mutations_of_conditional_choices_are_architectures():
    space, rng = mixed(), random.Random(0)
    for _ in range(300):
        parent = space.sample(rng)
        child = mutation(space, parent, rng)
        assert space.contains(child) and child != parent
    assert mutation(Space("one", [OneOf("a", (1,))]), {"a": 1}, rng) is None


def test_nothing_is_asked_for_twice_until_all_were():
    space = Space("small", [OneOf("a", (0, 1, 2)), OneOf("b", (0, 1), when=(("a", 0),)), Ordinal("c", (1, 2, 3))])
    search = Evolution(space, 1, population=3, sample=2)
    run(search, space.size, score=lambda a: float(a["c"]))
    assert {trial.architecture for trial in search.history} == set(space.enumerate())
    with pytest.raises(Exhausted):
        search.ask()


def test_what_has_no_score_is_never_a_parent():
    space = digits(length=12)
    search = run(Evolution(space, 0, population=3, sample=50), 3, score=lambda a: math.nan)
    assert search.population == [] and search.best is None
    run(search, 3, score=value)
    kept = search.population
    run(search, 10, score=lambda a: math.nan)
    assert search.population == kept and len(search.history) == 16
    best = search.best.architecture
    assert all(sum(t.architecture[d] != best[d] for d in best) == 1 for t in search.history[6:])


def test_goes_on_from_its_state_as_if_never_stopped():
    space = mixed()

    def score(a):
        return a["width"] + 10.0 * len(a["inputs"])

    whole, first = (run(Evolution(space, 5, population=4, sample=3), 9, score) for _ in range(2))
    pending = [search.ask() for search in (whole, first)]
    second = Evolution(space, 99, population=4, sample=3)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert second.history == whole.history and second.best == whole.best
    for search in (whole, second):
        search.tell(pending[0], 1.0)
        run(search, 30, score)
    assert second.history == whole.history and second.state_dict() == whole.state_dict()


def test_depends_on_its_own_seed_only():
    before = random.getstate()
    a, b = (run(Evolution(digits(), 1, population=4, sample=2), 30).history for _ in range(2))
    assert a == b != run(Evolution(digits(), 2, population=4, sample=2), 30).history
    assert random.getstate() == before


def test_finds_what_random_search_doesnt():
    """One of 4096 has all digits right: 250 draws find it in one seed of sixteen."""
    evolved = [run(Evolution(digits(), seed, population=20, sample=5), 250).best.score for seed in range(10)]
    chance = [run(RandomSearch(digits(), seed), 250).best.score for seed in range(10)]
    assert evolved.count(6.0) >= 7 and chance.count(6.0) <= 2


def test_mistakes_are_one_sentence():
    with pytest.raises(ValueError, match="population=0: give a number of architectures"):
        Evolution(digits(), 0, population=0)
    with pytest.raises(ValueError, match="sample=True"):
        EvolutionTrials(trials=9, population=3, sample=True)
    with pytest.raises(ValueError, match="population=100 with trials=100 is random search: give fewer than 100"):
        EvolutionTrials(trials=100)
    with pytest.raises(ValueError, match="at_once=0"):
        EvolutionTrials(trials=200, at_once=0)
    search = Evolution(digits(), 0)
    with pytest.raises(ValueError, match="of another space"):
        search.load_state_dict(Evolution(mixed(), 0).state_dict())
    with pytest.raises(ValueError, match="population=9, sample=25, not of population=100, sample=25"):
        search.load_state_dict(Evolution(digits(), 0, population=9).state_dict())
    with pytest.raises(ValueError):
        search.tell(Evolution(mixed(), 0).ask(), 1.0)


def test_as_a_config_names_it():
    strategy = EvolutionTrials(trials=30, population=8, sample=3, at_once=4)
    assert (strategy.trials, strategy.at_once, strategy.name) == (30, 4, "regularised evolution")
    sampler = strategy.sampler(digits(), 7)
    assert (sampler.size, sampler.sample, sampler.seed) == (8, 3, 7)
