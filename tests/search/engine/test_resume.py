"""A run that was really killed and goes on equals one that wasn't, in every bit."""

import json
import signal
from pathlib import Path

import pytest
import torch

from tests.search.engine import tiny

# 6 steps an epoch; a checkpoint every 2 steps and at the end of each epoch
LOOP = {"save_steps": 2}
# the killing hook stands under a name that changes no result, so that the run without it may go on
EMA = {"type": "EMAHook", "momentum": 0.1}


@pytest.fixture(scope="module", params=["search", "train"])
def straight(request, tmp_path_factory):
    """(whether training, the state of an uninterrupted run, its history)."""
    folder = tmp_path_factory.mktemp("straight")
    train = request.param == "train"
    assert tiny.in_children(folder, train=train, loop=LOOP, custom_hooks=[EMA]) == [0]
    return train, tiny.state(folder), _history(folder)


def _history(folder):
    lines = [json.loads(line) for line in (Path(folder) / "history.jsonl").read_text().splitlines()]
    timing = ("seconds", "images_per_second", "peak_memory_mib")
    return [{k: v for k, v in line.items() if k not in timing} for line in lines]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("where", "at"),
    [
        ("step", 11),  # inside the second epoch, one step after a checkpoint
        ("epoch", 2),  # when the second epoch has run its last step
        ("write", 10),  # half of the checkpoint after step 10 is written
    ],
)
def test_killed_run_goes_on_bit_for_bit(straight, tmp_path, where, at, workers):
    train, expected, history = straight
    args = {"train": train, "workers": workers, "loop": LOOP, "custom_hooks": [EMA]}
    kill = {"visualization": {"type": "search.Kill", "where": where, "at": at}}
    assert tiny.in_children(tmp_path, **args, default_hooks=kill) == [-signal.SIGKILL]
    saved = torch.load(tmp_path / "checkpoint.pth", weights_only=True)["visnas"]["loop"]
    assert saved["step"] == {"step": 10, "epoch": 10, "write": 8}[where]
    assert tiny.in_children(tmp_path, **args, resume=True) == [0]
    assert tiny.differences(expected, tiny.state(tmp_path)) == []
    assert _history(tmp_path) == history
    assert not list(tmp_path.glob(".*.tmp"))


def test_accumulated_gradients_survive(tmp_path):
    """Killed after step 11, saved after step 10: one step's gradient was waiting for two more."""
    wrapper = {"optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.9}, "accumulative_counts": 3}
    args = {"loop": LOOP, "optim_wrapper": wrapper}
    assert tiny.in_children(tmp_path / "straight", **args) == [0]
    kill = {"visualization": {"type": "search.Kill", "where": "step", "at": 11}}
    assert tiny.in_children(tmp_path / "killed", **args, default_hooks=kill) == [-signal.SIGKILL]
    assert tiny.in_children(tmp_path / "killed", **args, resume=True) == [0]
    assert tiny.differences(tiny.state(tmp_path / "straight"), tiny.state(tmp_path / "killed")) == []
