"""tools/benchmark.py: real trainings on the digits and on embedded scenes, shortened."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from search.space import load
from search.strategies import random_architectures
from tools import benchmark

ROOT = Path(__file__).resolve().parents[2]
CONFIGS, ARCHS = ROOT / "configs", ROOT / "backbones" / "archs"
DIGITS = str(CONFIGS / "classification" / "cells_digits_cpu_retrain.py")
V2, NAS_FPN = str(ARCHS / "darts_v2.json"), str(ARCHS / "nas_fpn_cells.json")
SHORT = ["train_cfg.max_epochs=1", "model.backbone.layers=3"]
ENTRIES = [
    dict(name="DARTS V2", config=DIGITS, arch=V2, options=["model.backbone.channels=4"]),
    dict(name="random, narrow", config=DIGITS, random=3, options=["model.backbone.channels=2"]),
]


def written(folder, *entries, more=""):
    path = folder / "bench.py"
    path.write_text(f"entries = {list(entries)!r}\n{more}")
    return str(path)


def arguments(tmp_path, *more, entries=ENTRIES):
    work_dir = ["--work-dir", str(tmp_path / "w"), "--rounds", "2"]
    return [written(tmp_path, *entries), *work_dir, "--seeds", "0", "--cfg-options", *SHORT, *more]


def entry(**changes):
    return {key: value for key, value in {**ENTRIES[0], **changes}.items() if value is not None}


def only(folder):
    return json.loads((folder / "benchmark.json").read_text())


@pytest.mark.parametrize(
    "entries, more, words",
    [
        ([], [], "no list of entries"),
        ([entry(archs="a.json", arch=None)], [], "entries[0]: unknown key 'archs', the nearest known one is 'arch'"),
        ([entry(config=None)], [], "entries[0] has no config"),
        ([entry(options="a=1")], [], "entries[0].options='a=1': give a list of texts"),
        ([entry(config="absent.py")], [], "absent.py does not exist"),
        ([entry(), entry()], [], "two entries are named 'DARTS V2'"),
        ([entry(), entry(name="DARTS-V2"), entry(name="DARTS: V2")], [], "'DARTS V2' and 'DARTS: V2' have names that differ"),
        ([entry(random=0)], [], "both arch and random"),
        ([entry(arch=None)], [], "entry 'DARTS V2': the config leaves its backbone open"),
        ([entry(arch="absent.json")], [], "there is no architecture file"),
        ([entry(arch=NAS_FPN)], [], "of its part 'backbone', but"),
        ([entry(arch=[V2, V2])], [], "have a part 'backbone': leave one out"),
        ([entry(options=["model.backbone.nodes=3"])], [], "entry 'DARTS V2': model can't be built"),
        ([entry(options=["train_cfg.max_epoch=1"])], [], "entry 'DARTS V2': train_cfg: unknown key 'max_epoch'"),
        (ENTRIES, ["--seeds"], "needs seeds"),
        (ENTRIES, ["--seeds", "1", "1"], "give each seed once"),
        (ENTRIES, ["--seeds", "-1"], "-1"),
        (ENTRIES, ["--jobs", "0"], "--jobs=0"),
        (ENTRIES, ["--only", "DARTS"], "unknown entry 'DARTS', the nearest known one is 'DARTS V2'"),
        (ENTRIES, ["--arch", "a.json"], "expected NAME=FILE"),
        (ENTRIES, ["--only", "DARTS V2", "--arch", "random, narrow=a.json"], "leaves out entry 'random, narrow'"),
        ([entry(), entry(name="b", options=["score.rule=less"])], [], "no test in common: score.rule is 'greater' and 'less'"),
        (
            [entry(), entry(name="b", options=["test_dataloader.dataset.folder=train"])],
            [],
            "dataset.folder is 'test' and 'train'",
        ),
    ],
)
def test_mistakes_have_one_sentence(tmp_path, capsys, entries, more, words):
    assert benchmark.main(arguments(tmp_path, *more, entries=entries)) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and words in error, error
    assert not (tmp_path / "w" / "train").exists()


def test_an_architecture_of_another_space_is_told_before_anything_is_trained(tmp_path, capsys):
    file = ARCHS / "spos.json"
    assert benchmark.main(arguments(tmp_path, entries=[*ENTRIES, entry(name="SPOS", arch=str(file))])) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: entry 'SPOS': ") and error.count("\n") == 1 and "space" in error
    assert not (tmp_path / "w" / "train").exists()


def test_a_name_that_is_neither_entries_nor_a_variable_is_refused(tmp_path, capsys):
    path = written(tmp_path, *ENTRIES, more="_mine = 3\nseeds = [1]\n")
    assert benchmark.main([path, "--work-dir", str(tmp_path / "w")]) == 2
    assert "unknown key 'seeds'" in capsys.readouterr().err


def test_tasks_that_differ_are_refused(tmp_path, capsys):
    pytest.importorskip("mmdet")
    scenes = str(CONFIGS / "detection" / "cells_scenes_cpu_retrain.py")
    entries = [entry(), entry(name="detector", config=scenes)]
    path = written(tmp_path, *entries)
    assert benchmark.main([path, "--work-dir", str(tmp_path / "w")]) == 2
    assert "no test in common: task is 'classification' and 'detection'" in capsys.readouterr().err


def test_digits_in_one_table_and_again_in_no_time(tmp_path, capsys):
    assert benchmark.main(arguments(tmp_path)) == 0
    folder = tmp_path / "w"
    result = only(folder)
    scores = [row["score"]["mean"] for row in result["entries"]]
    assert scores == sorted(scores, reverse=True)
    rows = {row["name"]: row for row in result["entries"]}
    assert set(rows) == {"DARTS V2", "random, narrow"}
    for name, row in rows.items():
        summary = json.loads((folder / "train" / re.sub(r"\W+", "_", name) / "seed0" / "summary.json").read_text())
        assert (row["params"], row["macs"]) == (summary["derived"]["params"], summary["derived"]["macs"])
        assert [run["test"] for run in row["runs"]] == [row["score"]["mean"]] and row["metrics"]["top1"] == row["score"]["mean"]
        assert row["latency"]["median"] > 0 and row["latency"]["runs"] >= 2 and row["peak_memory_mib"] > 0
    narrow, published = rows["random, narrow"], rows["DARTS V2"]
    assert narrow["macs"] < published["macs"]
    assert result["recipes"] == {} and result["tests"] == []

    (part,) = published["parts"]
    assert part["from"]["file"] == V2 and part["choices"] == load(V2).parts["backbone"].architecture.to_json()
    (drawn,) = random_architectures(load(V2).parts["backbone"].space, 1, 3)
    assert narrow["parts"][0]["choices"] == drawn.to_json()
    assert load(folder / "architectures" / "random_narrow.json").parts["backbone"].architecture == drawn

    table = (folder / "benchmark.md").read_text()
    first = result["entries"][0]["name"]
    lines = table.splitlines()
    assert (
        lines[4].startswith(f"| {first} |")
        and "backbone: random, seed 3" in table
        and "the same schedule, data and augmentation" in table
    )
    assert "DARTS V2" in (folder / "pareto.svg").read_text()

    history = folder / "train" / "DARTS_V2" / "seed0" / "history.jsonl"
    before = history.stat().st_mtime_ns
    capsys.readouterr()
    assert benchmark.main(arguments(tmp_path)) == 0
    assert only(folder) == result and history.stat().st_mtime_ns == before
    assert "2 of 2 runs are finished already" in capsys.readouterr().out

    # another recipe isn't taken for this one
    assert benchmark.main(arguments(tmp_path, "--cfg-options", "optim_wrapper.optimizer.lr=0.1")) == 2
    assert "other settings" in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_benchmark_goes_on_and_four_seeds_are_tested(tmp_path):
    more = ["--seeds", "0", "1", "2", "3"]
    recipe = entry(name="other rate", options=["optim_wrapper.optimizer.lr=0.01"])
    argv = arguments(tmp_path, *more, entries=[ENTRIES[0], recipe])
    command = [sys.executable, str(ROOT / "tools" / "benchmark.py"), *argv]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        for line in process.stdout:
            if line.startswith("[2/8] train"):
                break
        process.kill()
    history = tmp_path / "w" / "train" / "DARTS_V2" / "seed0" / "history.jsonl"
    before = history.stat().st_mtime_ns
    assert not (tmp_path / "w" / "benchmark.json").exists()
    assert subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, cwd=tmp_path).returncode == 0
    assert history.stat().st_mtime_ns == before
    result = only(tmp_path / "w")
    assert [len(row["runs"]) for row in result["entries"]] == [4, 4]
    # every seed is a training of its own
    assert all(len({run["train_seconds"] for run in row["runs"]}) == 4 for row in result["entries"])
    (test,) = result["tests"]
    assert {test["a"], test["b"]} == {"DARTS V2", "other rate"} and test["p"] >= 2 / 70
    assert result["recipes"] == {"optim_wrapper.optimizer.lr": {"DARTS V2": 0.05, "other rate": 0.01}}
    assert "optim_wrapper.optimizer.lr" in (tmp_path / "w" / "benchmark.md").read_text()


@pytest.mark.slow
def test_what_was_searched_on_digits_is_a_detectors_backbone(tmp_path, tool, cache):
    pytest.importorskip("mmdet")
    from tests.tools.test_detection import CELLS, HEADS, RESNET, write

    searched = tmp_path / "searched"
    config = CONFIGS / "classification" / "cells_pc_darts_digits_cpu.py"
    options = ["train_cfg.max_epochs=1", "strategy.freeze_epochs=0", "model.backbone.channels=4", "model.backbone.nodes=2"]
    assert tool("search")(config, "--work-dir", searched, "--seed", 5, "--cfg-options", *options) == 0

    short = "train_cfg = dict(max_epochs=1, val_interval=1)\n"
    cells = write(tmp_path, "cells_scenes_cpu_retrain", CELLS + short)
    entries = [dict(name="cells", config=str(cells), random=0)]
    for kind, heads in HEADS.items():
        plain = write(tmp_path, f"{kind}_resnet18_scenes_cpu_retrain", RESNET.format(heads=heads))
        entries.append(dict(name=kind, config=str(plain)))
    argv = [written(tmp_path, *entries), "--work-dir", str(tmp_path / "w"), "--seeds", "0", "--rounds", "2"]
    assert benchmark.main([*argv, "--arch", f"cells={searched / 'architecture.json'}"]) == 0
    result = only(tmp_path / "w")
    assert result["task"] == "detection" and result["score"]["key"] == "bbox_mAP"
    rows = {row["name"]: row for row in result["entries"]}
    assert set(rows) == {"cells", *HEADS}
    assert all(row["latency"]["median"] > 0 and 0 <= row["score"]["mean"] <= 100 for row in rows.values())
    (part,) = rows["cells"]["parts"]
    found = load(searched / "architecture.json").parts["backbone"]
    assert (part["fingerprint"], part["choices"]) == (found.fingerprint, found.architecture.to_json())
    assert (part["from"]["task"], part["from"]["seed"]) == ("classification", 5)
    words = "classification, cells_pc_darts_digits_cpu, seed 5"
    assert words in (tmp_path / "w" / "benchmark.md").read_text()
    assert json.loads((tmp_path / "w" / "train" / "cells" / "seed0" / "summary.json").read_text())["architectures"] == {
        "backbone": part["choices"]
    }


@pytest.mark.parametrize("path", sorted((CONFIGS / "benchmarks").glob("*.py")), ids=lambda path: path.stem)
def test_the_shipped_benchmarks_can_be_built(path):
    pytest.importorskip("mmdet")
    pytest.importorskip("mmseg")
    from search.engine.benchmark import Protocol, require_same_test
    from search.engine.benchmark_file import read
    from search.engine.benchmark_parts import architecture_of

    protocol = Protocol(entries=tuple(read([str(path)])), work_dir=Path("nowhere"))
    configs = {one.name: protocol.run(one, 0, None).load() for one in protocol.entries}
    require_same_test(configs)
    for one in protocol.entries:
        parts = architecture_of(one, configs[one.name])
        assert bool(parts) == bool(one.arch or one.random is not None)


@pytest.mark.parametrize("data", ["scenes", "coco"])
def test_the_plain_pyramid_beside_nas_fpn_differs_in_the_neck_alone(data):
    pytest.importorskip("mmdet")
    from search.engine.benchmark import Protocol, _recipe, differences
    from search.engine.benchmark_file import read

    path = CONFIGS / "benchmarks" / f"detection_{data}_cpu.py"
    protocol = Protocol(entries=tuple(read([str(path)])), work_dir=Path("nowhere"))
    configs = {one.name: protocol.run(one, 0, None).load() for one in protocol.entries}
    plain, searched = (configs[f"RetinaNet, half width, {neck}"] for neck in ("FPN", "NAS-FPN"))
    assert (plain.model.pop("neck").type, searched.model.pop("neck").type) == ("mmdet.FPN", "search.NASFPN")
    assert plain.model == searched.model and plain.model.backbone.base_channels == 32
    assert differences({"plain": _recipe(plain), "searched": _recipe(searched)}) == {}
