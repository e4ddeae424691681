from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from backbones.cell_net import CellNet
from search.cost import bytes_kept, count, count_params


def small():
    # 3 -> 8 at 16x16 stride 2 on 32x32; depthwise 8; linear 8 -> 5
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=True),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 5, padding=2, groups=8, bias=False),
        nn.MaxPool2d(2),
        nn.AvgPool2d(2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )


ARCHS = Path(__file__).resolve().parents[3] / "backbones" / "archs"
PARAMS = 3 * 8 * 9 + 8 + 16 + 8 * 25 + 8 * 5 + 5
MACS = 16 * 16 * 8 * 3 * 9 + 16 * 16 * 8 * 25 + 8 * 5
ACTIVATIONS = 2 * 8 * 16 * 16 + 5


@pytest.mark.parametrize("model", [small, small()], ids=["builder", "built"])
def test_by_hand(model):
    cost = count(model, (3, 32, 32))
    assert (cost.params, cost.macs, cost.activations) == (PARAMS, MACS, ACTIVATIONS)
    assert (cost.input_size, cost.convention) == ((3, 32, 32), "macs")


def test_legacy_convention_by_hand():
    # batch norm 2 and ReLU 1 on 8x16x16, max pool 2 on 8x8x8, average pool 3 on 8x4x4, global one 3 on 8
    extra = 3 * 8 * 256 + 2 * 8 * 64 + 3 * 8 * 16 + 3 * 8
    assert count(small, (3, 32, 32), convention="thop-legacy").macs == MACS + extra


def test_pool_convention_by_hand():
    # the global pool reads 8x4x4; the other pools aren't global
    assert count(small, (3, 32, 32), convention="macs+pool").macs == MACS + 8 * 16


def test_atrous_convention_pads_maps_to_a_multiple_of_the_rate():
    def atrous():
        return nn.Sequential(
            nn.Conv2d(2, 3, 3, padding=4, dilation=4), nn.Conv2d(3, 3, 5, padding=(4, 2), dilation=(2, 1), groups=3)
        )

    # maps of 9x7 are computed as 12x8 and 10x7
    assert count(atrous, (2, 9, 7), convention="macs+atrous").macs == 12 * 8 * 2 * 3 * 9 + 10 * 7 * 3 * 25
    assert count(small, (3, 32, 32), convention="macs+atrous").macs == MACS


def test_thop_convention_by_hand():
    # batch norm 4 on 8x16x16, average pool its output of 8x4x4, the global one its 8x16 in and 8 out
    assert count(small, (3, 32, 32), convention="thop").macs == MACS + 4 * 8 * 256 + 8 * 16 + 8 * 17


@pytest.mark.parametrize(
    ("convention", "params"),
    [("all", PARAMS), ("with auxiliary", PARAMS), ("without norms", PARAMS - 16), ("weights", PARAMS - 16 - 8 - 5)],
)
def test_parameter_conventions_by_hand(convention, params):
    cost = count(small, (3, 32, 32), params=convention)
    assert (cost.params, cost.params_convention) == (params, convention)


@pytest.mark.parametrize(
    "channels, layers, stem, classes, size, macs, legacy",
    [(36, 20, "cifar", 10, 32, 528.36, 547.16), (48, 14, "imagenet", 1000, 224, 529.91, 544.27)],
)
def test_a_published_cell_in_both_conventions(channels, layers, stem, classes, size, macs, legacy):
    """DARTS_V2; an independent count gave these figures, with the classifier."""

    def build():
        body = CellNet(channels=channels, layers=layers, stem=stem, arch=str(ARCHS / "darts_v2.json"))
        width = body.feature_info[-1]["channels"]
        return nn.Sequential(body, Last(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))

    found = [count(build, (3, size, size), convention=name).macs / 1e6 for name in ("macs", "thop-legacy")]
    assert found == [pytest.approx(macs, abs=0.005), pytest.approx(legacy, abs=0.005)]


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("resnet50", 11.1),
        ("resnet152", 22.6),
        ("regnet_x_800mf", 5.1),
        ("regnet_x_1_6gf", 7.9),
        ("regnet_y_400mf", 3.9),
        ("efficientnet_b0", 6.7),
    ],
)
def test_published_activations(name, printed):
    """Millions, as pycls' MODEL_ZOO.md prints them (facebookresearch/pycls at 1caf15b)."""
    cost = count(getattr(torchvision.models, name)(), (3, 224, 224))
    assert round(cost.activations / 1e6, 1) == printed


