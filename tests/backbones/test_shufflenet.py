"""What is particular to ShuffleNets: the channels' ways through the blocks, and the one-shot space."""

import pytest
import torch
from torch import nn

from backbones import ChainNet
from backbones.blocks import make_block
from backbones.shufflenet import oneshot_space
from backbones.spec import NotBuildable, model_config
from search.cost import count
from search.registry import MODELS
from search.supernet import record
from search.testing import SearchableContract

SPOS = dict(
    schema="shufflenet_oneshot",
    arch=[2, 1, 0, 1, 2, 0, 2, 0, 2, 0, 2, 3, 0, 0, 0, 0, 3, 2, 3, 3],
    ops=["k3", "k5", "k7", "xception"],
    channels=[16, 64, 160, 320, 640, 1024],
    repeats=[4, 4, 8, 4],
)
# ShuffleNetV2+/network.py of megvii-model/ShuffleNet-Series at aa91feb
PLUS = dict(
    schema="shufflenet_oneshot",
    arch=[0, 0, 3, 1, 1, 1, 0, 0, 2, 0, 2, 1, 1, 0, 2, 0, 2, 1, 3, 2],
    repeats=[4, 4, 8, 4],
    activation=["hardswish", "relu", "hardswish", "hardswish", "hardswish", "hardswish"],
    se=[False, False, True, True, True],
    head_after_pool=1280,
)


def cost(spec):
    return count(lambda: MODELS.build(model_config(spec)), (3, 224, 224))


def depends(module, x, output):
    """Which input channels the outputs' channels given by a slice depend on."""
    x.requires_grad_()
    module(x)[:, output].square().sum().backward()
    return x.grad.abs().sum((0, 2, 3)) > 0


@pytest.mark.parametrize("kind", ["shuffle", "shuffle_xception"])
def test_even_channels_pass_and_odd_ones_make_the_rest(kind):
    module, x = make_block(8, 8, 1, kind).eval(), torch.randn(2, 8, 5, 5)
    assert torch.equal(module(x)[:, :4], x[:, ::2])
    assert depends(module, x, slice(4, 8)).tolist() == [False, True] * 4


@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_where_the_resolution_falls_the_past_keeps_its_channels(kernel):
    module = make_block(6, 20, 2, "shuffle", kernel=kernel)
    assert module.past[0][0].kernel_size == module.main[1][0].kernel_size == (kernel, kernel)
    assert module.past(torch.randn(2, 6, 9, 9)).shape == (2, 6, 5, 5)
    assert module(torch.randn(2, 6, 9, 9)).shape == (2, 20, 5, 5)


def test_v1_blocks_pool_or_add_the_past():
    falls, stays = (make_block(c_in, 24, s, "shuffle_v1", groups=3).eval() for c_in, s in ((12, 2), (24, 1)))
    for module in (falls, stays):
        nn.init.zeros_(module.layers[-1][1].weight)
    x, y = torch.randn(2, 12, 6, 6), torch.randn(2, 24, 6, 6)
    assert torch.equal(falls(x)[:, :12], nn.functional.avg_pool2d(x, 3, 2, 1)) and not falls(x)[:, 12:].any()
    assert torch.equal(stays(y), y.relu())


def test_v1_shuffle_lets_a_group_see_all_groups():
    module = make_block(24, 24, 1, "shuffle_v1", groups=2, activation="identity").eval()
    assert depends(module.layers, torch.randn(1, 24, 6, 6), slice(0, 1)).all()
    module.layers[1] = nn.Identity()
    assert depends(module.layers, torch.randn(1, 24, 6, 6), slice(0, 1)).tolist() == [True] * 12 + [False] * 12


def test_excitation_before_the_pool_equals_excitation_after_it():
    torch.manual_seed(0)
    module = make_block(8, 16, 1, "conv_squeeze", activation="hardswish").double().eval()
    x = torch.randn(2, 8, 5, 5, dtype=torch.float64)
    *layers, squeeze = module
    pooled = nn.Sequential(*layers)(x).mean((2, 3), keepdim=True)
    assert torch.allclose(module(x).mean((2, 3), keepdim=True), pooled * squeeze(pooled), atol=1e-12)


