import importlib
import json
import sys
from pathlib import Path

import pytest

from search.engine import bench

pytestmark = pytest.mark.usefixtures("one_thread")
# laid out as the projects': rows of logits for the edges of a cell, the logits of all edges of a cell one after the other
PROJECT = """
import operations
import torch
import torch.nn.functional as F
from torch import nn

from backbones import CellNet
from search.supernet import ArchParams, Relax, building, record


class Rows:
    def __init__(self, network):
        self.network = network

    def __call__(self, space, logits):
        values = {}
        for i, tensor in enumerate(self.network.arch_parameters()):
            cell, of_operations = ("normal", "reduce")[i % 2], i < 2
            names = [n for n in logits if n.startswith(cell) and ("<-" in n) == of_operations]
            rows = tensor.unbind() if of_operations else tensor.split([len(logits[n]) for n in names])
            for name, row in zip(names, rows, strict=True):
                values[name] = operations.TEMPERATURE * torch.softmax(row, dim=0), tuple(range(len(row)))
        return values


class Network(nn.Module):
    def __init__(self, C, num_classes, layers, criterion):
        super().__init__()
        build = lambda: CellNet(C, layers, affine=False, partial=4)
        params = ArchParams(record(build).space, edge_logits=True)
        with building(Relax(params)):
            self.net = build()
        self.head = nn.Linear(self.net.out_channels[-1], num_classes)
        self.criterion = criterion
        object.__setattr__(self, "params", params)
        self.tensors = [(1e-3 * torch.randn(14, 8)).cuda().requires_grad_() for _ in range(2)]
        self.tensors += [(1e-3 * torch.randn(14)).cuda().requires_grad_() for _ in range(2)]

    def arch_parameters(self):
        return self.tensors

    def _loss(self, x, target):
        with self.params.gated(Rows(self)):
            (features,) = self.net(x)
        return self.criterion(self.head(F.adaptive_avg_pool2d(features, 1).flatten(1)), target)
"""
SMALL = ("--channels", 4, "--layers", 3, "--batch-size", 4, "--image", 8, "--device", "cpu")


@pytest.fixture
def project(tmp_path):
    """Writes a checkout whose gates are multiplied by a factor."""

    def write(factor=1):
        (tmp_path / "model_search.py").write_text(PROJECT)
        (tmp_path / "operations.py").write_text(f"TEMPERATURE = {factor}")
        return tmp_path

    return write


def test_ours_beside_a_project(tool, project, tmp_path, capsys, monkeypatch):
    run = tool("bench_step")
    monkeypatch.setattr(importlib.import_module("tool_bench_step"), "peak_of_process", lambda args, peer, name: 2**20)
    path = tmp_path / "step.json"
    options = ("--pc-darts", project(), "--executions", "reference", "batched/small", "--pairs", 2, "--json", path)
    assert run(*options, *SMALL) == 0
    report = json.loads(path.read_text())
    assert report["conditions"]["threads"] == 1
    assert [report[name] for name in ("channels", "layers", "batch_size", "image")] == [4, 3, 4, 8]
    rows = report["peers"]["PC-DARTS"]
    assert list(rows) == ["PC-DARTS", "reference", "batched/small"]
    # the stand-in's network is our reference plan
    assert rows["PC-DARTS"]["parameters"] == rows["reference"]["parameters"]
    assert rows["PC-DARTS"]["kept"] == pytest.approx(rows["reference"]["kept"], rel=0.01)
    assert rows["batched/small"]["kept"] < rows["reference"]["kept"]
    for name, row in rows.items():
        assert row["launches"] == sum(row["launches_by_name"].values()) > 0
        assert row["moved"] > row["kept"] and row["peak"] == 2**20
        for figure in ("wall", "cpu", "wall_ratio", "cpu_ratio"):
            assert len(row[figure]["values"]) == 2
            assert row[figure]["low"] <= row[figure]["median"] <= row[figure]["high"]
        wall, base = row["wall"]["values"], rows["PC-DARTS"]["wall"]["values"]
        assert row["wall_ratio"]["values"] == pytest.approx([a / b for a, b in zip(wall, base, strict=True)])
        assert name == "PC-DARTS" or row["gradient_difference"] < 1e-3
    out = capsys.readouterr().out
    assert "One search step beside PC-DARTS: C=4, 3 layers, batch 4 of 8x8" in out
    assert [line.startswith("round 2: PC-DARTS ") for line in out.splitlines()].count(True) == 1
    # the project's modules are gone again
    assert "operations" not in sys.modules and "model_search" not in sys.modules


