import pytest
import torch

from search.space import OneOf, SomeOf, Space
from search.strategies import DARTS, PCDARTS, FirstOrder, Unrolled

OPS = ("none", "skip_connect", "conv")


def cell():
    """Two nodes; the second keeps 2 of 3 inputs."""
    choices = [SomeOf("normal/n2/inputs", (0, 1), k=2)]
    choices += [OneOf(f"normal/n2<-{i}", OPS, when=(("normal/n2/inputs", i),), relax_only=("none",)) for i in (0, 1)]
    choices += [SomeOf("normal/n3/inputs", (0, 1, 2), k=2)]
    choices += [OneOf(f"normal/n3<-{i}", OPS, when=(("normal/n3/inputs", i),), relax_only=("none",)) for i in (0, 1, 2)]
    return Space("cell", choices)


def logits(edges):
    torch.manual_seed(0)
    values = {f"normal/n2<-{i}": torch.zeros(3) for i in (0, 1)}
    # the convolution is stronger towards higher inputs, while "none" is the strongest of all
    values |= {f"normal/n3<-{i}": torch.tensor([3.0, 0.0, float(i)]) for i in (0, 1, 2)}
    if edges:
        values["normal/n2/inputs"] = torch.zeros(2)
        values["normal/n3/inputs"] = torch.tensor([5.0, 0.0, 5.0])
    return values


def decoded(strategy):
    space = cell()
    gated = strategy.gate(space, logits(strategy.edge_logits))
    return strategy.decode(space, {name: values.tolist() for name, (values, _) in gated.items()})


def test_darts_keeps_the_strongest_operations_inputs():
    architecture = decoded(DARTS())
    assert architecture["normal/n3/inputs"] == (1, 2)
    assert architecture["normal/n3<-2"] == "conv"
    # equal operations: the first one that can be chosen
    assert architecture["normal/n2<-0"] == "skip_connect"


def test_pc_darts_weighs_them_by_the_edge():
    strategy = PCDARTS()
    assert strategy.edge_logits and not DARTS().edge_logits
    assert decoded(strategy)["normal/n3/inputs"] == (0, 2)


def test_orders_and_warm_up():
    assert DARTS().update == FirstOrder()
    assert DARTS(order=2).update == Unrolled(epsilon=0.01)
    assert DARTS(order=2, exact=True, epsilon=0.5).update == Unrolled(epsilon=0.5, exact=True)
    assert (DARTS().freeze_epochs, PCDARTS().freeze_epochs, PCDARTS(freeze_epochs=3).freeze_epochs) == (
        0,
        15,
        3,
    )
    assert DARTS(order=2).name != DARTS().name


def test_skip_limit_reaches_the_decoder():
    space = cell()
    gated = DARTS().gate(space, {name: torch.tensor([0.0, 1.0, 0.5]) for name in logits(False)})
    probs = {name: values.tolist() for name, (values, _) in gated.items()}

    def skips(limit):
        architecture = DARTS(skip_limit=limit).decode(space, probs)
        return sum(value == "skip_connect" for value in architecture.values())

    assert [skips(None), skips(2), skips(0)] == [4, 2, 0]


@pytest.mark.parametrize(
    "options, word",
    [
        (dict(order=3), "order=3"),
        (dict(exact=True), "order=2"),
        (dict(epsilon=0.1), "order=2"),
        (dict(order=2, epsilon=0.0), "epsilon=0.0"),
        (dict(freeze_epochs=-1), "freeze_epochs=-1"),
    ],
)
def test_options_without_effect_are_refused(options, word):
    for strategy in (DARTS, PCDARTS):
        with pytest.raises(ValueError, match=word):
            strategy(**options)
