"""Measuring, tracing and tables on a fake clock: modules say what they cost, so medians, rests and predictions are exact."""

import json
import time
from functools import partial

import pytest
import torch
from torch import nn

from backbones.cell_net import CellNet
from backbones.chain_net import ChainNet
from search.cost import latency, latency_table
from search.cost.guidelines import GUIDELINES, measure_guidelines
from search.cost.latency import Conditions, Latency, Timing, measure, time_in_rounds
from search.cost.operations import Division, narrow, survey, trace_architecture
from search.cost.trace import trace
from search.supernet import reading, record

CPU = torch.device("cpu")
ONCE = Timing(warmup=1, rounds=2, most_rounds=2, sample_ms=0)


class FakeClock:
    """Seconds that only pass when somebody works."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def work(self, milliseconds):
        self.now += milliseconds / 1000


@pytest.fixture
def clock(monkeypatch):
    fake = FakeClock()
    monkeypatch.setattr(Cost, "clock", fake)
    return fake


class Cost(nn.Module):
    """Multiplies by a number that is also its cost in milliseconds."""

    clock = FakeClock()

    def __init__(self, milliseconds):
        super().__init__()
        self.milliseconds = milliseconds

    def forward(self, x):
        self.clock.work(self.milliseconds)
        return x * self.milliseconds


class Toy(nn.Module):
    """A stem of 4 ms, three choices, 0.5 ms between modules; the third runs only where the second is 'slow'."""

    def __init__(self, stem=4.0, slow=3.0):
        super().__init__()
        self.stem = Cost(stem)
        options = {"fast": partial(Cost, 1.0), "slow": partial(Cost, slow)}
        with reading("backbone") as pick:
            self.first = pick.op("first", options)
            self.second = pick.op("second", options)
            self.third = pick.op("third", {"a": partial(Cost, 5.0), "b": partial(Cost, 7.0)}, when=[("second", "slow")])

    def forward(self, x):
        x = self.second(self.first(self.stem(x)))
        Cost.clock.work(0.5)
        return x if self.third is None else self.third(x)


def table_of(build=Toy, clock=None, size=(3, 2, 2), **options):
    return latency_table.measure_table(build, survey(build, size), size, timing=ONCE, clock=clock, **options)


def test_median_and_spread_by_hand():
    assert Latency.of([5.0, 1.0, 2.0, 4.0, 3.0], warmup=2) == Latency(3.0, 2.0, runs=5, warmup=2)
    # 1.57 * 2 / sqrt(5) is 1.404, 47 % of the median
    assert Latency.of([5.0, 1.0, 2.0, 4.0, 3.0], 1).known_to(0.48)
    assert not Latency.of([5.0, 1.0, 2.0, 4.0, 3.0], 1).known_to(0.46)


def test_every_round_times_every_candidate_once_and_drift_hits_all_alike():
    clock, calls = FakeClock(), []

    def work(name, milliseconds):
        calls.append(name)
        # the machine gets slower with every round
        clock.work(milliseconds * ((len(calls) + 1) // 2))

    timing = Timing(warmup=1, rounds=9, most_rounds=9, sample_ms=0)
    samples = time_in_rounds([partial(work, "a", 2.0), partial(work, "b", 5.0)], timing, clock=clock)
    rounds = calls[4:]
    assert [set(rounds[i : i + 2]) for i in range(0, len(rounds), 2)] == [{"a", "b"}] * 9
    # the order changes, or one of them would always run on what the other left in the caches
    assert {tuple(rounds[i : i + 2]) for i in range(0, len(rounds), 2)} == {("a", "b"), ("b", "a")}
    a, b = (Latency.of(s, 1).median for s in samples)
    assert b / a == pytest.approx(2.5)


def test_short_calls_are_repeated_until_a_sample_is_long_enough():
    clock, calls = FakeClock(), []

    def work():
        calls.append(1)
        clock.work(0.25)

    samples = time_in_rounds([work], Timing(warmup=3, rounds=2, most_rounds=2, sample_ms=1.0), clock=clock)
    # warm-up, then samples of 1, 2 and 4 calls until one lasts a millisecond, then two rounds of 4
    assert len(calls) == 3 + (1 + 2 + 4) + 2 * 4
    assert samples == [pytest.approx([0.25, 0.25])]


@pytest.mark.parametrize(("noise", "runs"), [((1.0, 1.0), 4), ((1.0, 3.0), 12)])
def test_rounds_go_on_until_the_medians_are_known(noise, runs):
    clock, calls = FakeClock(), []

    def work():
        calls.append(1)
        clock.work(noise[len(calls) % 2])

    (samples,) = time_in_rounds([work], Timing(rounds=4, most_rounds=12, sample_ms=0, tolerance=0.1), clock=clock)
    assert len(samples) == runs


def test_the_device_is_waited_for_before_each_reading_of_the_clock():
    log = []

    def read():
        log.append("read")
        return 0.001 * len(log)

    timing = Timing(warmup=1, rounds=2, most_rounds=2, sample_ms=0)
    time_in_rounds([lambda: log.append("call")], timing, synchronise=lambda: log.append("wait"), clock=read)
    assert log == ["call"] + ["wait", "read", "call", "wait", "read"] * 3


def test_measuring_leaves_the_model_as_it_was(clock):
    model = nn.Sequential(Cost(6.0), nn.BatchNorm2d(3), nn.Dropout(0.5))
    model[1].eval()
    modes, statistics = [m.training for m in model.modules()], model[1].running_mean.clone()
    assert measure(model, torch.ones(1, 3, 2, 2), ONCE, clock) == Latency(pytest.approx(6.0), pytest.approx(0), 2, 1)
    assert [m.training for m in model.modules()] == modes
    assert torch.equal(model[1].running_mean, statistics)


def test_the_timing_says_which_clock_is_read(monkeypatch):
    class Waits(nn.Module):
        def forward(self, x):
            time.sleep(0.02)
            return x

    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    wall, cpu = (measure(Waits(), torch.ones(1), Timing(1, 2, 2, 0.0, clock=name)).median for name in ("wall", "cpu"))
    assert wall > 20 > 5 > cpu


def test_impossible_timings_are_refused(monkeypatch):
    for wrong in (dict(warmup=0), dict(rounds=1), dict(rounds=9, most_rounds=8), dict(tolerance=-1.0), dict(clock="sun")):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Timing(**wrong)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    with pytest.raises(ValueError, match="2 threads"):
        measure(nn.Identity(), torch.ones(1), Timing(clock="cpu"))


def test_a_prediction_is_the_rest_and_the_sum_of_the_operations(clock):
    table = table_of(clock=clock)
    # the stem, which never changes, and what happens between modules
    assert table.rest.median == pytest.approx(4.5)
    assert table.division.fixed.keys() == {"stem"}
    for choices, expected in (
        ({"first": "fast", "second": "fast"}, 4.5 + 1 + 1),
        ({"first": "slow", "second": "fast"}, 4.5 + 3 + 1),
        ({"first": "fast", "second": "slow", "third": "b"}, 4.5 + 1 + 3 + 7),
    ):
        assert table.predict(Toy, choices) == pytest.approx(expected)
        assert measure(narrow(Toy, choices), torch.ones(1, 3, 2, 2), ONCE, clock).median == pytest.approx(expected)
    with pytest.raises(ValueError, match="third"):
        table.predict(Toy, {"first": "fast", "second": "slow"})


def test_equal_work_is_measured_once_and_every_option_is_there(clock):
    table = table_of(clock=clock)
    places = {operation.latency.median: set(operation.places) for operation in table.operations.values()}
    assert {round(median): where for median, where in places.items()} == {
        1: {"first=fast", "second=fast"},
        3: {"first=slow", "second=slow"},
        5: {"third=a"},
        7: {"third=b"},
    }
    assert all(operation.shapes == ((1, 3, 2, 2),) for operation in table.operations.values())


def decided(space):
    return {f"{c.name}={o}" for c in space if hasattr(c, "decodable") and not c.name.endswith("inputs") for o in c.decodable}


@pytest.mark.parametrize("quiet", [1, 10])
def test_a_survey_of_cells_sees_every_option_however_early_it_falls_silent(quiet):
    def build():
        return CellNet(channels=4, layers=3, nodes=2)

    found = survey(build, (3, 8, 8), quiet=quiet)
    assert all(found.spaces["backbone"].contains(architecture) for architecture in found.networks)
    calls = [call for network in found.networks.values() for call in found.division.operations(network)]
    assert {call.place for call in calls} == decided(record(build).space)
    # cells of one kind share their choices, but run at sizes of their own
    assert len({call.path.partition(".dag")[0] for call in calls if call.place == "reduce/n2<-0=max_pool_3x3"}) == 2


def chain(**stage):
    stages = [dict(channels=8, ops=dict(type="separable")), dict(channels=8, stride=2, **stage)]
    return partial(ChainNet, stem=dict(channels=8), stages=stages)


def test_a_depth_alone_divides_a_stage_in_blocks():
    build = chain(depth=(1, 2, 4), ops=dict(type="separable"))
    found = survey(build, (3, 16, 16))
    division = found.division
    assert set(division.fixed) == {"stem", "stages.0", "stages.1.0"}
    for depth in (1, 2, 4):
        calls = division.operations(trace_architecture(build, {"s1/depth": depth}, (3, 16, 16)))
        assert [call.path for call in calls] == [f"stages.1.{b}" for b in range(1, depth)]
    # three equal blocks
    assert len({call.work for network in found.networks.values() for call in division.operations(network)}) == 1


def test_depth_and_operations_together():
    ops = {"k3": dict(type="mbconv"), "k5": dict(type="mbconv", kernel=5), "skip": dict(type="skip")}
    build = chain(depth=(1, 3), ops=ops)
    found = survey(build, (3, 16, 16), quiet=2)
    calls = [call for network in found.networks.values() for call in found.division.operations(network)]
    assert {call.place for call in calls} == decided(record(build).space) - {"s1/depth=1", "s1/depth=3"}
    assert "s1/b0=skip" not in {call.place for call in calls}


class Elastic(nn.Module):
    """Two convolutions whose width between is chosen."""

    def __init__(self):
        super().__init__()
        with reading("backbone") as pick:
            width = pick.value("width", (2, 4)) or 4
        self.body = nn.Sequential(nn.Conv2d(3, width, 1), nn.ReLU(), nn.Conv2d(width, 3, 1), nn.BatchNorm2d(3))

    def forward(self, x):
        return self.body(x)


def test_a_width_divides_down_to_the_layers_that_it_changes():
    found = survey(Elastic, (3, 4, 4))
    assert set(found.division.fixed) == {"body.3"}
    assert found.division.split == {"", "body"}
    calls = [call for network in found.networks.values() for call in found.division.operations(network)]
    assert {call.path for call in calls} == {"body.0", "body.1", "body.2"}
    assert len({call.work for call in calls}) == 6


def test_work_tells_settings_apart_that_no_shape_shows():
    x = torch.empty(1, 4, 8, 8, device="meta")
    layers = [nn.Conv2d(4, 4, 3, padding=d, dilation=d, groups=g, device="meta") for d in (1, 2) for g in (1, 4)]
    works = [trace(layer, x).work for layer in layers]
    assert len(set(works)) == 4
    assert trace(nn.Conv2d(4, 4, 3, padding=1, device="meta"), x).work == works[0]
    with pytest.raises(ValueError, match=r"can't run on inputs of \(1, 3, 8, 8\)"):
        trace(layers[0], torch.empty(1, 3, 8, 8, device="meta"))


def test_a_table_reads_back_as_it_was_written(clock, tmp_path):
    table = table_of(clock=clock, seed=3)
    path = tmp_path / "t.json"
    latency_table.save(path, table)
    read = latency_table.load(path)
    assert read.to_json() == table.to_json()
    assert read.predict(Toy, {"first": "slow", "second": "fast"}) == table.predict(Toy, {"first": "slow", "second": "fast"})
    data = json.loads(path.read_text())
    assert (data["unit"], data["conditions"]["threads"]) == ("ms", torch.get_num_threads())
    assert [p.name for p in tmp_path.iterdir()] == ["t.json"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"unit": "s"}, "latencies in 's'"),
        ({"version": 2}, "version 2"),
        ({"format": "visnas-architecture"}, "not a latency table"),
        ({"rest": None}, "damaged"),
        ({"operations": {"w": {"name": "x"}}}, "damaged"),
        ({"conditions": {"device": "cpu"}}, "damaged"),
        ({"rest": {"median": "1", "iqr": 0.0, "runs": 1, "warmup": 1, "networks": 1}}, "median is '1'"),
        ({"spaces": {"backbone": 1}}, "damaged"),
    ],
)
def test_other_files_are_refused(clock, tmp_path, change, words):
    path = tmp_path / "t.json"
    path.write_text(json.dumps({**table_of(clock=clock).to_json(), **change}))
    with pytest.raises(ValueError, match=words) as refused:
        latency_table.load(path)
    assert "t.json" in str(refused.value)


def test_torn_and_absent_files_are_refused(clock, tmp_path):
    path = tmp_path / "t.json"
    latency_table.save(path, table_of(clock=clock))
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ValueError, match="can't be read as JSON"):
        latency_table.load(path)
    with pytest.raises(ValueError, match="no latency table"):
        latency_table.load(tmp_path / "u.json")


def test_another_device_thread_count_number_type_and_clock_are_refused():
    here = Conditions("cpu: A", 1, "float32", "wall", "2.9")
    here.require(Conditions("cpu: A", 1, "float32", "wall", "2.10"), "t.json")
    for other, words in (
        (Conditions("cpu: B", 1, "float32", "wall", "2.9"), "device 'cpu: A', but here it is 'cpu: B'"),
        (Conditions("cpu: A", 2, "float32", "wall", "2.9"), "take --threads 1"),
        (Conditions("cpu: A", 1, "float16", "wall", "2.9"), "dtype 'float32'"),
        (Conditions("cpu: A", 1, "float32", "cpu", "2.9"), "take --clock wall"),
    ):
        with pytest.raises(ValueError, match=words):
            here.require(other, "t.json")
    assert latency.device_name(CPU).startswith("cpu: ")


def test_another_space_is_refused_by_what_differs(clock):
    class Other(Toy):
        def __init__(self):
            super().__init__()
            with reading("backbone") as pick:
                pick.value("width", (1, 2))

    table = table_of(clock=clock)
    table.require_spaces(record(Toy).parts)
    with pytest.raises(ValueError, match="'width' is in the network only"):
        table.require_spaces(record(Other).parts)
    with pytest.raises(ValueError, match="'neck' is in the network only"):
        table.require_spaces({**record(Toy).parts, "neck": record(Toy).space})


def test_equal_spaces_of_other_sizes_are_refused_by_their_work(clock):
    table = table_of(clock=clock)
    choices = {"first": "slow", "second": "fast"}
    with pytest.raises(ValueError, match="module 'stem' does other work"):
        table.predict(partial(Toy, stem=2.0), choices)
    with pytest.raises(ValueError, match="no entry for first=slow on "):
        table.predict(partial(Toy, slow=9.0), choices)


def test_a_space_of_one_network_is_all_rest(clock):
    class Single(nn.Module):
        def __init__(self):
            super().__init__()
            with reading("backbone") as pick:
                self.only = pick.op("only", {"a": partial(Cost, 2.0)})

        def forward(self, x):
            return self.only(x)

    table = table_of(Single, clock)
    assert table.operations == {} and table.predict(Single, {"only": "a"}) == pytest.approx(2.0)
    assert Division.of([trace_architecture(Single, {"only": "a"}, (3, 2, 2))]).fixed.keys() == {""}


def test_the_guidelines_have_equal_multiply_adds_and_the_paper_s_channels():
    rows = measure_guidelines([128, 32], batch_size=1, device=torch.device("meta"), timing=ONCE, clock=_ticking())
    for row in rows:
        first = next(r for r in rows if (r["guideline"], r["c"]) == (row["guideline"], row["c"]))
        assert row["macs"] == pytest.approx(first["macs"], rel=0.06)
        assert row["relative_speed"] == pytest.approx(row["macs"] / first["macs"])
    labels = {g.name: [s.label for s in g.settings(128)] for g in GUIDELINES}
    # tables 1 to 3 of arXiv 1807.11164
    assert labels["G1"] == ["1:1 (128, 128)", "1:2 (90, 180)", "1:6 (52, 312)", "1:12 (36, 432)"]
    assert labels["G2"] == ["1 groups (128)", "2 groups (180)", "4 groups (256)", "8 groups (360)"]
    assert [label.rpartition(" ")[2] for label in labels["G3"]] == ["(128)", "(90)", "(64)", "(90)", "(64)"]
    # ten layers of 128 x 128 on 56 x 56
    assert next(r for r in rows if r["guideline"] == "G2")["macs"] == 10 * 128 * 128 * 56 * 56


def _ticking():
    times = iter(range(10**6))
    return lambda: next(times)
