import pytest
import torch
from torch import nn

from backbones.darts import Squeeze
from backbones.nsga_net import NSGAMacro, dependencies
from backbones.published import find
from backbones.spec import model_config
from search.cost import count
from search.registry import MODELS

MACRO = "NSGA-Net macro"
MICRO = ("NSGA-Net micro C26 f4 SE", "NSGA-Net micro C34 f4", "NSGA-Net micro C36 f6 SE")


def macro(**settings):
    genome = find(MACRO)["spec"]["genome"]
    return NSGAMacro(**{"genome": genome, "channels": [(3, 8), (8, 8), (8, 12)], "growth": 4, **settings})


@pytest.mark.parametrize("name", MICRO)
def test_micro_has_the_printed_parameters(name):
    """The printed multiply-adds, 417, 550 and 817 M, count norms, activations and pools too (misc/flops_counter.py)."""
    row = find(name)
    cost = count(lambda: MODELS.build(model_config(row["spec"])), (3, 32, 32))
    assert f"{cost.params / 1e6:.2f}" == row["published_as"]["params"]
    assert 0.95 < cost.macs / 1e6 / float(row["published_as"]["madds"]) < 0.97


def test_macro_has_the_printed_parameters_but_for_what_never_runs():
    """The authors' code holds two 1x1 convolutions of 128 to 128 channels that it never calls."""
    config = model_config(find(MACRO)["spec"])
    params = count(lambda: MODELS.build(config), (3, 32, 32)).params
    assert params == 3_337_482 and f"{(params + 2 * 128 * 128) / 1e6:.2f}" == "3.37"


def test_micro_cells_widen_by_the_increment_and_end_squeezed():
    model = MODELS.build(model_config(find(MICRO[0])["spec"])["backbone"])
    assert [cell.out_channels for cell in model.cells] == [4 * (26 + 4 * i) for i in range(20)]
    assert [level["stride"] for level in model.feature_info] == [1, 1, 2, 4]
    assert model.cells[0].after.layers[0].out_features == 4 * 26 // 16
    plain = MODELS.build(model_config(find(MICRO[1])["spec"])["backbone"])
    assert all(isinstance(cell.after, nn.Identity) for cell in plain.cells)
    # node 3 is read by two others and not concatenated
    assert list(plain.cells[0].ends) == ["2", "4", "5", "6"] and list(plain.cells[6].ends) == ["3", "4", "5", "6"]


def test_squeeze_scales_channels():
    squeeze, x = Squeeze(8, 4), torch.rand(2, 8, 3, 3) + 0.1
    factor = squeeze(x) / x
    assert torch.allclose(factor, factor[:, :, :1, :1].expand_as(factor)) and ((factor > 0) & (factor < 1)).all()


def test_a_gene_says_what_nodes_read():
    first, second, third = find(MACRO)["spec"]["genome"]
    assert dependencies(first) == [[0], [1], [0], [2], [2, 3, 4], [1, 4, 5], [6]]
    assert dependencies(second) == [[0], [0], [0], [2], [2, 4], [1, 2, 3, 4, 5], [6]]
    assert dependencies(third) == [[0], [0], [2], [1, 3], [1, 3, 4], [1, 4, 5], [6]]
    # node 3 is left alone; nodes 2 and 4 end in the output, and with the last bit the input does, after them
    assert dependencies([[1], [0, 0], [1, 0, 0], [1]]) == [[0], [1], [], [1], [2, 4, 0]]


def test_macro_maps_are_those_of_an_image_two_pixels_smaller():
    model = macro(out_indices=(0, 1, 2))
    maps = model(torch.randn(2, 3, 32, 32))
    assert [tuple(m.shape[1:]) for m in maps] == [(8, 30, 30), (8, 15, 15), (12, 7, 7)]
    assert model.out_strides == (1, 2, 4) and model.out_channels == (8, 8, 12)
    sum(m.square().sum() for m in maps).backward()
    assert not [n for n, p in model.named_parameters() if p.grad is None]


def test_macro_nodes_are_as_wide_as_what_they_read():
    phase = macro().phases[0]
    assert {n: node[2].in_channels for n, node in phase.nodes.items()} == {"1": 8, "2": 4, "3": 8, "4": 4, "5": 12, "6": 12}
    assert all(node[2].out_channels == 16 and node[5].out_channels == 4 for node in phase.nodes.values())
    alone = macro(genome=[[[1], [0, 0], [1, 0, 0], [1]]], channels=[(3, 8)]).phases[0]
    assert list(alone.nodes) == ["1", "2", "4"] and alone.out[0].in_channels == 4 + 4 + 8


def test_phases_without_connections_are_left_out():
    idle = [[0], [0, 0], [1]]
    model = macro(genome=[idle, [[1], [1, 1], [0]], idle, [[1], [0, 1], [1]]], channels=[(3, 8), (8, 12)])
    assert len(model.phases) == 2 and model(torch.randn(2, 3, 12, 12))[0].shape == (2, 12, 5, 5)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (dict(genome=[[[0], [0]]]), "no phase"),
        (dict(genome=[[[1], [1], [0]]], channels=[(3, 8)]), "give 2 bits"),
        (dict(genome=[[[2], [0]]], channels=[(3, 8)]), "give 1 bits"),
        (dict(channels=[(3, 8), (9, 8), (8, 8)]), "chain"),
        (dict(channels=[(3, 8)]), "3 phases"),
        (dict(out_indices=(3,)), "levels 0 to 2"),
    ],
)
def test_what_makes_no_network_is_named(settings, says):
    with pytest.raises(ValueError, match=says):
        macro(**settings)


def test_an_unknown_decoder_is_named():
    with pytest.raises(ValueError, match="residual"):
        model_config({**find(MACRO)["spec"], "decoder": "residual"})
