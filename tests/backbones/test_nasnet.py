import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from backbones.nasnet import OPERATIONS, NASNet
from backbones.operations import FactorizedReduce
from backbones.published import find
from backbones.spec import model_config
from search.cost import build_on_meta
from search.registry import MODELS

NAMES = {
    "NASNet-A": "NASNet-A mobile 4@1056",
    "PNASNet-5": "PNASNet-5 mobile",
    "AmoebaNet-A": "AmoebaNet-A mobile N=4 F=50",
    "AmoebaNet-B": "AmoebaNet-B CIFAR N=6 F=36",
    "AmoebaNet-C": "AmoebaNet-C mobile N=4 F=50",
    "AmoebaNet-D": "AmoebaNet-D TPU default (18 cells, reduction 256)",
}
ALL = (0, 1, 2, 3, 4)


def tiny(name, **settings):
    """The cells of a published network, few and narrow."""
    backbone = model_config(find(NAMES[name])["spec"])["backbone"]
    del backbone["type"]
    return NASNet(**{**backbone, "num_conv_filters": 12, "num_cells": 6, "reductions": (2, 4), **settings})


def reads(model, size=64):
    """For each cell the numbers of the cells whose outputs it reads, (current, previous); -1 is the stem."""
    order, found, kept = {}, [], []

    def enter(_, inputs):
        found.append(tuple(order[id(x)] for x in inputs))

    def leave(number):
        def hook(_, inputs, output):
            kept.append(output)
            order[id(output)] = number

        return hook

    model.stem.register_forward_hook(leave(-1))
    for number, cell in enumerate(model.cells):
        cell.register_forward_pre_hook(enter)
        cell.register_forward_hook(leave(number))
    with torch.no_grad():
        model.eval()(torch.randn(1, 3, size, size))
    return found


def test_the_cell_after_a_reduction_reads_the_reductions_input_or_what_the_reduction_did():
    start, first, second = [(-1, -1), (0, -1)], [(1, 0), (2, 1), (3, 2)], [(5, 4), (6, 5)]
    assert reads(tiny("NASNet-A")) == [*start, *first, (4, 3), *second, (7, 6), (8, 7)]
    assert reads(tiny("NASNet-A", skip_reduction_layer_input=True)) == [*start, *first, (4, 2), *second, (7, 5), (8, 7)]


def test_pnasnet_has_one_kind_of_cell():
    model = tiny("PNASNet-5")
    assert reads(model) == [(-1, -1), (0, -1), *((i - 1, i - 2) for i in range(2, 8))]
    held = tiny("PNASNet-5", skip_reduction_layer_input=False)
    # a cell of stride 2 then reads again what the cell before it did
    assert reads(held) == [(-1, -1), (0, -1), (1, 0), (2, 1), (3, 1), (4, 3), (5, 3), (6, 5)]


@pytest.mark.parametrize(
    ("name", "normal", "reduction"),
    [
        ("NASNet-A", "123456", "3456"),
        ("AmoebaNet-A", "1346", "23456"),
        ("AmoebaNet-B", "0346", "56"),
        ("AmoebaNet-C", "12456", "023456"),
        ("AmoebaNet-D", "0346", "456"),
    ],
)
def test_states_that_are_concatenated(name, normal, reduction):
    stems = 0 if name == "AmoebaNet-B" else 2
    model = tiny(name)
    for number, cell in enumerate(model.cells):
        reduces = number < stems or number in (stems + 2, stems + 5)
        assert "".join(cell.ends) == (reduction if reduces else normal)
        # a given state is twice as large in a reduction cell
        assert all(isinstance(end, FactorizedReduce) == (reduces and int(state) < 2) for state, end in cell.ends.items())


def test_first_and_last_layers_of_the_published_nasnet_mobile():
    config = model_config(find(NAMES["NASNet-A"])["spec"])
    model = build_on_meta(lambda: MODELS.build(config))
    assert [cell.out_channels for cell in model.backbone.cells[:4]] == [44, 88, 264, 264]
    assert model.backbone.out_channels == (1056,) and model.head.in_features == 1056
    assert model.backbone.stem[1].eps == 1e-3
    # without a previous output the stem's map is read as it is: 32 channels, where the cell has 11
    first = model.backbone.cells[0]
    assert isinstance(first.preprocess1, nn.Identity) and first.preprocess0[1].out_channels == 11


