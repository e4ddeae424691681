"""What is particular to ResNet-50 and AutoSlim's networks of its shape."""

import pytest
import torch
from torch import nn

from backbones.blocks import make_block
from backbones.resnet import autoslim_resnet
from backbones.spec import model_config
from search.cost import count
from search.registry import MODELS

WIDTH_1 = {"schema": "resnet50_v1.5", "width_mult": 1.0}


def autoslim(stem, shortcuts, inner):
    """The list of a network whose inner convolutions all have the same width."""
    channels = [stem]
    for shortcut, blocks in zip(shortcuts, (3, 4, 6, 3), strict=True):
        channels += [shortcut] + [inner, inner, shortcut] * blocks
    return dict(schema="autoslim_resnet", channels=[*channels, 1000])


def test_width_1_is_torchvisions_in_size():
    cost = count(lambda: MODELS.build(model_config(WIDTH_1)), (3, 224, 224))
    # torchvision's ResNet50_Weights: num_params and _ops (in billions)
    assert cost.params == 25_557_032 and round(cost.macs / 1e9, 3) == 4.089


def test_levels():
    backbone = MODELS.build({**model_config({**WIDTH_1, "width_mult": 0.25})["backbone"], "out_indices": range(4)})
    assert backbone.out_channels == (64, 128, 256, 512) and backbone.out_strides == (4, 8, 16, 32)


def test_the_stride_is_on_the_3x3_convolution_and_on_the_shortcut():
    block = make_block(8, 16, 2, "bottleneck", hidden=4)
    convolutions = [m for m in block.modules() if isinstance(m, nn.Conv2d)]
    assert [(m.kernel_size[0], m.stride[0]) for m in convolutions] == [(1, 1), (3, 2), (1, 1), (1, 2)]


def test_a_block_that_adds_nothing_is_its_shortcut():
    block = make_block(8, 8, 1, "bottleneck", hidden=(3, 5)).eval()
    nn.init.zeros_(block.layers[-1][1].weight)
    x = torch.randn(2, 8, 5, 5)
    assert torch.equal(block(x), x.relu())


def test_autoslim_projects_where_a_stage_begins_even_at_equal_channels():
    config = autoslim_resnet(autoslim(16, (16, 32, 64, 128), 8))
    stages = config["backbone"]["stages"]
    assert [s["ops"]["project"] for s in stages[:4]] == [True, False, False, True]
    assert [i for i, s in enumerate(stages) if s["stride"] == 2] == [3, 7, 13]
    model = MODELS.build({**config, "num_classes": 5}).eval()
    assert isinstance(model.backbone.stages[0][0].shortcut[0], nn.Conv2d)
    assert model(torch.randn(1, 3, 32, 32)).shape == (1, 5)


def test_autoslim_lists_have_the_classes_last():
    assert autoslim_resnet(autoslim(16, (16, 32, 64, 128), 8))["num_classes"] == 1000


def test_autoslim_lists_that_do_not_fit_are_refused():
    spec = autoslim(16, (16, 32, 64, 128), 8)
    with pytest.raises(ValueError, match="autoslim_resnet has 54 channels"):
        model_config({**spec, "channels": spec["channels"][:-3]})
    with pytest.raises(ValueError, match="not 55"):
        model_config({**spec, "channels": [*spec["channels"], 7]})
    spec["channels"][4] = 24
    with pytest.raises(ValueError, match="stage 0: block 0 ends in 24 channels, to be added to a shortcut of 16"):
        model_config(spec)


def test_a_shortcut_that_has_to_project_is_not_left_out():
    with pytest.raises(ValueError, match="has to project"):
        make_block(8, 16, 1, "bottleneck", hidden=4, project=False)
