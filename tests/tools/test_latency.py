"""The tool from end to end on a space of two layers; what it measures is of no account here."""

import json
from pathlib import Path

import pytest
import torch

from search import space
from search.engine.config import load
from search.engine.latency_report import agreement
from search.registry import MODELS
from search.supernet import record

CONFIG = """
model = dict(
    type='search.ImageClassifier',
    backbone=dict(
        type='search.ChainNet',
        stem=dict(channels=4),
        stages=[dict(channels={channels}, depth=(1, 2), ops=dict(
            k3=dict(type='mbconv'), k5=dict(type='mbconv', kernel=5), e3=dict(type='mbconv', expand=3)))],
    ),
    num_classes=3,
)
"""
QUICK = ("--rounds", 2, "--warmup", 1, "--threads", 1)
PLACES = {f"s0/b{b}={option}" for b in (0, 1) for option in ("k3", "k5", "e3")}


@pytest.fixture(scope="module")
def files(tool, tmp_path_factory, one_thread):
    """The folder of config, table, an architecture of the space and one of another."""
    folder = tmp_path_factory.mktemp("latency")
    for name, channels in (("small.py", 4), ("wide.py", 8)):
        (folder / name).write_text(CONFIG.format(channels=channels))
    (folder / "other.py").write_text(CONFIG.format(channels=4).replace("k5=", "k7=").replace("kernel=5", "kernel=7"))
    for name in ("small", "other"):
        known = record(lambda name=name: MODELS.build(load(folder / f"{name}.py").model)).parts["backbone"]
        space.save(folder / f"{name}.json", {"backbone": (known, known.at(0))}, {})
    command = ("table", folder / "small.py", "--shape", 3, 16, 16, "-o", folder / "t.json", *QUICK)
    assert tool("latency")(*command) == 0
    return folder


@pytest.fixture
def reported(tool, capsys):
    def run(*argv):
        assert tool("latency")(*argv, "--json") == 0
        return json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def refused(tool, capsys):
    def run(*argv):
        assert tool("latency")(*argv) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1
        return error

    return run


def test_a_table_holds_the_space_and_how_it_was_measured(files):
    table = json.loads((files / "t.json").read_text())
    assert {place for row in table["operations"].values() for place in row["places"]} == PLACES
    assert (table["unit"], table["batch_size"], table["input_size"]) == ("ms", 1, [3, 16, 16])
    conditions = table["conditions"]
    assert (conditions["threads"], conditions["torch_version"]) == (1, torch.__version__)
    assert all(row["median"] > 0 and row["runs"] >= 2 for row in table["operations"].values())


def test_predictions_add_up_the_table(files, reported):
    table = json.loads((files / "t.json").read_text())
    report = reported("predict", files / "t.json", files / "small.py", "--arch", files / "small.json", "--threads", 1)
    chosen = space.load(files / "small.json").parts["backbone"].architecture
    medians = {place: row["median"] for row in table["operations"].values() for place in row["places"]}
    parts = [medians[f"s0/b{b}={chosen[f's0/b{b}']}"] for b in range(chosen["s0/depth"])]
    (row,) = report["predictions"]
    assert row["predicted"] == pytest.approx(table["rest"]["median"] + sum(parts))


def test_a_check_prints_every_pair(files, reported, tool, capsys):
    command = ("check", files / "t.json", files / "small.py", "--networks", 4, *QUICK)
    report = reported(*command)
    assert len(report["networks"]) == 4 and len({json.dumps(row["architecture"]) for row in report["networks"]}) == 4
    assert -1 <= report["kendall"]["value"] <= 1
    assert tool("latency")(*command) == 0
    out = capsys.readouterr().out
    assert "spearman" in out and all(f"{row['predicted']:.3f}" in out for row in report["networks"])


