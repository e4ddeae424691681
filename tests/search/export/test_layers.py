"""The source of a layer makes the same layer."""

import math

import pytest
import torch
import torchvision
from torch import nn
from torchvision.ops.misc import Conv2dNormActivation

from search.export.layers import expression, reference, statements

LAYERS = [
    (nn.Conv2d(3, 8, 3), "nn.Conv2d(3, 8, 3)"),
    (
        nn.Conv2d(4, 8, (3, 5), stride=2, padding=(1, 2), groups=2, bias=False),
        "nn.Conv2d(4, 8, (3, 5), stride=2, padding=(1, 2), groups=2, bias=False)",
    ),
    (nn.Conv2d(4, 4, 3, padding="same", padding_mode="reflect"), 'nn.Conv2d(4, 4, 3, padding="same", padding_mode="reflect")'),
    (nn.ConvTranspose2d(4, 4, 2, 2, output_padding=1), "nn.ConvTranspose2d(4, 4, 2, stride=2, output_padding=1)"),
    (nn.BatchNorm2d(4, eps=0.001, affine=False), "nn.BatchNorm2d(4, eps=0.001, affine=False)"),
    (nn.BatchNorm2d(4, momentum=None, track_running_stats=False), None),
    (nn.GroupNorm(2, 4), "nn.GroupNorm(2, 4)"),
    (nn.LayerNorm((4, 4)), "nn.LayerNorm((4, 4))"),
    (nn.Linear(4, 2, bias=False), "nn.Linear(4, 2, bias=False)"),
    (nn.PReLU(3), "nn.PReLU(num_parameters=3)"),
    (nn.MaxPool2d(3, 2, 1, ceil_mode=True), "nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True)"),
    (nn.AvgPool2d(2, count_include_pad=False), "nn.AvgPool2d(2, count_include_pad=False)"),
    (nn.AdaptiveAvgPool2d((2, 3)), "nn.AdaptiveAvgPool2d((2, 3))"),
    (nn.Upsample(scale_factor=2.0, mode="bilinear", align_corners=False), None),
    (nn.ReLU(inplace=True), "nn.ReLU(inplace=True)"),
    (torchvision.ops.StochasticDepth(0.1, "row"), 'torchvision.ops.StochasticDepth(0.1, "row")'),
    (nn.Sequential(), "nn.Sequential()"),
]


@pytest.mark.parametrize(("layer", "source"), LAYERS, ids=lambda value: type(value).__name__)
def test_a_layer_is_made_again(layer, source):
    found = expression(layer)
    if source is not None:
        assert found == source
    made = eval(found, {"nn": nn, "torchvision": torchvision})
    assert repr(made) == repr(layer)
    assert {k: v.shape for k, v in made.state_dict().items()} == {k: v.shape for k, v in layer.state_dict().items()}


class OwnConv(nn.Conv2d):
    pass


@pytest.mark.parametrize(
    "module",
    [OwnConv(3, 3, 1), nn.Hardtanh(0, math.inf), nn.ModuleList(), nn.LSTM(3, 3), nn.TransformerEncoderLayer(4, 2), nn.Module()],
    ids=lambda value: type(value).__name__,
)
def test_what_attributes_do_not_tell_is_no_layer(module):
    assert expression(module) is None


def test_layers_in_a_row_are_one_expression():
    row = Conv2dNormActivation(3, 4)
    lines = expression(row, indent=4).split("\n")
    assert lines == [
        "nn.Sequential(",
        "        nn.Conv2d(3, 4, 3, padding=1, bias=False),",
        "        nn.BatchNorm2d(4),",
        "        nn.ReLU(inplace=True),",
        "    )",
    ]
    assert expression(nn.Sequential(nn.ReLU(), OwnConv(3, 3, 1))) is None


def test_names_become_attributes_numbers_and_keys():
    model = nn.Module()
    model.blocks = nn.ModuleList([nn.Module(), nn.Module()])
    model.blocks[1].ops = nn.ModuleDict({"n2<-0": nn.ReLU(), "n3": nn.ReLU()})
    model.blocks[1].scale = nn.Parameter(torch.ones(2, 1))
    assert reference(model, "blocks.1.ops.n2<-0") == 'self.blocks[1].ops["n2<-0"]'
    assert statements(model, ["blocks.1.ops.n2<-0", "blocks.1.scale"]) == [
        "self.blocks = nn.ModuleList()",
        "self.blocks.append(nn.Identity())",
        "self.blocks.append(nn.Module())",
        "self.blocks[1].scale = nn.Parameter(torch.zeros((2, 1), dtype=torch.float32))",
        "self.blocks[1].ops = nn.ModuleDict()",
        'self.blocks[1].ops["n2<-0"] = nn.ReLU()',
    ]
