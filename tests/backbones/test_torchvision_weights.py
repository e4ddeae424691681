"""Torchvision's models are the reference: with its weights, our networks of published specifications have its outputs.

No weights are downloaded: torchvision's own models with random weights and random running statistics say as much about wiring.
"""

import pytest
import torch
import torchvision
from torch import nn

from backbones.mbconv import efficientnet
from backbones.published import find
from backbones.spec import model_config
from backbones.torchvision_weights import load_torchvision
from search.cost.count import build_on_meta
from search.registry import MODELS


def shufflenet(*channels):
    return dict(schema="shufflenet_v2", stem=24, channels=channels, repeats=[4, 8, 4], layout="torchvision")


SPECS = {
    "mobilenet_v2": find("MobileNetV2 1.0 @224")["spec"],
    "mobilenet_v3_large": find("MobileNetV3 Large 1.0")["spec"],
    "mobilenet_v3_small": find("MobileNetV3 Small 1.0")["spec"],
    "efficientnet_b0": find("EfficientNet-B0")["spec"],
    "efficientnet_b3": efficientnet("B3"),
    "efficientnet_v2_s": find("EfficientNetV2-S")["spec"],
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
    source, model = reference("mobilenet_v3_small"), ours(SPECS["mobilenet_v3_small"])
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
