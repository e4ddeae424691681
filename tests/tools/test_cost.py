import json

import pytest


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
