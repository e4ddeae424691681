"""Budgets through the tools: a search ends within its budget or with exit code 3, and tools/cost.py prints the same figures."""

import json
import os

import pytest

from tests.tools.conftest import ROOT

SEGMENTOR = """
_base_ = {base!r}
scenes = dict(width=64, height=48, train=14, val=4, test=1)
model = dict(
    data_preprocessor=dict(size=(32, 32)),
    backbone=dict(layers=3, blocks=1, filters=4, stem=(4, 4, 8)),
    decode_head=dict(in_channels=[4, 8, 16], in_index=[0, 1, 2], strides=[4, 8, 16]),
)
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmseg.LoadAnnotations'),
    dict(type='mmseg.RandomCrop', crop_size=(32, 32), cat_max_ratio=0.9),
    dict(type='mmseg.PackSegInputs'),
]
train_dataloader = dict(batch_size=2, num_workers=0, dataset=dict(scenes=scenes, pipeline=pipeline))
arch_dataloader = dict(batch_size=2, dataset=dict(scenes=scenes, pipeline=pipeline))
val_dataloader = dict(dataset=dict(scenes=scenes))
test_dataloader = dict(dataset=dict(scenes=scenes))
splits = dict(images=14, weights=0.4, architecture=0.4, validation=0.2)
strategy = dict(freeze_epochs=0)
train_cfg = dict(max_epochs=1)
budget = dict(macs={macs}, params=1e6, activations='40MB')
"""


def counted(tool, capsys, work_dir, shape):
    """What tools/cost.py prints of the network that a search found."""
    arguments = ("--config", work_dir / "config.py", work_dir / "architecture.json", "--shape", *shape, "--json")
    assert tool("cost")(*arguments) == 0
    return json.loads(capsys.readouterr().out)


def smallest(error):
    sentence = error.splitlines()[-1]
    assert sentence.startswith("error: budget.macs=1 multiply-adds can't be met: no network of this space has fewer than ")
    return int(sentence.partition("fewer than ")[2].partition(" ")[0].replace(",", ""))


def test_a_classifier_is_found_within_its_budget_or_not_at_all(tool, found, search_config, tmp_path, one_thread, capsys):
    least = smallest(found(3, search_config, tmp_path / "w", "budget.macs=1"))
    assert not (tmp_path / "w" / "checkpoint.pth").exists()
    # the same folder may be used again, and what is smallest is possible
    found(0, search_config, tmp_path / "w", f"budget.macs={least}", "train_cfg.max_epochs=1")
    summary = json.loads((tmp_path / "w" / "summary.json").read_text())
    figures = counted(tool, capsys, tmp_path / "w", (3, 16, 16))
    assert figures["macs"] == least == summary["derived"]["macs"] == summary["budget"]["limits"]["macs"]["derived"]
    assert figures["params"] == summary["derived"]["params"]
    assert "Budget of the whole network" in (tmp_path / "w" / "report.html").read_text()
    assert "'mac', the nearest known one is 'macs'" in found(2, search_config, tmp_path / "x", "budget.mac=1")


@pytest.mark.slow
def test_a_segmentor_is_found_within_its_budget_or_not_at_all(tool, found, tmp_path, one_thread, capsys, monkeypatch):
    pytest.importorskip("mmseg")
    monkeypatch.setitem(os.environ, "VISNAS_CACHE", str(tmp_path / "cache"))
    base = str(ROOT / "configs" / "segmentation" / "auto_deeplab_budget_scenes_cpu.py")
    config = tmp_path / "search.py"
    config.write_text(SEGMENTOR.format(base=base, macs=1))
    least = smallest(found(3, config, tmp_path / "w"))
    config.write_text(SEGMENTOR.format(base=base, macs=1.05 * least))
    found(0, config, tmp_path / "w")
    summary = json.loads((tmp_path / "w" / "summary.json").read_text())
    figures = counted(tool, capsys, tmp_path / "w", summary["derived"]["input_size"])
    for key in ("macs", "params", "activations"):
        assert figures[key] == summary["derived"][key]
    assert summary["budget"]["limits"]["activations"] == {
        **summary["budget"]["limits"]["activations"],
        "limit": 10e6,
        "derived": figures["activations"],
    }
    assert least <= figures["macs"] <= 1.05 * least and summary["derived"]["input_size"] == [3, 48, 64]
    # a decode head of one stride, without which this is no network
    path = json.loads((tmp_path / "w" / "architecture.json").read_text())["parts"]["backbone"]["choices"]["path"]
    assert len(path) == 3
