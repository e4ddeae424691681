import pytest
from torch import nn

from backbones import CellNet
from search.engine.errors import UserError
from search.engine.execution import settle_plans
from search.supernet import ArchParams, MixedDag, Relax, building, record


def supernet(plan, memory="fast"):
    def build():
        return CellNet(channels=4, layers=3, affine=False, plan=plan, memory=memory)

    with building(Relax(ArchParams(record(build).space))):
        return build()


def plans(model):
    return {graph.plan for graph in model.modules() if isinstance(graph, MixedDag)}


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr("search.engine.execution.print_log", lambda message, **_: lines.append(message))
    return lines


def test_auto_says_once_what_it_takes_and_why(said):
    settle_plans(supernet("auto").cpu(), differentiates_twice=False)
    assert said == ["Supernet: plan='auto' is 'batched': the Triton kernels need CUDA, and the supernet is on cpu."]


def test_exact_second_order_takes_the_reference(said):
    model = supernet("auto")
    settle_plans(model, differentiates_twice=True)
    assert plans(model) == {"reference"} and "differentiates twice" in said[0]
    with pytest.raises(UserError, match="plan='batched' can't be differentiated twice"):
        settle_plans(supernet("batched"), differentiates_twice=True)
    with pytest.raises(UserError, match=r"memory='small' can't be had with strategy\.exact=True.*: leave memory out, or"):
        settle_plans(supernet("auto", "small"), differentiates_twice=True)
    settle_plans(supernet("auto", "small"), differentiates_twice=False)


def test_what_the_config_names_is_left_alone(said):
    for plan in ("reference", "batched"):
        model = supernet(plan)
        settle_plans(model, differentiates_twice=False)
        assert plans(model) == {plan} and not said
    settle_plans(nn.Linear(2, 2), differentiates_twice=True)
