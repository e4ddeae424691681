import math
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import PARAM_SCHEDULERS

from search.engine.config import load
from search.engine.searchable import modules_with

CONFIGS = sorted([*Path("configs/classification").glob("*.py"), *Path("configs/demo").glob("digits_*.py")])
SEARCHES = [path for path in sorted(Path("configs").glob("[!_]*/*.py")) if "darts.py" in path.read_text()]


def rates(path):
    """The learning rate of every epoch, by mmengine's own schedulers."""
    cfg = Config.fromfile(path)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=cfg.optim_wrapper.optimizer.lr)
    schedulers = [PARAM_SCHEDULERS.build({"optimizer": OptimWrapper(optimizer), **s}) for s in cfg.param_scheduler]
    found = []
    for _ in range(cfg.train_cfg.max_epochs):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return found


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_key_is_known(path):
    cfg = load(path)
    assert cfg.seed == 0 and cfg.splits.seed == 0 and cfg.task == "classification"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_batches_are_tensors_and_channels_divide_by_k(path):
    cfg = load(path)
    for name in ("train_dataloader", "val_dataloader", "test_dataloader"):
        assert cfg[name].collate_fn.type == "default_collate"
    backbone = cfg.model.backbone
    assert backbone.channels % backbone.get("partial", 1) == 0


def test_schedules_of_the_papers():
    folder = Path("configs/classification")

    def cosine(e, epochs, high, low=0.0):
        return low + (high - low) * (1 + math.cos(math.pi * e / epochs)) / 2

    assert rates(folder / "cells_darts_cifar10.py") == pytest.approx([cosine(e, 50, 0.025, 0.001) for e in range(50)])
    assert rates(folder / "cells_pc_darts_cifar10.py") == pytest.approx([cosine(e, 50, 0.1) for e in range(50)])
    assert rates(folder / "cells_darts_cifar10_retrain.py") == pytest.approx([cosine(e, 600, 0.025) for e in range(600)])
    assert rates(folder / "cells_darts_imagenet_retrain.py") == pytest.approx([0.1 * 0.97**e for e in range(250)])
    search = rates(folder / "cells_pc_darts_imagenet.py")
    assert search[5:] == pytest.approx([cosine(e, 50, 0.5) for e in range(5, 50)])
    assert search[:5] == pytest.approx([0.5 * (e + 1) / 5 for e in range(5)], rel=0.016)

    def official(e):
        rate = 0.5 * (245 - e) / 245 if 250 - e > 5 else 0.5 * (250 - e) / (245 * 5)
        return rate * (e + 1) / 5 if e < 5 else rate

    found = rates(folder / "cells_pc_darts_imagenet_retrain.py")
    assert found == pytest.approx([official(e) for e in range(250)])


def test_settings_of_the_papers():
    folder = Path("configs/classification")
    darts, pc = load(folder / "cells_darts_cifar10.py"), load(folder / "cells_pc_darts_cifar10.py")
    assert (darts.train_dataloader.batch_size, pc.train_dataloader.batch_size) == (64, 256)
    assert (darts.arch_optimizer.lr, pc.arch_optimizer.lr) == (3e-4, 6e-4)
    assert (darts.model.backbone.get("partial", 1), pc.model.backbone.partial) == (1, 4)
    assert (darts.strategy.order, pc.strategy.freeze_epochs) == (2, 15)
    imagenet = load(folder / "cells_pc_darts_imagenet.py")
    assert imagenet.model.backbone.partial == 2 and imagenet.strategy.freeze_epochs == 35
    assert (imagenet.splits.weights, imagenet.splits.architecture) == (0.10, 0.025)
    retrain = load(folder / "cells_pc_darts_cifar10_retrain.py")
    assert retrain.model.backbone.drop_path == 0.3 and retrain.model.aux_weight == 0.4
    assert retrain.train_dataloader.dataset.pipeline[-1] == dict(type="search.Cutout", length=16)


@pytest.mark.parametrize("path", SEARCHES, ids=lambda p: p.stem)
def test_searches_by_gradients_run_in_fewer_passes(path):
    """Every part that has plans of execution has the same one, not edge by edge, so that the memory planner can change it."""
    for package in ("mmdet", "mmseg"):
        pytest.importorskip(package)
    model = load(path).model
    plans, memories, shares = (dict(modules_with(model, name)) for name in ("plan", "memory", "partial"))
    # NAS-FPN's relaxation has none
    assert len(plans) == len(memories) == (0 if path.stem.startswith("nas_fpn_") else len(shares))
    assert set(plans.values()) in (set(), {"auto"}, {"batched"}) and set(memories.values()) <= {"fast"}