@pytest.mark.parametrize(
    ("channels", "params", "madds"),
    [
        ([16, 36, 104, 208, 416, 1280], 5_137_116, 156),
        ([16, 48, 128, 256, 512, 1280], 5_679_840, 222),
        ([16, 68, 168, 336, 672, 1280], 6_768_220, 360),
    ],
)
def test_shufflenet_v2_plus_has_the_printed_multiply_adds(channels, params, madds):
    """Printed: 5.1, 5.6 and 6.7 M parameters (the latter two cut off, not rounded), 156, 222 and 360 M multiply-adds."""
    found = cost({**PLUS, "channels": channels})
    assert found.params == params and round(found.macs / 1e6) == madds


def test_plus_without_its_stage_channels_says_so():
    with pytest.raises(NotBuildable, match="channels and repeats aren't given"):
        model_config(PLUS)


def test_detnas_biases_are_those_of_the_ends():
    assert cost({**SPOS, "biases": True}).params - cost(SPOS).params == 16 + 1024 + 1000


def test_layouts_differ_where_the_stem_is_not_half_of_the_first_stage():
    spec = dict(schema="shufflenet_v2", stem=24, channels=[116, 232, 464, 1024], repeats=[4, 8, 4])
    # torchvision prints 2,278,604 parameters, the authors 2.3 M
    assert cost({**spec, "layout": "torchvision"}).params == 2_278_604
    assert cost(spec).params == 2_278_760


def test_a_row_is_an_architecture_of_its_space():
    backbone = model_config(SPOS)["backbone"]
    space = record(lambda: MODELS.build({k: v for k, v in backbone.items() if k != "arch"})).parts["backbone"]
    assert space.size == 4**20 and space.contains(backbone["arch"])
    assert backbone["arch"]["s0/b0"] == "k7" and backbone["arch"]["s3/b3"] == "xception"
    assert len(backbone["arch"]) == len(space) == 20


def test_levels():
    backbone = MODELS.build({**model_config(SPOS)["backbone"], "out_indices": range(6)})
    assert backbone.out_channels == (16, 64, 160, 320, 640, 1024) and backbone.out_strides == (2, 4, 8, 16, 32, 32)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(arch=[0] * 19), "for each of 20 blocks"),
        (dict(arch=[4] + [0] * 19), "index below 4"),
        (dict(arch=[-1] + [0] * 19), "index below 4"),
        (dict(ops=["k3", "k9"]), "operation 'k9' is none of"),
        (dict(channels=[16, 64, 160, 320, 640]), "not 5"),
        (dict(se=[True] * 6), "not 6"),
    ],
)
def test_what_does_not_fit_is_refused(change, words):
    with pytest.raises(ValueError, match=words):
        model_config({**SPOS, **change})


@pytest.mark.parametrize(
    ("c_in", "c_out", "stride", "settings", "words"),
    [
        (7, 7, 1, dict(type="shuffle"), "7 channels can't be split"),
        (16, 16, 2, dict(type="shuffle"), "16 channels leave none"),
        (16, 24, 1, dict(type="shuffle_v1", groups=2), "from 16 to 24"),
        (12, 24, 2, dict(type="shuffle_v1", groups=5), "groups=5"),
        (16, 16, 1, dict(type="shuffle_torchvision", activation="hardswish"), "none but 'relu'"),
    ],
)
def test_blocks_that_cannot_be(c_in, c_out, stride, settings, words):
    with pytest.raises(ValueError, match=words):
        make_block(c_in, c_out, stride, **settings)


class TestOneShotSpace(SearchableContract):
    network = ChainNet

    def build(self):
        config = oneshot_space(
            [4, 8, 16, 24], [2, 2], activation=["relu", "relu", "hardswish", "relu"], squeeze=[False, True, False]
        )
        return MODELS.build(config)

    def inputs(self):
        return (torch.randn(3, 3, 24, 24),)