@pytest.mark.parametrize("convention", ["macs", "macs+pool", "thop", "thop-legacy"])
def test_activations_are_the_same_in_every_convention(convention):
    assert count(small, (3, 32, 32), convention=convention).activations == ACTIVATIONS


def test_training_keeps_the_images_and_every_activation():
    def relu():
        return nn.ReLU(inplace=True)

    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2), relu(), nn.Conv2d(8, 5, 3, padding=4, dilation=4), relu(), nn.ConvTranspose2d(5, 4, 2, 2), relu()
    )
    images = torch.randn(2, 3, 13, 9)
    kept = bytes_kept(lambda: model(images).sum(), model.parameters())
    assert kept == 4 * (images.numel() + 2 * count(model, (3, 13, 9)).activations)


class Last(nn.Module):
    def forward(self, features):
        return features[-1]


class WithAuxiliary(nn.Module):
    class Head(nn.Linear):
        auxiliary_head = True

    def __init__(self, always):
        super().__init__()
        self.body, self.always = nn.Conv2d(3, 4, 1), always
        self.aux = self.Head(4, 7)
        self.shared = nn.Linear(4, 2)
        self.again = self.shared

    def forward(self, x):
        y = self.body(x).mean((2, 3))
        if self.training or self.always:
            self.aux(y)
        return self.again(self.shared(y).repeat(1, 2))


@pytest.mark.parametrize("always", [False, True])
def test_auxiliary_heads_are_not_counted_and_shared_parameters_once(always):
    model = WithAuxiliary(always).train()
    cost = count(model, (3, 2, 2))
    assert cost.params == count_params(model) == 3 * 4 + 4 + 4 * 2 + 2
    assert cost.macs == 2 * 2 * 3 * 4 + 2 * 4 * 2
    assert cost.activations == 2 * 2 * 4 + 2 + 2


def test_the_model_is_left_alone():
    model = small().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rng = torch.get_rng_state()
    count(model, (3, 32, 32))
    assert model.training
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
    assert torch.equal(rng, torch.get_rng_state())
    assert not any(module._forward_hooks for module in model.modules())


def test_fused_attention_is_counted():
    # 4 projections of 16x16 for 10 tokens and two products 10x10x16
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(16, 4, batch_first=True)

        def forward(self, x):
            tokens = x.flatten(2).transpose(1, 2)
            return self.attention(tokens, tokens, tokens, need_weights=False)[0]

    assert count(Attention(), (16, 2, 5)).macs == 4 * 10 * 16 * 16 + 2 * 10 * 10 * 16


def test_drop_path_schedules_read_by_item_build():
    def build():
        rates = [x.item() for x in torch.linspace(0, 0.1, 3)]
        return nn.Sequential(*(nn.Sequential(nn.Conv2d(3, 3, 1), nn.Dropout(rate)) for rate in rates))

    assert count(build, (3, 4, 4)).macs == 3 * 9 * 16


def test_another_forward_and_double_precision():
    model = nn.ModuleDict({"a": nn.Conv2d(3, 2, 1), "b": nn.Conv2d(3, 4, 1)}).double()
    assert count(model, (3, 5, 5), forward=lambda m, x: m["b"](x)).macs == 25 * 12


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="madds"):
        count(small, (3, 32, 32), convention="madds")
    with pytest.raises(ValueError, match="32"):
        count(small, (32, 32))
    with pytest.raises(ValueError, match="can't run on images of 4x32x32"):
        count(small, (4, 32, 32))
