"""Auto-DeepLab's search through the tool on embedded scenes: killed and resumed, and in two processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from search.space import load
from tests.tools.killed import goes_on_bit_for_bit

pytest.importorskip("mmseg")

ROOT = Path(__file__).resolve().parents[2]
# scenes of 64x48 pixels, three steps an epoch
SEARCH = """
_base_ = {base!r}
scenes = dict(width=64, height=48, train=14, val=4, test=1)
model = dict(
    data_preprocessor=dict(size=(32, 32)),
    backbone=dict(layers=4, blocks=2, filters=4, stem=(4, 4, 8)),
    decode_head=dict(in_channels=[8, 16, 32, 64]),
)
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmseg.LoadAnnotations'),
    dict(type='mmseg.RandomCrop', crop_size=(32, 32), cat_max_ratio=0.9),
    dict(type='mmseg.PhotoMetricDistortion'),
    dict(type='mmseg.PackSegInputs'),
]
splits = dict(_delete_=True, weights=0.4, architecture=0.4, validation=0.2, seed=0)
strategy = dict(freeze_epochs=1)
train_cfg = dict(max_epochs=2, val_interval=1, save_steps=1)
train_dataloader = dict(batch_size=2, num_workers={workers}, dataset=dict(scenes=scenes, pipeline=pipeline))
arch_dataloader = dict(batch_size=2, dataset=dict(scenes=scenes, pipeline=pipeline))
val_dataloader = dict(dataset=dict(scenes=scenes))
test_dataloader = dict(dataset=dict(scenes=scenes))
"""
DUMP = """
custom_imports = dict(imports=['tasks.segmentation', 'backbones', 'tests.search.engine.tiny'])
default_hooks = dict(progress=dict(type='search.Dump'))
"""


def write(folder, more="", workers=0):
    path = folder / "trellis.py"
    path.write_text(SEARCH.format(base=str(ROOT / "configs/segmentation/auto_deeplab_scenes_cpu.py"), workers=workers) + more)
    return path


@pytest.mark.slow
def test_killed_search_goes_on_bit_for_bit(tmp_path, cache):
    goes_on_bit_for_bit(write(tmp_path), tmp_path)


@pytest.mark.slow
def test_two_processes_hold_equal_weights_and_logits(tmp_path, cache):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [
        *launch,
        "tools/search.py",
        str(write(tmp_path, DUMP)),
        "--work-dir",
        str(tmp_path / "w"),
        "--launcher",
        "pytorch",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    found = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert found.returncode == 0, found.stderr[-2000:]
    first, second = (torch.load(tmp_path / "w" / f"rank{r}.pt", weights_only=True) for r in (0, 1))
    learned = [name for name in first if "running_" not in name]
    assert all(torch.equal(first[name], second[name]) for name in learned)
    assert {"logits/path", "logits/cell/n2<-1"} <= set(learned)
    # they start with a standard deviation of 0.001, and move for three steps
    assert first["logits/path"].abs().max() > 0.01
    path = load(tmp_path / "w" / "architecture.json").parts["backbone"].architecture["path"]
    last = json.loads((tmp_path / "w" / "history.jsonl").read_text().splitlines()[-1])
    assert len(path) == 4 and last["score"]["derived"] is not None
