"""A search that is killed in its second epoch and goes on, for every task's configs alike."""

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
from mmengine.hooks import Hook
from search.registry import HOOKS

@HOOKS.register_module()
class Kill(Hook):
    priority = 'LOWEST'

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        # in the second epoch, before its second checkpoint
        if runner.iter + 1 == 4:
            os.kill(os.getpid(), signal.SIGKILL)

sys.path.insert(0, {root!r})
import importlib.util
spec = importlib.util.spec_from_file_location('tool', {root!r} + '/tools/search.py')
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)
sys.exit(tool.main(sys.argv[1:]))
"""


def goes_on_bit_for_bit(config: Path, folder: Path) -> None:
    """A config of three steps an epoch, searched straight on, and killed at the fourth step and resumed, leaves the same."""
    script = folder / "run.py"
    script.write_text(KILLED.format(root=str(ROOT)))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}

    def run(name, *more):
        command = [sys.executable, str(script), str(config), "--work-dir", str(folder / name), *more]
        return subprocess.run(command, env=environment, capture_output=True, timeout=600)

    # a hook by mmengine's own name, so that the run without it may go on
    kill = ("--cfg-options", "default_hooks.visualization.type=search.Kill")
    straight = run("straight")
    assert straight.returncode == 0, straight.stderr.decode()[-2000:]
    assert run("killed", *kill).returncode == -signal.SIGKILL
    saved = torch.load(folder / "killed" / "checkpoint.pth", weights_only=True)["visnas"]["loop"]
    assert saved["step"] == 3
    assert run("killed", "--resume").returncode == 0
    assert tiny.differences(tiny.state(folder / "straight"), tiny.state(folder / "killed")) == []
