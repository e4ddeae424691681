import pytest
import torch
from torch import nn

from backbones.enas import MICRO_OPERATIONS, ENASMacro, ENASMicro
from backbones.operations import FactorizedReduce
from backbones.published import find
from backbones.spec import model_config
from search.cost import count
from search.registry import MODELS

MICRO, MACRO = "ENAS micro (official fixed arc)", "ENAS macro (official fixed arc)"


def micro(**settings):
    spec = find(MICRO)["spec"]
    arcs = dict(normal_arc=spec["normal_arc"], reduce_arc=spec["reduce_arc"])
    return ENASMicro(**{**arcs, "out_filters": 4, "layers": 6, "reductions": (1, 3), **settings})


def macro(layers=9, **settings):
    return ENASMacro(**{"per_layer": find(MACRO)["spec"]["per_layer"][:layers], "out_filters": 4, **settings})


def test_micro_has_the_independent_count():
    config = model_config(find(MICRO)["spec"])
    cost = count(lambda: MODELS.build(config), (3, 32, 32))
    assert f"{cost.params / 1e6:.4f}" == "3.8944"
    # the independent count of multiply-adds, 620.90 M, lacks those of the classifier: 5 nodes of 144 channels to 10 classes
    assert f"{(cost.macs - 5 * 144 * 10) / 1e6:.2f}" == "620.90"


def test_micro_concatenates_the_states_that_nobody_reads():
    model = micro()
    for number, cell in enumerate(model.cells):
        assert "".join(cell.ends) == ("2456" if number in (1, 3) else "23456")
    assert model.out_channels == (5 * 16,)
    # an input that nobody reads is concatenated too, at the size of the others
    skipping = micro(reduce_arc=[1, 0, 1, 4], normal_arc=[0, 4, 0, 2])
    assert ["".join(cell.ends) for cell in skipping.cells[:2]] == ["12", "02"]
    assert isinstance(skipping.cells[0].ends["1"], nn.Identity)
    assert isinstance(skipping.cells[1].ends["0"], FactorizedReduce) and not skipping.cells[1].ends["0"].relu
    assert skipping(torch.randn(2, 3, 9, 9))[0].shape[2:] == (3, 3)


def test_micro_numbers_are_the_authors_operations():
    """src/cifar10/micro_child.py: 0 and 1 separable convolutions, 2 and 3 pools, 4 the identity."""
    assert list(MICRO_OPERATIONS) == ["sep_conv_3x3", "sep_conv_5x5", "avg_pool_3x3", "max_pool_3x3", "identity"]
    cell = micro().cells[0]
    kinds = [[type(op).__name__ for op in node] for node in cell.dag.nodes]
    assert kinds == [
        ["AvgPool2d", "SepConv"],
        ["Identity", "SepConv"],
        ["Identity", "SepConv"],
        ["SepConv", "SepConv"],
        ["AvgPool2d", "SepConv"],
    ]
    assert cell.dag.sources == [(0, 0), (0, 0), (0, 1), (1, 0), (0, 1)]


def test_micro_levels_gradients_and_auxiliary_logits():
    model = micro(out_indices=(0, 1, 2, 3), auxiliary=True, num_classes=7)
    maps = model(torch.randn(2, 3, 13, 13))
    assert [m.shape[2] for m in maps] == [13, 13, 7, 4] and model.out_strides == (1, 1, 2, 4)
    assert [m.shape[1] for m in maps] == list(model.out_channels)
    assert all((m >= 0).all() for m in maps) and model.aux_logits.shape == (2, 7)
    (sum(m.square().sum() for m in maps) + model.aux_logits.sum()).backward()
    assert not [n for n, p in model.named_parameters() if p.grad is None]


def test_micro_drop_path_grows_with_depth():
    model = micro(drop_path=0.4)
    model.set_progress(1.0)
    assert [c.dag.drop_path for c in model.cells] == pytest.approx([0.4 * i / 6 for i in range(1, 7)])


def test_macro_skips_are_the_bits():
    rows, model = find(MACRO)["spec"]["per_layer"], macro(24)
    assert model.layers[0].merge is None
    for number, (op, *bits) in enumerate(rows):
        kernel = model.layers[number].body[2].kernel_size
        assert kernel == ((3, 3), (3, 3), (5, 5), (5, 5))[op]
        if number:
            skips, merge = model.layers[number].skips, model.layers[number].merge
            assert skips == [state for state, bit in enumerate(bits) if bit]
            assert merge[1].in_channels == (len(skips) + 1) * merge[1].out_channels


def test_macro_halves_what_is_still_read():
    published = macro(24)
    assert {n: len(layer.halve) for n, layer in enumerate(published.layers) if layer.halve} == {8: 9, 16: 17}
    # the stem's map (state 0) is read once more after the second halving only, layer 1's (state 2) after the first only
    rows = [[0], [1, 0], [2, 0, 0], [3, 0, 0, 1], [0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0]]
    model = ENASMacro(rows, out_filters=4, reductions=(2, 4))
    assert {n: list(layer.halve) for n, layer in enumerate(model.layers) if layer.halve} == {3: ["0", "2", "3"], 5: ["0", "5"]}
    model(torch.randn(2, 3, 8, 8))[0].square().sum().backward()
    assert not [n for n, p in model.named_parameters() if p.grad is None]


def test_macro_levels_and_gradients():
    model = macro(out_indices=(0, 1, 2, 3))
    maps = model(torch.randn(2, 3, 13, 13))
    assert [m.shape[2] for m in maps] == [13, 13, 7, 4] and model.out_strides == (1, 1, 2, 4)
    assert [m.shape[1] for m in maps] == [4, 4, 8, 16] == list(model.out_channels)
    sum(m.square().sum() for m in maps).backward()
    assert not [n for n, p in model.named_parameters() if p.grad is None]
    assert [level["module"] for level in model.feature_info] == ["stem", "layers.2", "layers.5", "layers.8"]


def test_macro_frozen_levels_hold_their_reductions():
    model = macro(frozen_stages=2).train()
    trained = {n.split(".")[1] for n, p in model.named_parameters() if p.requires_grad}
    assert trained == {"6", "7", "8"}


@pytest.mark.parametrize(
    ("build", "settings", "says"),
    [
        (micro, dict(normal_arc=[0, 1, 0]), "twice a node"),
        (micro, dict(normal_arc=[0, 1, 0, 5]), "operation 0 to 4"),
        (micro, dict(normal_arc=[0, 1, 2, 1]), "node 2 reads"),
        (micro, dict(reductions=(3, 1)), "rising"),
        (micro, dict(auxiliary=True), "num_classes"),
        (micro, dict(auxiliary=True, num_classes=3, reductions=(5,)), "after cell 6"),
        (macro, dict(per_layer=[[0], [4, 1], [0, 0, 0]]), "layer 1: operation 4"),
        (macro, dict(per_layer=[[0], [1], [0, 0, 0]]), "give 1 bits"),
        (macro, dict(per_layer=[[0], [1, 2], [0, 0, 0]]), r"\[2\]"),
        (macro, dict(reductions=(8,)), "before the last"),
    ],
)
def test_what_makes_no_network_is_named(build, settings, says):
    with pytest.raises(ValueError, match=says):
        build(**settings)


def test_specifications_that_contradict_themselves():
    with pytest.raises(ValueError, match="layers=24"):
        model_config({**find(MACRO)["spec"], "per_layer": [[0]]})
    with pytest.raises(ValueError, match="stand for"):
        model_config({**find(MICRO)["spec"], "ops": ["identity"]})
