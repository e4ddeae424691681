import math
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import PARAM_SCHEDULERS

pytest.importorskip("mmseg")

from search.engine.config import load

FOLDER = Path("configs/segmentation")
CONFIGS = sorted([*FOLDER.glob("*.py"), *Path("configs/demo").glob("scenes_*.py")])


def rates(path, steps):
    """The learning rate of every step, at so many steps an epoch, by mmengine's own schedulers."""
    cfg = Config.fromfile(path)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=cfg.optim_wrapper.optimizer.lr)
    (scheduler,) = cfg.param_scheduler
    kind = PARAM_SCHEDULERS.get(scheduler.pop("type"))
    assert scheduler.pop("convert_to_iter_based")
    built = kind.build_iter_from_epoch(OptimWrapper(optimizer), **scheduler, epoch_length=steps)
    found = []
    for _ in range(cfg.train_cfg.max_epochs * steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        built.step()
    return found


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_key_is_known(path):
    cfg = load(path)
    assert cfg.seed == 0 and cfg.splits.seed == 0 and cfg.task == "segmentation"
    # names that a builder outside of a runner finds too
    assert cfg.model.type.startswith("mmseg.") and cfg.model.decode_head.type.partition(".")[0] in ("mmseg", "search")


def test_settings_of_the_paper():
    cfg = load(FOLDER / "auto_deeplab_cityscapes.py")
    assert (cfg.model.backbone.layers, cfg.model.backbone.blocks, cfg.model.backbone.filters) == (12, 5, 8)
    assert (cfg.train_cfg.max_epochs, cfg.strategy.freeze_epochs, cfg.strategy.order) == (40, 20, 1)
    assert cfg.train_dataloader.batch_size == cfg.arch_dataloader.batch_size == 2
    assert (cfg.splits.weights, cfg.splits.architecture) == (0.5, 0.5)
    steps = {t["type"]: t for t in cfg.train_dataloader.dataset.pipeline}
    assert steps["mmseg.Resize"].scale == (1024, 512) and steps["mmseg.RandomCrop"].crop_size == (321, 321)
    assert (cfg.optim_wrapper.optimizer.weight_decay, cfg.optim_wrapper.optimizer.momentum) == (3e-4, 0.9)
    assert (cfg.arch_optimizer.lr, cfg.arch_optimizer.weight_decay) == (3e-3, 1e-3)
    for size, filters in dict(s=20, m=32, l=48).items():
        cfg = load(FOLDER / f"auto_deeplab_{size}_cityscapes_retrain.py")
        assert cfg.model.backbone.filters == filters
        assert cfg.train_dataloader.dataset.pipeline[3].crop_size == (769, 769)


def test_schedules_of_the_paper():
    found = rates(FOLDER / "auto_deeplab_cityscapes.py", 10)
    expected = [0.001 + (0.025 - 0.001) * (1 + math.cos(math.pi * e / 400)) / 2 for e in range(400)]
    assert found == pytest.approx(expected, abs=1e-4)
    found = rates(FOLDER / "auto_deeplab_s_cityscapes_retrain.py", 1)
    assert found == pytest.approx([0.05 * (1 - e / 4043) ** 0.9 for e in range(4043)], abs=1e-4)


def test_settings_of_dpc():
    """What is known of the paper's search, and the official code's training; steps at 2,975 images."""
    searched = load(FOLDER / "dpc_random_cityscapes.py")
    assert (searched.strategy.type, searched.strategy.trials) == ("RandomSearch", 28_000)
    trained = load(FOLDER / "dpc_cityscapes_retrain.py")
    for cfg, share, steps in ((searched, 0.9, 30_000), (trained, 1.0, 90_000)):
        epoch = int(2975 * share) // cfg.train_dataloader.batch_size
        assert steps <= cfg.train_cfg.max_epochs * epoch < steps + epoch
        assert cfg.param_scheduler[0].end == cfg.train_cfg.max_epochs
        assert cfg.model.backbone.output_stride == 16 and "rates" not in cfg.model.neck and "grids" not in cfg.model.neck
        assert (cfg.model.neck.branches, cfg.model.neck.channels) == (5, 256)
        assert (cfg.optim_wrapper.optimizer.momentum, cfg.optim_wrapper.optimizer.weight_decay) == (0.9, 4e-5)
    assert searched.model.backbone.frozen_stages == 3 and "frozen_stages" not in trained.model.backbone
    # one space for both strategies and for training what they find
    small = [
        load(FOLDER / f"dpc_{name}.py").model.neck for name in ("darts_scenes_cpu", "random_scenes_cpu", "scenes_cpu_retrain")
    ]
    assert all((neck.rates, neck.grids, neck.channels) == ((1, 3, 6, 9), (1, 2, 4), 32) for neck in small)
