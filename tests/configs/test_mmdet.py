import pytest
import torch
from mmengine.config import Config

pytest.importorskip("mmdet")

from search.engine.config import load
from search.registry import MODELS


def test_mmdets_training_script_gets_the_network_of_our_own_config(no_default_scope):
    theirs = Config.fromfile("configs/mmdet/nas_fpn_retinanet_r50_coco.py")
    assert theirs.train_cfg.type == "EpochBasedTrainLoop" and theirs.train_dataloader.dataset.type == "CocoDataset"
    ours = load("configs/detection/nas_fpn_coco_retrain.py").model
    ours.neck.arch = theirs.model.neck.arch
    with torch.device("meta"):
        one, two = (MODELS.build(dict(model, _scope_="mmdet")) for model in (theirs.model, ours))
    # weights trained by one are read by the other
    assert {n: x.shape for n, x in one.state_dict().items()} == {n: x.shape for n, x in two.state_dict().items()}
    # and mean the same
    assert repr(one.bbox_head.loss_cls) == repr(two.bbox_head.loss_cls)
    assert repr(one.bbox_head.prior_generator) == repr(two.bbox_head.prior_generator)
