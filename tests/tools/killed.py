"""Searches that are killed in training, and among the paths of a one-shot search, and go on; for every task's configs alike."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import torch

from tests.search.engine import tiny

ROOT = Path(__file__).resolve().parents[2]
KILLED = """
import os, signal, sys
sys.path.insert(0, {root!r})
from mmengine.hooks import Hook
from search.engine import one_shot
from search.registry import HOOKS

@HOOKS.register_module()
class Kill(Hook):
    priority = 'LOWEST'

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        # of a search by gradients in the second epoch, before its second checkpoint
        if runner.iter + 1 == 4:
            os.kill(os.getpid(), signal.SIGKILL)

line = one_shot._line

def scored(runner, number, architecture):
    if os.environ.get('KILLED_BEFORE_PATH') == str(number):
        os.kill(os.getpid(), signal.SIGKILL)
    with open(os.path.join(runner.work_dir, 'scored.txt'), 'a') as file:
        print(number, file=file)
    return line(runner, number, architecture)

one_shot._line = scored
import importlib.util
spec = importlib.util.spec_from_file_location('tool', {root!r} + '/tools/search.py')
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)
sys.exit(tool.main(sys.argv[1:]))
"""


def goes_on_bit_for_bit(config: Path, folder: Path, one_shot: bool = False) -> None:
    """A search straight on, and one that is killed at its fourth step and resumed, leave the same.

    The config saves a checkpoint after the third step. ``one_shot``: killed once more, after the second path was scored.
    """
    script = folder / "run.py"
    script.write_text(KILLED.format(root=str(ROOT)))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}

    def run(name, *more, **variables):
        command = [sys.executable, str(script), str(config), "--work-dir", str(folder / name), *more]
        return subprocess.run(command, env={**environment, **variables}, capture_output=True, timeout=600)

    # a hook by mmengine's own name, so that the run without it may go on
    kill = ("--cfg-options", "default_hooks.visualization.type=search.Kill")
    straight = run("straight")
    assert straight.returncode == 0, straight.stderr.decode()[-2000:]
    assert run("killed", *kill).returncode == -signal.SIGKILL
    saved = torch.load(folder / "killed" / "checkpoint.pth", weights_only=True)["visnas"]["loop"]
    assert saved["step"] == 3
    if one_shot:
        assert run("killed", "--resume", KILLED_BEFORE_PATH="2").returncode == -signal.SIGKILL
        assert not (folder / "killed" / "architecture.json").exists()
        assert [row["trial"] for row in history(folder / "killed") if "trial" in row] == [0, 1]
    resumed = run("killed", "--resume")
    assert resumed.returncode == 0, resumed.stderr.decode()[-2000:]
    assert history(folder / "straight") == history(folder / "killed")
    if one_shot:
        # every path once, in the two that were killed together
        scored = [(folder / name / "scored.txt").read_text().split() for name in ("straight", "killed")]
        assert scored[0] == scored[1] == [str(number) for number in range(len(scored[0]))] and len(scored[0]) > 2
    assert tiny.differences(tiny.state(folder / "straight"), tiny.state(folder / "killed")) == []


def history(work_dir: Path) -> list[dict]:
    """The lines of history.jsonl, without what was measured."""
    measured = ("seconds", "images_per_second", "peak_memory_mib")
    rows = [json.loads(line) for line in (work_dir / "history.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in measured} for row in rows]
