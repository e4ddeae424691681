"""A budget in whole searches: what is decoded is within it, or the search says so before its first step."""

import json
import signal

import pytest
import torch

from search import report
from search.cost.latency import Timing
from search.cost.latency_table import measure_table, save
from search.cost.operations import cost_of, survey
from search.engine import UserError, comparison, search, train
from search.engine.budget import Budget, budget_of, settings_of
from search.engine.budgeted_search import BudgetedSearch
from search.engine.errors import BudgetError
from search.engine.networks import networks_of
from search.report.budget import section
from search.space import TopInputs
from search.strategies import DARTS, PCDARTS, RandomSearch
from search.strategies.gradient import GradientStrategy
from search.strategies.within import NothingWithin, Within, architectures_within
from search.supernet import ArchParams, record
from tests.search.engine import tiny

SIZE = (3, 6, 6)
# stem and classifier of the tiny network, which every architecture has, and one convolution
FIXED = {"macs": 36 * 27 * 4 + 8 * 3, "params": 27 * 4 + 2 * 4 + 8 * 3 + 3, "activations": 36 * 4 + 3}
CONV = {"macs": 36 * 9 * 16, "params": 9 * 16 + 2 * 4, "activations": 36 * 4}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(report, "write", lambda work_dir: None)
    yield
    torch.set_num_threads(threads)


def tiny_networks(**model):
    return networks_of({"type": "search.TinyNet", **model})


def prepared(limits, strategy=None, networks=None, **settings):
    networks = networks or tiny_networks()
    spaces = record(networks).parts
    strategy = strategy or PCDARTS(freeze_epochs=0)
    params = ArchParams(spaces["backbone"], edge_logits=strategy.edge_logits, std=1.0).double()
    budget = Budget(settings_of({**limits, **settings}), networks, spaces, SIZE)
    return BudgetedSearch.prepared(budget, strategy, params.space, params.probabilities(), 0), params


def certain(space, params, chosen):
    """Logits that decode to these operations, from the first inputs."""
    with torch.no_grad():
        for name, logit in params.logits.items():
            options = space[name].options
            wanted = chosen if name not in ("normal/n2/inputs", "normal/n3/inputs") else 0
            logit.copy_(torch.tensor([3.0 if option == wanted else 0.0 for option in options]))


def lines(folder):
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "limits nothing"),
        ({"macs": -3}, "budget.macs=-3 must be a number above 0"),
        ({"params": 0}, "budget.params=0"),
        ({"macs": True}, "budget.macs=True"),
        ({"macs": "300M"}, "budget.macs='300M'"),
        ({"activations": "44"}, "budget.activations='44' is not a size of memory: .* or a number of activations"),
        ({"activations": 0}, "budget.activations=0 must be a number above 0"),
        ({"macs": float("nan")}, "budget.macs=nan"),
        ({"latency": 3.0}, "tools/latency.py"),
        ({"macs": 1e6, "table": "t.json"}, "of no use without budget.latency"),
        ({"macs": 1e6, "input_size": (3, 32)}, "three numbers"),
        ({"macs": 1e6, "input_size": (3, 32, 0)}, "budget.input_size=0"),
        ({"macs": 1e6, "weight": -1}, "budget.weight=-1"),
        ({"macs": 1e6, "rate": -1}, "budget.rate=-1 must be a number of at least 0"),
        (300e6, "must be a group"),
    ],
)
def test_mistakes_are_one_sentence(given, words):
    with pytest.raises(UserError, match=words):
        settings_of(given)


def test_a_budget_of_a_training_is_refused(tmp_path):
    with pytest.raises(UserError, match="a training has no use for it"):
        train(tiny.config(tmp_path, train=True, model={"arch": tiny.ARCH}, budget={"macs": 1e9}))


def test_a_search_ends_within_its_budget_and_says_so(tmp_path):
    """The free decoding of this search has a convolution, and the budget is one multiply-add too small for it."""
    free = search(tiny.config(tmp_path / "free", epochs=2))
    assert free.summary["derived"]["macs"] >= FIXED["macs"] + CONV["macs"]
    limit = FIXED["macs"] + CONV["macs"] - 1
    result = search(tiny.config(tmp_path / "bound", epochs=2, budget={"macs": limit, "params": 1e4, "activations": 1e3}))
    derived, found = result.summary["derived"], result.summary["budget"]
    assert derived["macs"] == cost_of(tiny_networks(), result.architecture, SIZE).macs <= limit
    assert found["limits"]["macs"]["derived"] == derived["macs"] and found["limits"]["macs"]["limit"] == limit
    assert found["smallest"] == found["fixed"] == FIXED and found["exact"] and found["input_size"] == list(SIZE)
    assert all(row["macs"] <= limit for row in result.summary["random"]) and result.summary["random"]
    for line in lines(tmp_path / "bound"):
        assert line["budget"]["macs"]["derived"] == line["cost"]["macs"] <= limit
        assert line["budget"]["macs"]["expected"] > FIXED["macs"]
    # what a comparison sets beside it is drawn within the same budget
    spaces = record(tiny_networks()).parts
    budget = budget_of(tmp_path / "bound", spaces)
    drawn = comparison._draw(spaces, 9, budget)
    assert len(drawn) == 9 and all(budget.within(architecture) for parts in drawn for _, architecture in parts.values())
    assert budget.limits == {"macs": limit, "params": 1e4, "activations": 1e3} and budget.input_size == SIZE
    shown = section(result.summary)
    assert [row[0] for row in shown["rows"]] == ["multiply-adds", "parameters", "activations"] and "3×6×6" in shown["text"]


