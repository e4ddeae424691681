"""Auto-DeepLab's decode heads, alone and behind its backbone in mmseg's EncoderDecoder."""

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import nn

from search.registry import MODELS
from search.supernet import ArchParams, Relax, Softmax, building, record
from tasks.segmentation.auto_deeplab_head import AutoDeepLabSearchHead, DeepLabV3PlusHead

pytestmark = pytest.mark.filterwarnings("ignore")
BACKBONE = dict(type="search.AutoDeepLab", filters=4, layers=4, blocks=2, stem=(4, 4, 8))
HEAD = "tasks.segmentation.auto_deeplab_head."
ARCH = {
    "path": (4, 8, 16, 16),
    "cell/n2/inputs": (0, 1),
    "cell/n2<-0": "sep_conv_3x3",
    "cell/n2<-1": "atrous_conv_3x3",
    "cell/n3/inputs": (1, 2),
    "cell/n3<-1": "max_pool_3x3",
    "cell/n3<-2": "skip_connect",
}


def segmentor(backbone, **head):
    loss = dict(type="mmseg.CrossEntropyLoss", avg_non_ignore=True)
    head = dict(num_classes=5, norm_cfg=dict(type="BN"), align_corners=True, loss_decode=loss, **head)
    model = dict(type="mmseg.EncoderDecoder", backbone=backbone, decode_head=head, train_cfg={}, test_cfg=dict(mode="whole"))
    return ConfigDict(model)


def losses(model, size=64):
    """Of two images with labels, in training mode."""
    samples = []
    for _ in range(2):
        sample = SegDataSample(metainfo=dict(img_shape=(size, size), ori_shape=(size, size), pad_shape=(size, size)))
        sample.gt_sem_seg = PixelData(data=torch.randint(5, (1, size, size)))
        samples.append(sample)
    return model.train()(torch.randn(2, 3, size, size), samples, mode="loss")


def search_segmentor(**settings):
    backbone = {**BACKBONE, "affine": False, **settings}
    return segmentor(backbone, type=HEAD + "AutoDeepLabSearchHead", in_channels=[8, 16, 32, 64])


def test_the_search_head_has_the_paper_s_pyramids():
    head = AutoDeepLabSearchHead([40, 80, 160, 320], num_classes=19, norm_cfg=dict(type="BN"))
    for pyramid, stride, channels in zip(head.pyramids, (4, 8, 16, 32), (40, 80, 160, 320), strict=True):
        convs = [m for m in pyramid.modules() if isinstance(m, nn.Conv2d)]
        assert len(convs) == 3 and all(m.in_channels == m.out_channels == channels for m in convs)
        (atrous,) = (m for m in convs if m.kernel_size == (3, 3))
        assert atrous.dilation == (96 // stride,) * 2
    assert sum(p.numel() for p in head.classifiers.parameters()) == 3 * (40 + 80 + 160 + 320) * 19 + 4 * 19


def test_logits_are_summed_at_the_finest_resolution_and_absent_maps_left_out():
    torch.manual_seed(0)
    head = AutoDeepLabSearchHead([8, 16], strides=[4, 8], num_classes=3, norm_cfg=dict(type="BN")).eval()
    fine, coarse = torch.randn(2, 8, 17, 9), torch.randn(2, 16, 9, 5)
    both = head([fine, coarse])
    assert both.shape == (2, 3, 17, 9)
    alone = head([None, coarse])
    assert alone.shape == (2, 3, 9, 5)
    up = nn.functional.interpolate(alone, (17, 9), mode="bilinear", align_corners=False)
    assert torch.allclose(both, head([fine, None]) + up, atol=1e-6)
    with pytest.raises(ValueError, match="no map of the last layer runs"):
        head([None, None])


def test_a_supernet_trains_in_mmseg_and_every_weight_and_logit_is_reached():
    def build():
        return MODELS.build(search_segmentor())

    params = ArchParams(record(build).space)
    with building(Relax(params)):
        model = build()
    model.init_weights()
    assert model.decode_head.classifiers[0].weight.std() < 0.02
    with params.gated(Softmax()):
        losses(model)["decode.loss_ce"].backward()
    assert not {n for n, p in model.named_parameters() if p.grad is None}
    assert all(p.grad.any() for p in params.logits.values())
    with torch.no_grad(), params.masked(ARCH):
        assert model.eval()(torch.randn(1, 3, 64, 64), mode="tensor").shape == (1, 5, 4, 4)


@pytest.mark.parametrize("layout", ["search", "published"])
def test_derived_networks_train_under_both_heads(layout):
    backbone = {**BACKBONE, "layout": layout, "arch": ARCH}
    for head in (
        dict(type=HEAD + "DeepLabV3PlusHead", in_channels=[8, 32], channels=16, dilations=(1, 2, 3)),
        dict(type=HEAD + "AutoDeepLabSearchHead", in_channels=[32], strides=[16], in_index=[1]),
    ):
        model = MODELS.build(segmentor(backbone, **head))
        losses(model)["decode.loss_ce"].backward()
        unused = {n for n, p in model.named_parameters() if p.grad is None}
        assert not unused
        assert model.eval()(torch.randn(1, 3, 64, 64), mode="predict")[0].pred_sem_seg.data.shape == (1, 64, 64)


def test_the_decoder_s_parameters():
    """Five branches of 256, a 1x1 fusion, 48 channels of the fine map, two 3x3 convolutions; norms have two each."""
    head = DeepLabV3PlusHead([100, 200], num_classes=19, norm_cfg=dict(type="BN"))
    pyramid = 2 * 200 * 256 + 3 * 9 * 200 * 256 + 5 * 512
    decoder = 5 * 256 * 256 + 512 + 100 * 48 + 96 + 9 * (304 + 256) * 256 + 2 * 512
    assert sum(p.numel() for p in head.parameters()) == pyramid + decoder + 256 * 19 + 19


@pytest.mark.parametrize(("strides", "channels"), [((5, 10), (8, 16)), ((4, 8), (8,))])
def test_strides_that_cannot_be_are_named(strides, channels):
    with pytest.raises(ValueError, match="must divide 96"):
        AutoDeepLabSearchHead(channels, strides=strides, num_classes=3)
