import random

import pytest
import torch
from torch import nn

from backbones import ChainNet
from backbones.blocks import InvertedResidual, Skip, round_channels
from backbones.mbconv import EFFICIENTNET, efficientnet
from backbones.published import config_of, find
from backbones.spec import model_config
from search.registry import MODELS
from search.space import Space
from search.supernet import record

OPS = {f"k{k}": dict(type="mbconv", kernel=k, expand=2) for k in (3, 5)}


def chain(**settings):
    stages = [dict(channels=8, stride=2, depth=2, ops=OPS["k3"]), dict(channels=16, stride=2, ops=OPS["k5"])]
    return ChainNet(**{"stem": dict(channels=8), "stages": stages, "last": dict(channels=24), **settings})


def test_levels_are_what_the_maps_are():
    model = chain(out_indices=(0, 1, 2, 3)).eval()
    maps = model(torch.zeros(1, 3, 64, 64))
    assert [tuple(y.shape[1:]) for y in maps] == [
        (info["channels"], 64 // info["stride"], 64 // info["stride"]) for info in model.feature_info
    ]
    assert model.out_channels == (8, 8, 16, 24) and model.out_strides == (2, 4, 8, 8)


def test_nothing_is_built_beyond_the_last_level_returned():
    model = chain(out_indices=(1,))
    assert len(model.stages) == 1 and not hasattr(model, "last")
    model(torch.randn(2, 3, 16, 16))[0].sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_frozen_levels_stay_as_they_are():
    model = chain(frozen_stages=1).train()
    frozen = [m for m in [*model.stem.modules(), *model.stages[0].modules()] if isinstance(m, nn.BatchNorm2d)]
    assert frozen and not any(m.training for m in frozen) and model.stages[1].training
    model(torch.randn(2, 3, 16, 16))[0].sum().backward()
    moved = {n.split(".")[0] + n.split(".")[1] for n, p in model.named_parameters() if p.grad is not None}
    assert moved == {"stages1", "last0", "last1"}


def test_drop_path_grows_with_depth():
    rates = [m.drop_path.p for m in chain(drop_path=0.3).modules() if isinstance(m, InvertedResidual)]
    assert rates == pytest.approx([0, 0.1, 0.2])


def test_size_of_the_once_for_all_space():
    """(sum over depths 2 to 4 of 9 per layer) ^ 5 stages = 2.18e19 (arXiv 1908.09791, section 3.1)."""
    config = config_of(find("ofa-note10-30"))["backbone"]
    config.pop("arch")
    space = record(lambda: MODELS.build(config)).space
    assert space.size == (9**2 + 9**3 + 9**4) ** 5


def test_size_of_the_proxyless_space():
    """Blocks of stride 1 with equal channels may be skipped: 3 of 4 in five stages (METHODS.md, E1)."""
    config = config_of(find("ProxylessNAS-mobile"))["backbone"]
    config.pop("arch")
    space = record(lambda: MODELS.build(config)).space
    assert space.size == (9 * 10**3) ** 5 * 9


def test_a_shared_choice_is_one_for_the_stage():
    stages = [dict(channels=8, stride=2, depth=(1, 2), ops=OPS, shared=True), dict(channels=16, depth=2, ops=OPS)]
    space: Space = record(lambda: ChainNet(stem=dict(channels=8), stages=stages)).space
    assert [choice.name for choice in space] == ["s0/depth", "s0/op", "s1/b0", "s1/b1"]
    model = ChainNet(stem=dict(channels=8), stages=stages, arch=space.sample(random.Random(0)))
    assert len({tuple(block.ops) for block in model.stages[0]}) == 1


@pytest.mark.parametrize("name", EFFICIENTNET)
def test_efficientnets_scale_by_the_published_triples(name):
    """Against torchvision's own, whose parameters are the paper's (B0 5.3 M to B7 66 M)."""
    import torchvision

    with torch.device("meta"):
        theirs = getattr(torchvision.models, f"efficientnet_{name.lower()}")(weights=None)
        ours = MODELS.build(model_config(efficientnet(name)))
    assert [p.shape for p in ours.parameters()] == [p.shape for p in theirs.parameters()]


@pytest.mark.parametrize(("channels", "rounded"), [(8, 8), (11.2, 16), (12, 16), (5.6, 8), (33, 32), (36.4, 40), (18, 24)])
def test_rounding_never_loses_a_tenth(channels, rounded):
    assert round_channels(channels) == rounded >= 0.9 * channels


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (dict(out_indices=(9,)), "levels 0 to 3"),
        (dict(frozen_stages=4), "frozen_stages=4"),
        (dict(drop_path=1.0), "drop_path=1.0"),
        (dict(stages=[dict(channels=8, ops=dict(type="transformer"))]), "'transformer' is unknown; known are bottleneck, conv"),
        (dict(stages=[dict(channels=8, ops=dict(type="mbconv", kernels=3))]), "kernels"),
        (dict(stages=[dict(channels=8, repeat=3, ops=OPS["k3"])]), "'repeat'"),
        (dict(activation="gelu"), "'gelu' is none of relu"),
        (dict(stem=dict(channels=-8)), "c_out=-8 of a convolution must be a positive whole number"),
        (dict(stages=[dict(channels=8, stride=0, ops=dict(type="conv"))]), "stride=0 of a convolution"),
        (dict(stages=[dict(channels=8, ops=dict(type="mbconv", kernel="3"))]), "kernel='3'|can't be made of"),
    ],
)
def test_settings_that_cannot_be_are_named(settings, says):
    with pytest.raises(ValueError, match=says):
        chain(**settings)


def test_a_skip_changes_nothing_or_is_refused():
    assert torch.equal(Skip(4, 4, 1)(torch.ones(1, 4, 2, 2)), torch.ones(1, 4, 2, 2))
    with pytest.raises(ValueError, match="4 to 8"):
        Skip(4, 8, 1)
