"""NAS-FCOS beside mmdet's: the same weights, the same maps; and a whole detector that trains and predicts."""

import pytest
import torch

pytest.importorskip("mmdet")

import tasks.detection  # noqa: F401, I001  (before mmdet's models)
import mmdet.models  # noqa: F401
from mmdet.registry import MODELS
from mmengine.config import ConfigDict

from backbones.nas_fcos import NASFCOSNeck, weights_of_mmdet
from backbones.published import config_of, find
from search.cost import count
from tests.tasks.detection.test_downstream import samples
from tests.tasks.families import FAMILIES

NAME = "NAS-FCOS R50 NAS head (mmdet)"
CELLS = find(NAME)["spec"]["fpn"]["cells"]
BLOCKS = [cell[0] for cell in CELLS]


def theirs(channels, width):
    settings = dict(start_level=1, add_extra_convs=True, num_outs=5, norm_cfg=dict(type="BN"))
    conv = dict(type="DCNv2", deform_groups=2)
    return MODELS.build(dict(type="NASFCOS_FPN", in_channels=channels, out_channels=width, conv_cfg=conv, **settings))


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.filterwarnings("ignore:Unnecessary conv bias")
def test_mmdets_weights_give_mmdets_maps(train):
    torch.manual_seed(0)
    channels = [4, 8, 16, 32]
    one = theirs(channels, 8).double()
    for name, value in one.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.rand_like(value) + (0.5 if "var" in name else -0.5))
    two = NASFCOSNeck(channels[1:], [cell[1:3] for cell in CELLS], 8, resize="nearest").double()
    two.load_state_dict(weights_of_mmdet(one.state_dict(), BLOCKS))
    # levels that are no halves of each other too
    for height, width in ((64, 96), (72, 104)):
        maps = [
            torch.randn(2, c, -(-height // s), -(-width // s), dtype=torch.float64)
            for c, s in zip(channels, (4, 8, 16, 32), strict=True)
        ]
        for a, b in zip(one.train(train)(maps), two.train(train)(maps[1:]), strict=True):
            assert a.shape == b.shape and (a - b).abs().max() <= 1e-12 * a.abs().max()
    moved = weights_of_mmdet(one.state_dict(), BLOCKS)
    assert all(torch.allclose(value, moved[name]) for name, value in two.state_dict().items())


def test_foreign_weights_are_named():
    with pytest.raises(ValueError, match=r"'fpn\.c99\.out_conv\.bn\.weight' is no tensor of mmdet's"):
        weights_of_mmdet({"fpn.c99.out_conv.bn.weight": torch.zeros(1)}, BLOCKS)


@pytest.mark.filterwarnings("ignore:Unnecessary conv bias")
def test_the_found_detector_costs_what_mmdets_does():
    """Our config of the row, and the same with mmdet's ResNet, neck and head."""
    config = ConfigDict(config_of(find(NAME)))
    backbone = dict(type="ResNet", depth=50, style="caffe", out_indices=(0, 1, 2, 3))
    neck = dict(type="NASFCOS_FPN", in_channels=[256, 512, 1024, 2048], out_channels=256, start_level=1, num_outs=5)
    neck |= dict(add_extra_convs=True, norm_cfg=dict(type="BN"), conv_cfg=dict(type="DCNv2", deform_groups=2))
    ours, mmdets = (
        count(lambda c=c: MODELS.build(c), (3, 256, 384))
        for c in (config, ConfigDict({**config, "backbone": backbone, "neck": neck}))
    )
    assert ours == mmdets


def test_a_small_one_trains_and_predicts():
    torch.manual_seed(0)
    config = config_of(find(NAME))
    config["backbone"] = dict(FAMILIES["mobilenet_v2"])
    channels = list(MODELS.build(config["backbone"]).out_channels)
    config["neck"] |= dict(in_channels=channels[1:], channels=32)
    config["backbone"]["out_indices"] = config["backbone"]["out_indices"][1:]
    config["bbox_head"] |= dict(in_channels=32, feat_channels=32, num_classes=3, norm_cfg=dict(type="GN", num_groups=4))
    config["test_cfg"] |= dict(score_thr=0.0, max_per_img=10)
    config["data_preprocessor"] = dict(type="mmdet.DetDataPreprocessor", mean=[120.0] * 3, std=[58.0] * 3, pad_size_divisor=32)
    model = MODELS.build(ConfigDict(config))
    model.init_weights()
    loss, _ = model.parse_losses(model.train()(**model.data_preprocessor(samples(), training=True), mode="loss"))
    loss.backward()
    assert loss.isfinite() and [name for name, p in model.named_parameters() if p.grad is None] == []
    with torch.no_grad():
        predicted = model.eval()(**model.data_preprocessor(samples(), training=False), mode="predict")
    assert all(0 < len(sample.pred_instances.bboxes) <= 10 for sample in predicted)
