"""By how much a real step raises the resident memory of a fresh process, which the planner has predicted."""

import copy
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from search.engine import fake_step
from search.engine.bilevel_loop import BilevelLoop
from search.engine.fake_step import need_of
from search.registry import MODELS
from search.supernet import record

ROOT = Path(__file__).resolve().parents[3]
CHILD = """
import json
import torch
torch.set_num_threads(1)
from {module} import growths
print(json.dumps(growths()))
"""
needs_proc = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads /proc, which only Linux has")


class Unmeasured(fake_step._Step):
    """A step without the hooks that count what is kept."""

    _losses = BilevelLoop._losses


def resident(name):
    """Bytes of this process: VmRSS now, VmHWM at most."""
    return 1024 * int(re.search(rf"^{name}:\s*(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)[1])


def growth(cfg, adapter):
    """(Bytes by which a real step raises this process's resident memory at its peak, predicted)."""
    predicted = need_of(cfg, adapter).peak
    # from here on, after python's own objects
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    runner = fake_step._runner(cfg, record(lambda: MODELS.build(copy.deepcopy(cfg.model))).space)
    step = Unmeasured(runner, None, cfg.train_cfg.get("batch_parts", 1))
    fake_step._fill_optimizers(runner)
    data, arch_data = (step._prepared(adapter.memory_batch(cfg, f"{name}_dataloader")) for name in ("train", "arch"))
    step._weight_step(data)
    step._arch_step(data, arch_data)
    return resident("VmHWM") - before, predicted


def grows_as_predicted(module):
    """Runs ``growths()`` of a module, a dict of `growth` by name, in a fresh process, and compares."""
    # freed tensors go back to the system at once, instead of staying in gaps of the C heap
    malloc = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
    environment = {**os.environ, **malloc, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    program = CHILD.format(module=module)
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    for name, (grown, predicted) in found.items():
        print(f"{name}: grown {grown / 2**20:.0f} MiB, predicted {predicted / 2**20:.0f} MiB")
        assert predicted > 250 * 2**20, name
        assert abs(grown - predicted) < 0.15 * predicted + 64 * 2**20, (name, grown, predicted)
