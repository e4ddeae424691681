"""Random small nested spaces, and an enumeration of them that shares no code with the counting."""

import itertools

import pytest
from hypothesis import strategies as st

from search.space import OneOf, Order, Ordinal, SomeOf, Space, Walk


@st.composite
def _choices(draw, name, earlier):
    pairs = [
        (parent.name, token)
        for parent in earlier
        for token in (
            [(layer, state) for layer in range(parent.layers) for state in parent.states]
            if isinstance(parent, Walk)
            else list(itertools.product(range(len(parent.items)), parent.items))
            if isinstance(parent, Order)
            else parent.options
        )
    ]
    when = tuple(draw(st.lists(st.sampled_from(pairs), max_size=3, unique=True))) if pairs else ()
    kind = draw(st.sampled_from(["one", "some", "ordinal", "order", "walk"]))
    n = draw(st.integers(1, 3))
    if kind == "one":
        return OneOf(name, tuple("abcd"[: n + 1]), when=when, relax_only=draw(st.sampled_from([(), ("a",)])))
    if kind == "some":
        fewest = draw(st.integers(0, n))
        k = draw(st.sampled_from([fewest, (fewest, n)]))
        return SomeOf(name, (0, "x", 0.5)[:n], k, when=when)
    if kind == "ordinal":
        return Ordinal(name, (16, 32, 64)[:n], when=when)
    if kind == "order":
        return Order(name, ("p", "q", "r")[:n], when=when)
    moves = {4: (4, 8), 8: (4,), 16: ()} if draw(st.booleans()) else {4: (8, 16), 8: (4, 8), 16: (16,)}
    return Walk(name, n, moves, draw(st.sampled_from([(4,), (8, 4)])), when=when)


@st.composite
def _spaces(draw, most=5):
    choices = []
    # names are not in the order of the choices, so that nothing may depend on their being so
    for name in draw(st.permutations("vwxyz"))[: draw(st.integers(0, most))]:
        choices.append(draw(_choices(name, choices)))
    return Space("small", choices)


def _values(choice):
    """Every value of a choice, by filtering products."""
    if isinstance(choice, OneOf):
        return [o for o in choice.options if o not in choice.relax_only]
    if isinstance(choice, Ordinal):
        return list(choice.options)
    if isinstance(choice, SomeOf):
        low, high = (choice.k, choice.k) if isinstance(choice.k, int) else choice.k
        sizes = range(low, high + 1)
        return [v for k in sizes for v in itertools.combinations(choice.options, k)]
    if isinstance(choice, Order):
        return list(itertools.permutations(choice.items))
    following = dict(choice.moves)
    return [
        path
        for path in itertools.product(following, repeat=choice.layers)
        if path[0] in choice.start and all(b in following[a] for a, b in itertools.pairwise(path))
    ]


def _holds(space, found, parent, token):
    if parent not in found:
        return False
    if isinstance(space[parent], Walk | Order):
        return found[parent][token[0]] == token[1]
    return token in found[parent] if isinstance(space[parent], SomeOf) else found[parent] == token


def _brute_force(space, limit=20_000):
    """Every architecture as a dict; None where there are more than `limit`."""
    found = [{}]
    for choice in space:
        grown = []
        for arch in found:
            if choice.when and not any(_holds(space, arch, *pair) for pair in choice.when):
                grown.append(arch)
            else:
                grown += [{**arch, choice.name: value} for value in _values(choice)]
            if len(grown) > limit:
                return None
        found = grown
    return found


@pytest.fixture(scope="session")
def small_spaces():
    return _spaces()


@pytest.fixture(scope="session")
def brute_force():
    return _brute_force


def darts_cells(cells=("normal", "reduce"), nodes=4):
    ops = ("none", "max_pool_3x3", "avg_pool_3x3", "skip_connect", "sep_3", "sep_5", "dil_3", "dil_5")
    choices = []
    for cell in cells:
        for n in range(2, 2 + nodes):
            choices.append(SomeOf(f"{cell}/n{n}/inputs", tuple(range(n)), 2))
            choices += [
                OneOf(f"{cell}/n{n}<-{i}", ops, when=((f"{cell}/n{n}/inputs", i),), relax_only=("none",)) for i in range(n)
            ]
    return Space("cells", choices)


@pytest.fixture(scope="session")
def darts():
    """The space of both DARTS cells."""
    return darts_cells()