def test_agreement_by_hand():
    # one neighbouring pair of four is exchanged: 1 - 6 * 2 / (4 * 15) = 0.8, and (5 - 1) / 6
    found = agreement([1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 2.0, 4.0], [[1, 2, 3, 4], [4, 3, 2, 1]], seed=0)
    assert found["spearman"]["value"] == pytest.approx(0.8)
    assert found["kendall"]["value"] == pytest.approx(4 / 6)
    low, high = found["spearman"]["interval"]
    assert -1 <= low < 0.8 <= high <= 1
    assert found["spearman_of_halves"] == pytest.approx(-1)
    assert found["mean_absolute_percentage_error"] == pytest.approx(100 * (1 / 3 + 1 / 2) / 4)
    assert found["mean_percentage_error"] == pytest.approx(100 * (-1 / 3 + 1 / 2) / 4)
    assert agreement([1.0, 1.0, 1.0], [1.0, 2.0, 3.0], [[1, 2], [1, 2]], seed=0)["spearman"] == {
        "value": None,
        "interval": None,
    }


def test_one_network_of_a_config_and_a_published_one(files, reported):
    report = reported("measure", files / "small.py", "--arch", files / "small.json", "--shape", 3, 16, 16, *QUICK)
    assert report["median"] > 0 and report["unit"] == "ms" and report["threads"] == 1
    report = reported("measure", "MobileNetV1 0.25 @128", "--shape", 3, 32, 32, "--batch-size", 2, *QUICK)
    assert (report["input_size"], report["batch_size"]) == ([3, 32, 32], 2)


def test_guidelines(tool, capsys):
    assert tool("latency")("guidelines", "--channels", 8, *QUICK) == 0
    out = capsys.readouterr().out
    assert all(f"G{i} " in out for i in (1, 2, 3, 4)) and "images/s" in out


def test_tables_for_something_else_are_refused(files, refused, tmp_path):
    one = ("--threads", 1)
    table = files / "t.json"
    assert "'k7'" in refused("check", table, files / "other.py", *one)
    assert "other work" in refused("predict", table, files / "wide.py", "--arch", files / "small.json", *one)
    assert "another space" in refused("predict", table, files / "small.py", "--arch", files / "other.json", *one)
    assert "--threads 1" in refused("predict", table, files / "small.py", "--arch", files / "small.json", "--threads", 2)
    assert "--clock wall" in refused("check", table, files / "small.py", "--clock", "cpu", *one)
    data = json.loads(table.read_text())
    for key, value, words in (
        ("unit", "s", "in 's'"),
        ("conditions", {**data["conditions"], "device": "cuda: NVIDIA H100"}, "'cuda: NVIDIA H100'"),
    ):
        (tmp_path / "u.json").write_text(json.dumps({**data, key: value}))
        assert words in refused("check", tmp_path / "u.json", files / "small.py", *one)


def test_mistakes_have_one_sentence(files, refused, tmp_path):
    config, arch = files / "small.py", files / "small.json"
    assert "--shape" in refused("table", config, "-o", tmp_path / "t.json")
    assert "(1, 4, 16, 16)" in refused("table", config, "--shape", 4, 16, 16, "-o", tmp_path / "t.json")
    assert "folder that exists" in refused("table", config, "--shape", 3, 16, 16, "-o", tmp_path / "no" / "t.json")
    assert "give --arch" in refused("measure", config, "--shape", 3, 16, 16)
    assert "give a config" in refused("measure", arch)
    assert "there is no file" in refused("measure", tmp_path / "none.json")
    damaged = (config, "--arch", arch, "--shape", 3, 16, 16, "--cfg-options", "model.backbone.stem.channels=-4")
    assert "model can't be built: c_out=-4" in refused("measure", *damaged)
    assert "nobody" in refused("measure", "nobody")
    assert "--networks=2" in refused("check", files / "t.json", config, "--networks", 2)
    assert "holds 12" in refused("check", files / "t.json", config, "--networks", 13, "--threads", 1)
    assert "rounds=1" in refused("guidelines", "--rounds", 1)
    assert "--channels=4" in refused("guidelines", "--channels", 4)
    assert not list(tmp_path.iterdir())
    if not torch.cuda.is_available():
        assert "no CUDA device" in refused("guidelines", "--device", "cuda")


def test_the_shipped_mobile_space():
    path = Path(__file__).resolve().parents[2] / "configs" / "_base_" / "model" / "chain_mobile.py"
    # five stages of four layers, of which the first can't be left out, and one layer
    assert record(lambda: MODELS.build(load(path).model)).space.size == (6 * 7**3) ** 5 * 6
