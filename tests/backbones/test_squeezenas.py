import pytest
import torch
from torch import nn

from backbones.blocks import Skip
from backbones.published import find
from backbones.spec import model_config
from backbones.squeezenas import OPERATIONS, SKIP, projected_skip
from search.registry import MODELS
from search.supernet import record

MACRO = dict(stem=4, stages=[[4, 1, 1], [6, 2, 2], [8, 2, 2], [8, 1, 2], [16, 1, 1]], low_level_block=4)
MACRO |= dict(decoder_channels=8, last_conv=None, lraspp=True)
GENOTYPE = [SKIP, "inverse_residual_k3_e1_g2", SKIP, "inverse_residual_k5_e3_g1", "inverse_residual_k3_e6_g1_d2", SKIP, SKIP]
SPEC = dict(schema="squeezenas", genotype=GENOTYPE, macro=MACRO, num_classes=5)


def test_a_skipped_layer_costs_only_what_shapes_ask_for():
    assert isinstance(projected_skip(8, 8, 1), Skip)
    x = torch.randn(2, 8, 7, 7)
    assert projected_skip(8, 6, 1)(x).shape == (2, 6, 7, 7) and projected_skip(8, 8, 2)(x).shape == (2, 8, 4, 4)
    # weights of one 1x1 convolution and a norm, whichever it is
    for stride in (1, 2):
        assert sum(p.numel() for p in projected_skip(8, 6, stride).parameters()) == 8 * 6 + 2 * 6
    with pytest.raises(ValueError, match="not 4"):
        projected_skip(8, 8, 4)


def test_blocks_expand_even_by_one_and_do_not_shuffle():
    model = MODELS.build(model_config(find("SqueezeNAS mac_small")["spec"])["backbone"])
    assert not any(isinstance(m, nn.ChannelShuffle) for m in model.modules())
    # the first block: expansion by 1 with two groups, depthwise, projection with two groups
    convs = [m for m in model.stages[0][0].modules() if isinstance(m, nn.Conv2d)]
    assert [(c.kernel_size[0], c.groups) for c in convs] == [(1, 2), (3, 16), (1, 2)]


def test_every_layer_offers_all_thirteen_operations():
    config = model_config(SPEC)["backbone"]
    arch = config.pop("arch")
    space = record(lambda: MODELS.build(config)).space
    assert all(set(choice.options) == {*OPERATIONS, SKIP} for choice in space) and len(OPERATIONS) == 12
    assert {choice.name: arch[choice.name] for choice in space} == arch and space.size == 13**7


def test_the_head_s_fine_map_ends_a_resolution():
    for name, channels, strides in [
        ("mac_small", (24, 256), (8, 16)),
        ("mac_large", (32, 160), (8, 16)),
        ("mac_xlarge", (32, 320), (4, 16)),
    ]:
        config = model_config(find(f"SqueezeNAS {name}")["spec"])
        model = MODELS.build(config["backbone"])
        assert model.out_channels == channels == tuple(config["decode_head"]["in_channels"])
        assert model.out_strides == strides
    for block, says in [(1, "low_level_block=1 isn't the last block"), (9, "low_level_block=9")]:
        with pytest.raises(ValueError, match=says):
            model_config({**SPEC, "macro": {**MACRO, "low_level_block": block}})
    with pytest.raises(ValueError, match="6 operations for 7 blocks"):
        model_config({**SPEC, "genotype": GENOTYPE[1:]})


@pytest.mark.parametrize("lraspp", [True, False])
def test_mmseg_trains_it(lraspp):
    import tasks.segmentation  # noqa: F401

    structures = pytest.importorskip("mmseg.structures")
    from mmengine.structures import PixelData

    model = MODELS.build(model_config({**SPEC, "macro": {**MACRO, "lraspp": lraspp}}))
    images = torch.randn(2, 3, 64, 128)
    assert model(images).shape == (2, 5, 8, 16)
    sample = structures.SegDataSample(gt_sem_seg=PixelData(data=torch.randint(5, (1, 64, 128))))
    sample.set_metainfo(dict(img_shape=(64, 128)))
    losses = model.loss(images, [sample, sample])
    losses["decode.loss_ce"].backward()
    assert losses["decode.loss_ce"].isfinite() and all(p.grad is not None for p in model.parameters())
    assert model.eval().encode_decode(images, [sample.metainfo] * 2).shape == (2, 5, 64, 128)