def test_the_whole_network_counts_not_the_searched_part(tmp_path):
    """mmrazor counts the backbone alone, so neck and heads are free: a budget that the cell meets, but not the network."""
    for metric, limit in FIXED.items():
        words = rf"budget\.{metric}={limit - 1:,} .* can't be met: no network of this space has fewer than {limit:,}"
        with pytest.raises(BudgetError, match=words):
            search(tiny.config(tmp_path / metric, budget={metric: limit - 1}))
        # nothing was trained, and nothing is in the way of the next try
        assert not [f for f in (tmp_path / metric).iterdir() if f.suffix in (".jsonl", ".pth") or f.name == "architecture.json"]
    result = search(tiny.config(tmp_path / "macs", epochs=1, budget=FIXED))
    assert {key: result.summary["derived"][key] for key in FIXED} == FIXED


def test_activations_are_kept_and_may_be_given_as_their_memory(tmp_path):
    """The free decoding of this search has a convolution, and the budget is one number too small for its output."""
    assert settings_of({"activations": "44.4MB"}).limits == {"activations": 11.1e6}
    free = search(tiny.config(tmp_path / "free", epochs=2))
    assert free.summary["derived"]["activations"] >= FIXED["activations"] + CONV["activations"]
    # 290 numbers and three quarters of one
    result = search(tiny.config(tmp_path / "bound", epochs=2, budget={"activations": "1163B"}))
    assert result.summary["derived"]["activations"] == FIXED["activations"] < 1163 / 4 < 2 * 144 + 3
    assert lines(tmp_path / "bound")[-1]["budget"]["activations"]["derived"] == FIXED["activations"]
    provenance = json.loads((tmp_path / "bound" / "architecture.json").read_text())["provenance"]
    assert provenance["cost"]["activations"] == FIXED["activations"]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A table of the tiny network in which every operation takes 1 ms, a convolution 10, and the rest 2."""
    torch.set_num_threads(1)
    networks = tiny_networks()
    timing = Timing(warmup=1, rounds=2, most_rounds=2, sample_ms=0)
    made = measure_table(networks, survey(networks, SIZE), SIZE, timing=timing, rest_networks=2)
    path = tmp_path_factory.mktemp("table") / "T.json"
    save(path, made)
    data = json.loads(path.read_text())
    data["rest"]["median"] = 2.0
    for row in data["operations"].values():
        row["median"] = 10.0 if row["name"] == "conv" else 1.0
    path.write_text(json.dumps(data))
    return path


def test_a_latency_budget_is_predicted_and_kept(tmp_path, table):
    """mmrazor accepts a range of latencies and never looks at one."""
    free = search(tiny.config(tmp_path / "free", epochs=2, budget={"latency": 100.0, "table": str(table)}))
    # two operations and the rest
    convs = sum(value == "conv" for value in free.architecture.values())
    assert convs > 0 and free.summary["derived"]["latency"] == 2.0 + 10.0 * convs + 1.0 * (2 - convs)
    result = search(tiny.config(tmp_path / "bound", epochs=2, budget={"latency": 4.0, "table": str(table)}))
    assert result.summary["derived"]["latency"] == 4.0 == lines(tmp_path / "bound")[-1]["budget"]["latency"]["derived"]
    assert "conv" not in result.architecture.values() and result.summary["budget"]["table"]["file"] == str(table)
    assert json.loads((tmp_path / "bound" / "architecture.json").read_text())["provenance"]["cost"]["latency"] == 4.0
    words = r"budget\.latency=3\.9 ms can't be met: no network .* takes less than 4 ms at 3x6x6, of which 2 ms"
    with pytest.raises(BudgetError, match=words):
        search(tiny.config(tmp_path / "none", budget={"latency": 3.9, "table": str(table)}))


@pytest.mark.parametrize("strategy", ["RandomSearch", "SinglePath"])
def test_searches_that_score_networks_one_by_one_say_the_same(tmp_path, table, strategy):
    """Latency and activations of what they find, and the budget, which a comparison then gives its random networks."""
    more = dict(type="RandomSearch", trials=2)
    loop = dict(type="search.TrainLoop", max_epochs=1)
    if strategy == "SinglePath":
        more = dict(type="SinglePath", trials=3, population=2, sample=2, batches=1)
        loop = dict(type="search.SinglePathLoop", max_epochs=1)
    changes = dict(strategy=more, train_cfg=loop, budget={"latency": 4.0, "table": str(table)}, model={"dropout": 0.0})
    if strategy == "RandomSearch":
        changes["executor"] = dict(jobs=0)
    result = search(tiny.config(tmp_path, epochs=1, train=True, **changes))
    derived, said = result.summary["derived"], result.summary["budget"]
    assert "conv" not in result.architecture.values() and derived["latency"] == 4.0
    assert said["limits"] == {"latency": {"limit": 4.0, "derived": 4.0}} and said["table"]["file"] == str(table)
    cost = json.loads((tmp_path / "architecture.json").read_text())["provenance"]["cost"]
    assert cost["latency"] == 4.0 and cost["activations"] == derived["activations"] == FIXED["activations"]
    shown = section(result.summary)
    assert shown["head"] == ("", "limit", "derived") and shown["rows"] == [("latency", "4 ms", "4 ms")]
    assert f"Latency is predicted from {table}" in shown["text"] and "logits" not in shown["text"]
    budget = budget_of(tmp_path, record(tiny_networks()).parts)
    assert budget.limits == {"latency": 4.0} and budget.figures(result.architecture)["latency"] == 4.0


def test_an_input_size_of_the_budget_is_that_of_all_costs_of_paths_and_trials(tmp_path):
    for name, strategy, loop in (
        ("paths", dict(type="SinglePath", trials=3, population=2, sample=2, batches=1), "search.SinglePathLoop"),
        ("trials", dict(type="RandomSearch", trials=1), "search.TrainLoop"),
    ):
        more = dict(executor=dict(jobs=0)) if name == "trials" else {}
        more |= dict(strategy=strategy, train_cfg=dict(type=loop, max_epochs=1), model={"dropout": 0.0})
        budget = {"macs": 1e9, "input_size": (3, 12, 12)}
        result = search(tiny.config(tmp_path / name, epochs=1, train=True, budget=budget, **more))
        derived = result.summary["derived"]
        convs = sum(value == "conv" for value in result.architecture.values())
        assert derived["macs"] == 4 * (36 * 27 * 4 + convs * CONV["macs"]) + 8 * 3 and derived["input_size"] == [3, 12, 12]
        assert result.summary["budget"]["limits"]["macs"]["derived"] == derived["macs"]


def test_a_table_of_something_else_is_refused(tmp_path, table):
    def refused(words, budget, **changes):
        with pytest.raises(ValueError, match=words):
            search(tiny.config(tmp_path, budget={"latency": 9.0, "table": str(table), **budget}, **changes))

    refused("there is no latency table", {"table": str(tmp_path / "none.json")})
    refused(r"is of images of 3x6x6, the networks are counted at 3x8x8: .*--shape 3 8 8", {"input_size": (3, 8, 8)})
    refused("was not made for this network: its .* does other work", {}, model={"channels": 8})
    data = json.loads(table.read_text())
    data["spaces"]["backbone"]["choices"][1]["options"].append("pool")
    other = tmp_path / "other.json"
    other.write_text(json.dumps(data))
    refused("is of another space", {"table": str(other)})


def test_limits_that_can_only_be_met_one_by_one_are_said(table):
    """The fewest parameters are those of a skip; a table in which pools are fast and skips slow leaves nothing."""
    data = json.loads(table.read_text())
    for row in data["operations"].values():
        row["median"] = {"conv": 1.0, "avg_pool": 5.0, "skip_connect": 6.0}[row["name"]]
    path = table.with_name("slow.json")
    path.write_text(json.dumps(data))
    words = r"params=143 parameters and budget\.latency=5 ms can't be met together: .* 143 parameters and 4 ms.* takes 12 ms"
    with pytest.raises(BudgetError, match=words):
        prepared({"params": FIXED["params"], "latency": 5.0, "table": str(path)})


def test_gradients_pull_towards_what_is_cheap_only_while_decoding_is_over():
    limit = FIXED["macs"] + CONV["macs"]
    search_, params = prepared({"macs": limit}, weight=0.5, rate=0.1)
    space, logits = params.space, params.logits
    loss = {name: torch.randn_like(logit) for name, logit in logits.items()}
    certain(space, params, "skip_connect")
    assert search_.add_gradients(dict(loss), logits, params.probabilities()) == loss and search_.weights == {"macs": 0.5}
    certain(space, params, "conv")
    found = search_.add_gradients(dict(loss), logits, params.probabilities())
    pull = {name: found[name] - loss[name] for name in found}

    def norm(gradients):
        return sum(g.square().sum() for g in gradients.values()).sqrt()

    assert norm(pull) == pytest.approx(0.5 * norm(loss))
    overshoot = (FIXED["macs"] + 2 * CONV["macs"]) / limit - 1
    assert search_.weights["macs"] == pytest.approx(0.5 + 0.1 * overshoot)
    before = search_.line(logits, space.at(0))["macs"]["expected"]
    with torch.no_grad():
        for name, logit in logits.items():
            logit -= 0.1 * pull[name]
    assert search_.line(logits, space.at(0))["macs"]["expected"] < before
    # no more than it has to be: a loss that is flat is left alone
    assert search_.add_gradients({}, logits, params.probabilities()) == {}


@pytest.mark.parametrize("strategy", [PCDARTS(freeze_epochs=0, skip_limit=1), DARTS(skip_limit=0)])
def test_a_skip_limit_holds_within_the_budget_too(strategy):
    limit = FIXED["macs"]
    search_, params = prepared({"macs": limit}, strategy)
    certain(params.space, params, "conv")
    found = search_.decode(params.probabilities())
    skips = sum(value == "skip_connect" for value in found.values())
    assert search_.figures(found)["macs"] <= limit and skips <= strategy.decode.skip_limit


def test_a_strategy_with_a_decoding_of_its_own_is_refused():
    strategy = GradientStrategy(
        name="own", gate=DARTS().gate, update=DARTS().update, decode=lambda space, probs: TopInputs()(space, probs)
    )
    with pytest.raises(UserError, match="own decodes in its own way"):
        prepared({"macs": 1e9}, strategy)


def test_samplers_propose_only_what_is_within():
    search_, params = prepared({"macs": FIXED["macs"] + CONV["macs"]})
    space, budget = params.space, search_.budget
    fitting = [a for a in space.enumerate() if budget.within(a)]
    assert 0 < len(fitting) < space.size
    assert {a for a in space.enumerate() if search_.within(a)} == set(fitting)
    assert set(architectures_within(space, 100, 0, budget.within, 54)) == set(fitting)
    sampler = Within(RandomSearch(space, 0), budget.within, 54)
    first = sampler.ask()
    sampler.tell(first, 1.0)
    assert sampler.sampler.best.architecture == first and budget.within(first)
    with pytest.raises(NothingWithin) as error:
        Within(RandomSearch(space, 0), lambda architecture: False, 10).ask()
    assert len(error.value.refused) == 10
    words = r"none of 10 architectures is within; the smallest found is [\d,]+ multiply-adds\.$"
    with pytest.raises(BudgetError, match=words):
        raise budget.nothing(error.value)
    # each set of the accepted ones is equally likely: no more is drawn than there is
    draws = [architectures_within(space, 1, seed, budget.within, 54)[0] for seed in range(300)]
    assert set(draws) == set(fitting)


@pytest.mark.slow
def test_a_killed_search_with_a_budget_goes_on_bit_for_bit(tmp_path):
    args = {"loop": {"save_steps": 2}, "budget": {"macs": FIXED["macs"] + CONV["macs"] - 1}}
    kill = {"visualization": {"type": "search.Kill", "where": "step", "at": 15}}
    assert tiny.in_children(tmp_path / "straight", **args) == [0]
    assert tiny.in_children(tmp_path / "killed", **args, default_hooks=kill) == [-signal.SIGKILL]
    assert tiny.in_children(tmp_path / "killed", **args, resume=True) == [0]
    assert tiny.differences(tiny.state(tmp_path / "straight"), tiny.state(tmp_path / "killed")) == []
    weights = [line["budget"]["macs"]["weight"] for line in lines(tmp_path / "straight")]
    assert weights[0] == 0.1 < weights[-1]
    assert [line["budget"] for line in lines(tmp_path / "killed")] == [line["budget"] for line in lines(tmp_path / "straight")]


def test_a_trellis_is_decoded_within_a_budget(tmp_path):
    """A path and a cell, chosen together: one multiply-add less than what is decoded freely."""
    args = {"epochs": 1, "model": {"type": "search.TinyTrellis"}, "strategy": {"type": "DARTS"}}
    free = search(tiny.config(tmp_path / "free", **args))
    limit = free.summary["derived"]["macs"] - 1
    result = search(tiny.config(tmp_path / "bound", **args, budget={"macs": limit}))
    assert result.summary["derived"]["macs"] <= limit and result.summary["budget"]["limits"]["macs"]["limit"] == limit
    assert record(networks_of({"type": "search.TinyTrellis"})).space.contains(result.architecture)
