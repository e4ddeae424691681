"""What is particular to AutoSlim's rows: channels stand in the list in the layers' order, the rest is the base network's."""

import pytest
import torch
from torch import nn

from backbones.spec import model_config
from search.registry import MODELS

V1 = dict(schema="autoslim_mobilenet_v1", channels=[8, *range(9, 22), 1000])
# stem 4 and first block 5; then (100 + b, 6) for each block b; the last layer and the classes
V2 = dict(schema="autoslim_mobilenet_v2", channels=[5, 5] + [c for b in range(16) for c in (100 + b, 6)] + [64, 1000])
MNASNET = {**V2, "schema": "autoslim_mnasnet"}


def blocks(spec):
    return [stage[0] for stage in MODELS.build(model_config(spec)).backbone.stages]


def shape(block):
    """Kernel, stride and channels of the depthwise convolution, and output channels."""
    convolutions = [m for m in block.modules() if isinstance(m, nn.Conv2d)]
    depthwise = next(m for m in convolutions if m.groups > 1)
    return depthwise.kernel_size[0], depthwise.stride[0], depthwise.in_channels, convolutions[-1].out_channels


def test_mobilenet_v1_channels_are_those_of_the_pointwise_convolutions():
    found = [shape(block) for block in blocks(V1)]
    assert [c for *_, c in found] == list(range(9, 22))
    assert [i for i, (_, stride, *_) in enumerate(found) if stride == 2] == [1, 3, 5, 11]


def test_mobilenet_v2_channels_are_pairs_of_expansion_and_output():
    found = [shape(block) for block in blocks(V2)]
    assert found[0] == (3, 1, 5, 5)
    assert [hidden for _, _, hidden, _ in found[1:]] == list(range(100, 116))
    assert [i for i, (_, stride, *_) in enumerate(found) if stride == 2] == [1, 3, 6, 13]


def test_mnasnet_has_its_kernels_and_no_squeeze_excitation():
    found = blocks(MNASNET)
    assert [shape(block)[0] for block in found] == [3] * 4 + [5] * 6 + [3] * 2 + [5] * 4 + [3]
    assert not any("SqueezeExcitation" in type(m).__name__ for block in found for m in block.modules())


def test_a_block_that_begins_a_stage_has_no_shortcut_though_its_channels_allow_one():
    # 5 to 5 channels in the first block, 6 to 6 in the first of the stages of stride 1
    assert [b.shortcut for b in blocks(V2)] == [inside > 0 for repeat in (1, 2, 3, 4, 3, 3, 1) for inside in range(repeat)]


def test_an_expansion_as_wide_as_its_input_is_still_a_convolution():
    spec = {**V2, "channels": [5, 5, 5, *V2["channels"][3:]]}
    assert len(blocks(spec)[1].layers) == len(blocks(spec)[0].layers) + 1


@pytest.mark.parametrize("spec", [V1, V2, MNASNET], ids=lambda spec: spec["schema"])
def test_rows(spec):
    model = MODELS.build(model_config(spec)).eval()
    assert model(torch.randn(1, 3, 32, 32)).shape == (1, 1000)
    activations = [m for m in model.modules() if isinstance(m, nn.ReLU)]
    assert not activations and any(isinstance(m, nn.ReLU6) for m in model.modules())
    with pytest.raises(ValueError, match=rf"has {len(spec['channels'])} channels, the number of classes included, not"):
        model_config({**spec, "channels": spec["channels"][:-1]})
    with pytest.raises(ValueError, match="positive whole numbers, unlike None"):
        model_config({**spec, "channels": [None, *spec["channels"][1:]]})
