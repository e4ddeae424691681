import json
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.registry import DefaultScope

ROOT = Path(__file__).resolve().parents[2]
RETRAIN = ROOT / "configs" / "classification" / "cells_folder_cpu_retrain.py"
MOBILE = ROOT / "configs" / "_base_" / "model" / "chain_mobile.py"
NARROW = {"schema": "mobilenet_v1", "width_mult": 0.25}


def counts(tool, capsys, *argv):
    assert tool("cost")(*argv, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_published_figures(tool, capsys):
    row = counts(tool, capsys, "DARTS_V2", "--shape", 3, 32, 32)
    assert (round(row["params"] / 1e6, 4), round(row["macs"] / 1e6, 2)) == (3.3493, 528.36)
    assert (row["name"], row["input_size"], row["convention"]) == ("darts_v2", [3, 32, 32], "macs")
    # its ImageNet network has 50 channels, which the file says
    row = counts(tool, capsys, "gdas_v1")
    assert (round(row["params"] / 1e6, 4), round(row["macs"] / 1e6, 2)) == (5.3451, 581.01)


def test_a_file_with_settings_of_one_s_own(tool, searched, capsys):
    options = ("--shape", 3, 16, 16, "--channels", 4, "--layers", 3, "--classes", 3)
    row = counts(tool, capsys, searched / "architecture.json", "--stem", "cifar", "--shape", 3, 64, 64)
    assert row["input_size"] == [3, 64, 64]
    assert row["stem"] == "cifar"
    assert counts(tool, capsys, searched / "architecture.json", *options)["params"] < row["params"]


def test_the_other_convention_and_an_unknown_name(tool, capsys):
    row = counts(tool, capsys, "PDARTS ImageNet 48/14", "--convention", "thop-legacy")
    assert round(row["macs"] / 1e6, 2) == 557.26
    with pytest.raises(SystemExit) as stop:
        tool("cost")()
    assert stop.value.code == 2
    assert tool("cost")("nobody") == 2
    assert "no published network is called 'nobody'" in capsys.readouterr().err


def test_a_config_s_model_with_an_architecture(tool, capsys):
    path = ROOT / "backbones" / "archs" / "darts_v2.json"
    rows = [counts(tool, capsys, "--config", RETRAIN, arch, "--shape", 3, 32, 32) for arch in ("DARTS_V2", path)]
    assert rows[0] == rows[1] and rows[0]["name"] == "cells_folder_cpu_retrain"


def test_a_detector_is_counted_in_whatever_scope_a_runner_left(tool, capsys):
    pytest.importorskip("mmdet")
    with DefaultScope.overwrite_default_scope("mmengine"):
        row = counts(tool, capsys, "RetinaNet FNA")
    assert row["status"]["params"] == "exact"


def test_types_of_a_config_are_looked_up_in_its_default_scope(tool, capsys, tmp_path):
    """As mmdet's own configs write them."""
    pytest.importorskip("mmdet")
    scoped = ROOT / "configs" / "detection" / "retinanet_resnet18_coco_cpu_retrain.py"
    path = tmp_path / "plain.py"
    path.write_text(f"_base_ = {str(scoped)!r}\nmodel = dict(type='RetinaNet', neck=dict(type='FPN'))\n")
    rows = [counts(tool, capsys, "--config", config, "--shape", 3, 64, 64) for config in (scoped, path)]
    assert rows[0] == {**rows[1], "name": scoped.stem}


def test_json_is_all_of_the_output_in_any_folder(tmp_path):
    """Also of a segmentor, whose parts warn."""
    command = [sys.executable, ROOT / "tools" / "cost.py", "SqueezeNAS lat_small", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["name"] == "SqueezeNAS lat_small"


def test_of_several_rows_those_without_a_specification_are_listed(tool, capsys, tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"name": "a", "spec": None}, {"name": "b", "spec": NARROW}]))
    first, second = counts(tool, capsys, "--spec", path)
    assert (first["params"], first["missing"]) == (None, "no public specification") and second["params"] == 470072


def test_a_package_that_is_not_installed_is_named(tool, capsys, monkeypatch):
    cost = tool("cost")
    monkeypatch.setattr(sys.modules["tool_cost"], "find_spec", lambda name: None)
    assert cost("RetinaNet FNA") == 2
    assert "needs mmdet, which isn't installed: make setup EXTRAS=detection" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--spec", "absent.json"), "there is no file absent.json"),
        (("--spec", ""), "can't be read"),
        (("--spec", {"name": "a", "spec": None}), "a: no public specification"),
        (
            ("--spec", {"name": "a", "spec": {"schema": "nas_fcos"}}),
            "a: the specification of schema 'nas_fcos' is of neck and head: it doesn't say the backbone",
        ),
        (("--spec", {**NARROW, "width_mult": -1}), "c_out=-32 of a convolution must be a positive whole number"),
        (("--spec", {**NARROW, "width_mult": "0.5"}), "is damaged"),
        (("--spec", {**NARROW, "num_classes": "ten"}), "can't be built"),
        (("--spec", NARROW, "--shape", 1, 32, 32), "can't run on images of 1x32x32"),
        (("--spec", NARROW, "--shape", 3, 0, 32), "three positive whole numbers"),
        (("--spec", NARROW, "--layers", 8), "--layers goes with an architecture file of cells"),
        (("MobileNetV1 0.25 @128", "--stem", "cifar"), "--stem goes with an architecture file of cells"),
        (("DARTS_V2", "--channels", 0), "--channels=0"),
        (("--config", RETRAIN, "--shape", 3, 32, 32), "search.CellNet has no architecture"),
        (("--config", RETRAIN, "DARTS_V2"), "--shape"),
        (("--config", RETRAIN, "spos", "--shape", 3, 32, 32), "of another space"),
        (("--config", RETRAIN, "absent.json", "--shape", 3, 32, 32), "there is no architecture file absent.json"),
        (("--config", MOBILE, "--shape", 3, 32, 32), "search.ChainNet has no architecture"),
        (("--config", "absent.py", "--shape", 3, 32, 32), "absent.py does not exist"),
    ],
)
def test_mistakes_have_one_sentence(tool, capsys, tmp_path, arguments, words):
    path = tmp_path / "given.json"
    given = [str(path) if isinstance(argument, dict) else argument for argument in arguments]
    for argument in arguments:
        if isinstance(argument, dict):
            path.write_text(json.dumps(argument))
    assert tool("cost")(*given) == 2
    out, error = capsys.readouterr()
    assert error.startswith("error: ") and error.count("\n") == 1 and words in error
    assert out == ""