@pytest.mark.parametrize("size", [64, 65, 67, 96])
@pytest.mark.parametrize("name", ["NASNet-A", "PNASNet-5", "AmoebaNet-D"])
def test_levels_have_the_shapes_they_say(name, size):
    model = tiny(name, out_indices=ALL)
    maps = model.eval()(torch.randn(1, 3, size, size))
    stem = (size - 1) // 2
    assert model.out_strides == (2, 4, 8, 16, 32)
    assert [m.shape[2] for m in maps] == [math.ceil(stem / 2**i) for i in range(5)]
    assert [m.shape[1] for m in maps] == list(model.out_channels)
    assert all((m >= 0).all() and (m == 0).any() for m in maps)


def test_the_papers_large_input():
    model = build_on_meta(lambda: tiny("AmoebaNet-A", out_indices=ALL))
    assert [m.shape[2] for m in model(torch.empty(2, 3, 331, 331, device="meta"))] == [165, 83, 42, 21, 11]


def test_cifar_levels():
    model = tiny("AmoebaNet-B", out_indices=(0, 1, 2, 3))
    assert [m.shape[2] for m in model(torch.randn(2, 3, 16, 16))] == [16, 16, 8, 4]
    assert model.out_strides == (1, 1, 2, 4)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_a_gradient(name):
    model = tiny(name)
    model(torch.randn(2, 3, 64, 64))[0].square().sum().backward()
    assert not [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("c_in", [8, 5])
def test_operations_change_channels_and_keep_their_input(operation, stride, c_in):
    x = torch.randn(2, c_in, 7, 6)
    before = x.clone()
    y = OPERATIONS[operation](c_in, 8, stride)(x)
    assert y.shape == (2, 8, *((7, 6) if stride == 1 else (4, 3))) and torch.equal(x, before)


def test_a_2x2_pool_sees_no_padding():
    x = -torch.rand(1, 4, 5, 5) - 1
    for stride in (1, 2):
        y = OPERATIONS["max2"](4, 4, stride)(x)
        assert torch.equal(y[..., -1, -1], x[..., 4, 4]) and torch.equal(y[..., 0, 0], x[..., :2, :2].amax((2, 3)))


def test_the_dilated_separable_convolution_is_dilated():
    convs = [m for m in OPERATIONS["dsep5"](8, 8, 1).modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
    assert [m.dilation for m in convs] == [(2, 2), (2, 2)]


def test_drop_path_grows_with_depth_and_progress():
    model = tiny("NASNet-A", drop_path=0.5)
    model.set_progress(0.5)
    assert [c.dag.drop_path for c in model.cells] == pytest.approx([0.25 * i / 10 for i in range(1, 11)])


def test_frozen_levels_are_not_trained():
    model = tiny("NASNet-A", frozen_stages=2).train()
    trained = {n.split(".")[1] for n, p in model.named_parameters() if p.requires_grad and n.startswith("cells")}
    assert trained == {"4", "5", "6", "7", "8", "9"} and not model.stem[0].weight.requires_grad


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (dict(stem="vit"), "vit"),
        (dict(reductions=(4, 2)), "rising"),
        (dict(reductions=(0, 2), skip_reduction_layer_input=True), "4 times its size"),
        (dict(drop_path=1.0), "drop_path=1.0"),
        (dict(normal=dict(operations=["sep3"], hiddenstate_indices=[0, 1], used_hiddenstates=[0] * 3)), "1 operations"),
        (dict(normal=dict(operations=["sep3", "mlp"], hiddenstate_indices=[0, 1], used_hiddenstates=[1, 1, 0])), "'mlp'"),
        (dict(normal=dict(operations=["sep3", "avg"], hiddenstate_indices=[0, 2], used_hiddenstates=[1, 1, 0])), "node 2"),
        (dict(normal=dict(operations=["sep3", "avg"], hiddenstate_indices=[0, 1], used_hiddenstates=[1, 1, 1])), "concatenate"),
    ],
)
def test_what_makes_no_network_is_named(settings, says):
    with pytest.raises(ValueError, match=says):
        tiny("NASNet-A", **settings)


def test_a_specification_is_of_one_style():
    spec = find(NAMES["PNASNet-5"])["spec"]
    with pytest.raises(ValueError, match="pnas_style_reduction"):
        model_config({**spec, "pnas_style_reduction": False})
    with pytest.raises(ValueError, match="damaged"):
        model_config({**spec, "cell": {}})


def test_maps_are_rectified_cell_outputs():
    model = tiny("AmoebaNet-C").eval()
    seen = []
    model.cells[-1].register_forward_hook(lambda *args: seen.append(args[2]))
    with torch.no_grad():
        (y,) = model(torch.randn(1, 3, 64, 64))
    assert torch.equal(y, F.relu(seen[0])) and (seen[0] < 0).any()
