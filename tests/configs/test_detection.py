import math
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import PARAM_SCHEDULERS

pytest.importorskip("mmdet")

from search.engine.config import load

FOLDER = Path("configs/detection")
CONFIGS = sorted([*FOLDER.glob("*.py"), *Path("configs/demo").glob("boxes_*.py")])


def rates(path, steps):
    """The learning rate of every step, at so many steps an epoch, by mmengine's own schedulers."""
    cfg = Config.fromfile(path)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=cfg.optim_wrapper.optimizer.lr)
    wrapper = OptimWrapper(optimizer)
    built = [PARAM_SCHEDULERS.build({"optimizer": wrapper, **s}) for s in cfg.param_scheduler]
    found = []
    for step in range(1, cfg.train_cfg.max_epochs * steps + 1):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        for scheduler in built:
            if not scheduler.by_epoch or step % steps == 0:
                scheduler.step()
    return found


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_key_is_known(path):
    cfg = load(path)
    assert cfg.seed == 0 and cfg.splits.seed == 0 and cfg.task == "detection"
    # names that a builder outside of a runner finds too
    assert cfg.model.type.startswith("mmdet.") and cfg.model.backbone.type.partition(".")[0] in ("mmdet", "search")
    for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
        # a search or a training never reads the images of the test
        assert cfg[loader].dataset.ann_file.startswith("annotations/instances_" + ("val" if loader[:2] == "te" else "train"))
        assert cfg[loader].dataset.get("test_mode", False) == (loader != "train_dataloader")


def test_settings_of_the_baselines():
    retina, fcos, faster = (load(FOLDER / f"{name}_resnet50_coco_retrain.py") for name in ("retinanet", "fcos", "faster_rcnn"))
    assert retina.model.bbox_head.anchor_generator.scales_per_octave == 3
    assert (faster.model.train_cfg.rcnn.sampler.num, faster.model.test_cfg.rpn.max_per_img) == (512, 1000)
    assert (retina.optim_wrapper.optimizer.lr, fcos.optim_wrapper.optimizer.lr, faster.optim_wrapper.optimizer.lr) == (
        *(0.01, 0.01),
        0.02,
    )
    for cfg in (retina, fcos, faster):
        assert cfg.auto_scale_lr.base_batch_size == 16 and cfg.optim_wrapper.optimizer.weight_decay == 1e-4
        assert [t.scale for t in cfg.train_dataloader.dataset.pipeline if t.type == "mmdet.Resize"] == [(1333, 800)]


def test_schedule_of_the_baselines():
    found = rates(FOLDER / "retinanet_resnet50_coco_retrain.py", 600)
    assert found[:500] == pytest.approx([0.01 * (0.001 + 0.999 * min(e / 499, 1)) for e in range(500)], abs=1e-6)
    steps = [0.01 * 0.1 ** ((e >= 8) + (e >= 11)) for e in range(12)]
    assert found[500::600] == pytest.approx(steps) and math.isclose(found[-1], 1e-4)
