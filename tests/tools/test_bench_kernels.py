import importlib
import json

import pytest
import torch

from search.engine import bench
from search.engine.kernel_cases import KERNELS, NAMES, SIZES

DEVICE = bench.device_of(None)
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def report(tool, tmp_path_factory, one_thread):
    path = tmp_path_factory.mktemp("bench") / "kernels.json"
    assert tool("bench_kernels")("--quick", "--skip-tests", "--rounds", 2, "--json", path) == 0
    return json.loads(path.read_text())


@pytest.mark.slow
def test_says_where_it_measured(report):
    conditions = report["conditions"]
    assert conditions["torch"] == torch.__version__
    assert conditions["threads"] == 1
    assert conditions["device"].startswith(DEVICE.type)
    assert report["tests"] == "skipped" and report["rounds"] == 2 and report["unit"] == "s"


@pytest.mark.slow
def test_every_kernel_and_cell_by_every_way(report):
    cases = {(case["case"], case["shape"]["K"]): case["ways"] for case in report["cases"]}
    # with all channels in the candidates nothing bypasses them
    expected = {(name, k) for name in KERNELS for k in (1, 2)} - {("partial_node", 1), ("max_pool_2x2", 1)}
    assert set(cases) == expected | {(name, k) for name in ("cell", "reduction cell") for k in (1, 2)}
    for (name, _), ways in cases.items():
        if name in KERNELS:
            assert "reference" in ways and set(ways) <= {"reference", "torch", "triton"}
            assert ("triton" in ways) == (bench.triton_runs(DEVICE) and name not in ("relu_separable", "norm_relu_separable"))
        else:
            assert set(bench.executions(DEVICE)) <= set(ways)


@pytest.mark.slow
def test_every_figure_is_there(report):
    for case in report["cases"]:
        assert case["size"] == "quick"
        for name, way in case["ways"].items():
            assert way["difference"] < 1e-4, (case["case"], name)
            for clock in ("wall", "cpu"):
                if clock == "cpu" and DEVICE.type == "cuda":
                    assert way[clock] == {"forward": None, "step": None, "backward": None}
                    continue
                for part in ("forward", "step", "backward"):
                    spread = way[clock][part]
                    assert spread["low"] <= spread["median"] <= spread["high"]
                    assert len(spread["values"]) == 2
                assert len(way[f"{clock}_ratio"]["values"]) == 2
            if way["launches"] is not None:
                assert min(way["launches"].values()) > 0
                # nothing that makes the outputs moves less than the floor
                assert way["moved"]["forward"] >= case["floor"]["forward"] * 0.99, (case["case"], name)
            assert way["kept"] > 0


@pytest.mark.slow
def test_the_floor_by_hand(report):
    (case,) = (c for c in report["cases"] if c["case"] == "norm_sum" and c["shape"]["K"] == 2)
    shape = case["shape"]
    one = 4 * shape["B"] * shape["C"] // shape["K"] * shape["H"] * shape["W"]
    weight = 4 * shape["N"]
    assert case["floor"]["forward"] == (shape["N"] + 1) * one + weight
    assert case["floor"]["backward"] == (2 * shape["N"] + 1) * one + 2 * weight


@pytest.mark.slow
def test_the_reference_is_one_and_a_cell_keeps_less_by_recomputing(report):
    for case in report["cases"]:
        assert case["ways"]["reference"]["wall_ratio"]["values"] == [1.0, 1.0]
        if "cell" in case["case"]:
            kept = {name: way["kept"] for name, way in case["ways"].items()}
            assert kept["reference"] > kept["batched/fast"] >= kept["batched/balanced"] >= kept["batched/small"]


def test_nothing_is_measured_when_tests_fail(tool, tmp_path, monkeypatch, capsys):
    run = tool("bench_kernels")
    module = importlib.import_module("tool_bench_kernels")
    assert all((module.ROOT / path).exists() for path in module.TESTS)
    monkeypatch.setattr(module, "tested", lambda: False)
    assert run("--quick", "--json", tmp_path / "k.json") == 1
    assert "tests fail, so nothing is measured" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_another_mathematics_is_printed_kept_and_an_error(tool, tmp_path, monkeypatch, capsys):
    run, path = tool("bench_kernels"), tmp_path / "k.json"
    module = importlib.import_module("tool_bench_kernels")
    options = ("--quick", "--skip-tests", "--cases", "max_pool_2x2", "--rounds", 2, "--json", path)
    found = iter([0.0, 0.25])
    monkeypatch.setattr(module, "difference", lambda actual, expected: next(found, 0.0))
    assert run(*options) == 1
    printed = capsys.readouterr()
    assert (
        "not what the reference computes, by more than 1e-03: max_pool_2x2 (quick, K=2) by reference 2.5e-01\n" in printed.err
    )
    assert "3e-01" in printed.out or "2e-01" in printed.out
    assert json.loads(path.read_text())["cases"][0]["ways"]["reference"]["difference"] == 0.25
    monkeypatch.setattr(module, "difference", lambda actual, expected: float("nan"))
    assert run(*options) == 1
    assert "by reference inf, " in capsys.readouterr().err
    # JSON has no infinity
    assert json.loads(path.read_text())["cases"][0]["ways"]["reference"]["difference"] is None


def test_one_case_and_a_table(tool, capsys, monkeypatch):
    run = tool("bench_kernels")
    monkeypatch.setattr(importlib.import_module("tool_bench_kernels"), "tested", lambda: True)
    assert run("--quick", "--cases", "max_pool_2x2", "--rounds", 2) == 0
    out = capsys.readouterr().out
    assert "quick: max_pool_2x2 (B=2, C=4, K=2, H=6, W=6)" in out
    assert "norm_sum" not in out
    # a pool is one call forward and one backward
    assert "1+1" in out


def test_sizes_are_the_papers_searches():
    assert list(SIZES) == ["cifar", "imagenet", "cityscapes"]
    assert SIZES["imagenet"].batch * 8 == 1024 and SIZES["imagenet"].side * 8 == 224
    assert SIZES["cityscapes"].side == (321 + 3) // 4


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--sizes", "moon"], "--sizes moon: what runs here is cifar, imagenet, cityscapes"),
        (["--cases", "norm"], f"--cases norm: what runs here is {', '.join(NAMES)}"),
        (["--quick", "--sizes", "cifar"], "--quick has a size of its own"),
        (["--rounds", 1], "--rounds=1 must be a whole number of at least 2"),
        (["--json", "/nowhere/k.json"], "can't be written"),
    ],
)
def test_what_is_refused(tool, capsys, options, words):
    assert tool("bench_kernels")("--skip-tests", *options) == 2
    assert words in capsys.readouterr().err