def test_another_mathematics_is_not_measured(tool, project, capsys):
    assert tool("bench_step")("--pc-darts", project(2), "--counts", "--executions", "reference", *SMALL) == 2
    assert "the gradients of the project's network differ from ours" in capsys.readouterr().err


@pytest.mark.slow
def test_counts_on_the_meta_device(tool, project, tmp_path):
    path = tmp_path / "step.json"
    options = ("--pc-darts", project(), "--executions", "reference", "--json", path)
    assert tool("bench_step")(*options, *SMALL[:-2], "--device", "meta") == 0
    rows = json.loads(path.read_text())["peers"]["PC-DARTS"]
    assert rows["reference"]["launches"] > 0
    assert "wall" not in rows["reference"]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads /proc, which only Linux has")
def test_a_process_measures_its_memory(tool, project, capsys):
    large = ("--channels", 16, "--layers", 3, "--batch-size", 32, "--image", 32)
    assert tool("bench_step")("--pc-darts", project(), "--peak-of", "reference", *large) == 0
    assert int(capsys.readouterr().out) > 50 * 2**20


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "no project to stand beside"),
        (["--darts", "/nowhere"], "/nowhere holds no model_search.py of DARTS"),
        (["--darts", "/nowhere", "--pairs", 1], "--pairs=1 must be a whole number of at least 2"),
        (
            ["--darts", "/nowhere", "--executions", "fast"],
            "--executions fast: what runs here is DARTS, reference, batched/fast",
        ),
    ],
)
def test_what_is_refused(tool, capsys, options, words):
    assert tool("bench_step")(*options) == 2
    assert words in capsys.readouterr().err


def test_interleaved_times_each_call_in_every_round(monkeypatch):
    clock = {"now": 0.0}
    monkeypatch.setattr(bench.time, "process_time", lambda: clock["now"])

    def work(seconds):
        def call():
            clock["now"] += seconds

        return call

    found = bench.interleaved({"slow": work(2.0), "fast": work(1.0)}, 4, bench.device_of("cpu"))
    assert found["slow"]["cpu"] == {"median": 2.0, "low": 2.0, "high": 2.0, "values": [2.0] * 4}
    assert bench.ratios(found["fast"]["cpu"], found["slow"]["cpu"])["values"] == [0.5] * 4
    # a sample of repeated calls is their mean
    repeated = bench.interleaved({"slow": work(2.0)}, 3, bench.device_of("cpu"), sample_ms=0.5)
    assert repeated["slow"]["cpu"]["values"] == [2.0] * 3


SEGMENTOR = """
import platform

import torch
from torch import nn

# without the extension for CUDA that others build
assert platform.system() == "Windows"


class AutoDeeplab(nn.Module):
    def __init__(self, num_classes, num_layers, criterion, filter_multiplier):
        super().__init__()
        self.alphas = nn.Parameter(torch.zeros(3))
        self.convs = nn.Sequential(*[nn.Conv2d(3 if i == 0 else filter_multiplier, filter_multiplier, 3, padding=1)
                                     for i in range(num_layers)])
        self.classify = nn.Conv2d(filter_multiplier, num_classes, 1)
        self.criterion = criterion

    def arch_parameters(self):
        return [self.alphas]

    def _loss(self, x, target):
        assert target.shape == (len(x), *x.shape[2:])
        return self.criterion(self.classify(self.convs(x)) * self.alphas.cuda().softmax(0)[0], target)
"""


@pytest.mark.slow
def test_ours_beside_a_segmentor(tool, tmp_path):
    pytest.importorskip("mmseg")
    (tmp_path / "auto_deeplab.py").write_text(SEGMENTOR)
    path = tmp_path / "step.json"
    options = ("--executions", "reference", "batched/fast", "--counts", "--partial", 2, "--json", path)
    small = ("--channels", 2, "--layers", 3, "--batch-size", 2, "--image", 32, "--device", "cpu")
    assert tool("bench_step")("--auto-deeplab", tmp_path, *options, *small) == 0
    found = json.loads(path.read_text())["peers"]["Auto-DeepLab"]
    assert list(found) == ["Auto-DeepLab", "reference", "batched/fast"]
    # the logits are no weights
    assert found["Auto-DeepLab"]["parameters"] == 3 * 9 * 2 + 2 + 2 * (4 * 9 + 2) + 10 * 3
    assert found["batched/fast"]["parameters"] == found["reference"]["parameters"]
    assert found["batched/fast"]["kept"] < found["reference"]["kept"]
    assert found["batched/fast"]["launches"] < found["reference"]["launches"]
