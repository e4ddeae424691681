"""NAS-FPN beside mmdet's: the same weights, the same maps; and under mmdet's heads."""

import random

import pytest
import torch

pytest.importorskip("mmdet")

import tasks.detection  # noqa: F401, I001  (before mmdet's models)
import mmdet.models  # noqa: F401
from mmdet.registry import MODELS
from mmengine.config import ConfigDict

from backbones import nas_fpn
from backbones.published import config_of, find
from search.space import Architecture
from search.supernet import ArchParams, Relax, Softmax, building, record
from tests.tasks.detection.test_downstream import fcos, retinanet, samples
from tests.tasks.families import FAMILIES

ARCH = nas_fpn.found_architecture(nas_fpn.PUBLISHED)


@pytest.mark.parametrize("repeats", [1, 7])
@pytest.mark.parametrize("train", [False, True])
@pytest.mark.filterwarnings("ignore:Unnecessary conv bias")
def test_mmdets_weights_give_mmdets_maps(repeats, train):
    torch.manual_seed(0)
    norm = dict(type="BN", requires_grad=True)
    channels = [4, 8, 16, 32]
    theirs = dict(type="NASFPN", in_channels=channels, out_channels=8, num_outs=5, start_level=1, norm_cfg=norm)
    theirs = MODELS.build(dict(theirs, stack_times=repeats)).double()
    for name, value in theirs.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.rand_like(value) + (0.5 if "var" in name else -0.5))
    ours = nas_fpn.NASFPN(channels, 8, repeats, start_level=1, variant="mmdet", arch=ARCH).double()
    ours.load_state_dict(nas_fpn.weights_of_mmdet(theirs.state_dict()))
    # 256 pixels: P7 has two
    maps = [torch.randn(2, c, 256 // s, 384 // s, dtype=torch.float64) for c, s in zip(channels, (4, 8, 16, 32), strict=True)]
    for one, two in zip(theirs.train(train)(maps), ours.train(train)(maps), strict=True):
        assert (one - two).abs().max() <= 1e-12 * one.abs().max()
    moved = nas_fpn.weights_of_mmdet(theirs.state_dict())
    assert all(torch.allclose(value, moved[name]) for name, value in ours.state_dict().items())


def test_foreign_weights_are_named():
    for name in ("lateral_convs.x.conv.weight", "fpn_stages.0.sum_55_6.out_conv.bn.bias", "extra_downsamples.0.1.weight", "w"):
        with pytest.raises(ValueError, match=f"'{name}' is no tensor of mmdet's NASFPN"):
            nas_fpn.weights_of_mmdet({name: torch.zeros(1)})


def test_mmdets_detector_has_its_number_of_parameters():
    config = config_of(find("mmdet R-50-NASFPN crop640 50e"))
    assert config["neck"]["variant"] == "mmdet" and config["bbox_head"]["num_classes"] == 80
    with torch.device("meta"):
        model = MODELS.build(ConfigDict(config))
    # what mmdet's own config builds, see test_cost.py
    assert sum(p.numel() for p in model.parameters()) == 59_979_828


def neck(**settings) -> dict:
    return dict(type="search.NASFPN", channels=16, repeats=2, start_level=1, **settings)


@pytest.mark.parametrize("detector", [retinanet, fcos], ids=lambda f: f.__name__)
def test_a_derived_pyramid_trains_and_predicts(detector):
    torch.manual_seed(0)
    backbone = FAMILIES["mobilenet_v2"]
    channels = list(MODELS.build(backbone).out_channels)
    arch = dict(record(lambda: nas_fpn.NASFPN(channels)).space.sample(random.Random(0)))
    config = dict(detector(backbone, channels), neck=neck(in_channels=channels, arch=arch))
    model = MODELS.build(ConfigDict(config))
    model.init_weights()
    data = model.data_preprocessor(samples(), training=True)
    loss, _ = model.parse_losses(model.train()(**data, mode="loss"))
    loss.backward()
    assert loss.isfinite() and [name for name, p in model.named_parameters() if p.grad is None] == []
    with torch.no_grad():
        predicted = model.eval()(**model.data_preprocessor(samples(), training=False), mode="predict")
    assert all(0 < len(sample.pred_instances.bboxes) <= 10 for sample in predicted)


def test_a_relaxed_pyramid_trains_weights_and_logits():
    torch.manual_seed(0)
    backbone = FAMILIES["mobilenet_v2"]
    channels = list(MODELS.build(backbone).out_channels)
    config = ConfigDict(dict(retinanet(backbone, channels), neck=neck(in_channels=channels, partial=4, affine=False)))
    params = ArchParams(record(lambda: MODELS.build(config)).space)
    with building(Relax(params)):
        model = MODELS.build(config)
    data = model.data_preprocessor(samples(), training=True)
    with params.gated(Softmax()):
        loss, _ = model.parse_losses(model.train()(**data, mode="loss"))
    loss.backward()
    assert loss.isfinite() and all(p.grad is not None and p.grad.any() for p in params.logits.values())
    assert params.space.contains(Architecture(ARCH))
