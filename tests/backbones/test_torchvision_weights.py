"""Torchvision's models are the reference: with its weights, our networks of published specifications have its outputs.

No weights are downloaded: torchvision's own models with random weights and random running statistics say as much about wiring.
"""

import pytest
import torch
import torchvision
from torch import nn

from backbones.mbconv import efficientnet
from backbones.spec import model_config
from backbones.torchvision_weights import load_torchvision
from search.cost.count import build_on_meta
from search.registry import MODELS

MOBILENET_V2 = dict(
    schema="mbconv",
    stem=32,
    blocks=[
        [1, 3, 1, 1, 32, 16, 0],
        [2, 3, 2, 6, 16, 24, 0],
        [3, 3, 2, 6, 24, 32, 0],
        [4, 3, 2, 6, 32, 64, 0],
        [3, 3, 1, 6, 64, 96, 0],
        [3, 3, 2, 6, 96, 160, 0],
        [1, 3, 1, 6, 160, 320, 0],
    ],
    head="1280 * max(1, width)",
    width_mult=1.0,
)
MOBILENET_V3_LARGE = dict(
    schema="mobilenet_v3",
    stem=16,
    blocks=[
        [1, 16, 3, 1, 0],
        [4, 24, 3, 2, 0],
        [3, 24, 3, 1, 0],
        [3, 40, 5, 2, 1],
        [3, 40, 5, 1, 1],
        [3, 40, 5, 1, 1],
        [6, 80, 3, 2, 0],
        [2.5, 80, 3, 1, 0],
        [2.3, 80, 3, 1, 0],
        [2.3, 80, 3, 1, 0],
        [6, 112, 3, 1, 1],
        [6, 112, 3, 1, 1],
        [6, 160, 5, 2, 1],
        [6, 160, 5, 1, 1],
        [6, 160, 5, 1, 1],
    ],
    last_conv=960,
    head_after_pool=1280,
    width_mult=1.0,
)
MOBILENET_V3_SMALL = dict(
    schema="mobilenet_v3",
    stem=16,
    blocks=[
        [1, 16, 3, 2, 1],
        [4.5, 24, 3, 2, 0],
        [11 / 3, 24, 3, 1, 0],
        [4, 40, 5, 2, 1],
        [6, 40, 5, 1, 1],
        [6, 40, 5, 1, 1],
        [3, 48, 5, 1, 1],
        [3, 48, 5, 1, 1],
        [6, 96, 5, 2, 1],
        [6, 96, 5, 1, 1],
        [6, 96, 5, 1, 1],
    ],
    last_conv=576,
    head_after_pool=1024,
    width_mult=1.0,
)
EFFICIENTNET_V2_S = dict(
    schema="mbconv",
    stem=24,
    blocks=[
        [2, 3, 1, 1, 24, 24, 0.0],
        [4, 3, 2, 4, 24, 48, 0.0],
        [4, 3, 2, 4, 48, 64, 0.0],
        [6, 3, 2, 4, 64, 128, 0.25],
        [9, 3, 1, 6, 128, 160, 0.25],
        [15, 3, 2, 6, 160, 256, 0.25],
    ],
    head=1280,
    fused_stages=[0, 1, 2],
)


def shufflenet(*channels):
    return dict(schema="shufflenet_v2", stem=24, channels=channels, repeats=[4, 8, 4], layout="torchvision")


SPECS = {
    "mobilenet_v2": MOBILENET_V2,
    "mobilenet_v3_large": MOBILENET_V3_LARGE,
    "mobilenet_v3_small": MOBILENET_V3_SMALL,
    "efficientnet_b0": efficientnet("B0"),
    "efficientnet_b3": efficientnet("B3"),
    "efficientnet_v2_s": EFFICIENTNET_V2_S,
    "shufflenet_v2_x0_5": shufflenet(48, 96, 192, 1024),
    "shufflenet_v2_x1_0": shufflenet(116, 232, 464, 1024),
    "resnet50": {"schema": "resnet50_v1.5", "width_mult": 1.0},
}


def reference(name):
    """Torchvision's model with random weights and norms, and running statistics near those of noise, in eval mode."""
    torch.manual_seed(0)
    model = build_on_meta(lambda: torchvision.models.get_model(name, weights=None, num_classes=7)).to_empty(device="cpu").eval()
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.1)
    # without statistics that fit, differences between images would fade from layer to layer
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.1)
        norm.reset_running_stats()
        norm.momentum = 1.0
        norm.train()
    with torch.no_grad():
        model(torch.randn(4, 3, 64, 64))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.running_var *= torch.empty_like(norm.running_var).uniform_(0.7, 1.4)
    return model.eval()


def ours(spec):
    return build_on_meta(lambda: MODELS.build(model_config({**spec, "num_classes": 7}))).to_empty(device="cpu").eval()


@pytest.mark.parametrize("name", SPECS)
def test_outputs_equal_torchvisions(name):
    source, model = reference(name), ours(SPECS[name])
    load_torchvision(model, source)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected, logits = source(x), model(x)
    # the images must make a difference, or equality would say nothing of the layers
    assert (expected[0] - expected[1]).abs().max() > 0.1 * expected.abs().max()
    assert (logits - expected).abs().max() <= 1e-6 * expected.abs().max()


def test_norms_take_over_eps_and_momentum():
    source, model = reference("mobilenet_v3_small"), ours(MOBILENET_V3_SMALL)
    norm = next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    norm.eps, norm.momentum = 1e-5, 0.1
    load_torchvision(model, source)
    assert (norm.eps, norm.momentum) == (1e-3, 0.01)


def test_the_first_pair_that_differs_is_named_and_nothing_is_copied():
    source, model = reference("shufflenet_v2_x1_0"), ours(SPECS["shufflenet_v2_x0_5"])
    for value in model.state_dict().values():
        value.zero_()
    with pytest.raises(
        ValueError, match=r"branch1\.2\.weight \[24, 24, 1, 1\] here .*branch1\.2\.weight \[58, 24, 1, 1\] in Shuffle"
    ):
        load_torchvision(model, source)
    assert not any(value.any() for value in model.state_dict().values())


def test_an_entry_without_a_partner_is_named():
    model = ours(SPECS["resnet50"])
    model.head = nn.Linear(2048, 7, bias=False)
    with pytest.raises(ValueError, match=r"nothing here meets fc\.bias \[7\] in ResNet"):
        load_torchvision(model, reference("resnet50"))


def test_equal_shapes_of_other_entries_are_refused():
    model = nn.Sequential(nn.LayerNorm(4))
    with pytest.raises(ValueError, match=r"0\.bias \[4\] here meets 0\.scale \[4\]"):
        source = nn.Sequential(nn.LayerNorm(4, bias=False))
        source[0].register_parameter("scale", nn.Parameter(torch.ones(4)))
        load_torchvision(model, source)
