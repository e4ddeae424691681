import random

import pytest
import torch
from torch import nn

from backbones import CellNet
from backbones.darts import OPERATIONS, GenotypeNet, genotype_edges
from backbones.genotype import from_genotype
from backbones.published import config_of, find, rows
from backbones.spec import model_config
from search.cost import count
from search.registry import MODELS
from search.supernet import record

EDGES = ("normal", "normal_concat", "reduce", "reduce_concat")
# none of these is an architecture of CellNet: a state read twice, `none`, an operation that isn't searched
BEYOND = ("SNAS_moderate CIFAR-10 36/20", "SNAS_aggressive CIFAR-10 36/20", "SETN CIFAR-10 36/20")


def fair(letter):
    return find(f"FairDARTS_{letter} CIFAR-10 36/20")


def tiny(genotype, **settings):
    cells = {key: genotype[key] for key in EDGES}
    return GenotypeNet(**{**cells, "channels": 4, "layers": 3, **settings})


def test_genotypes_are_architectures_where_they_can_be():
    kinds = {
        row["name"]: model_config(row["spec"])["backbone"]["type"]
        for row in rows()
        if row["spec"] and row["spec"]["schema"] == "darts_cell"
    }
    assert len(kinds) == 16
    assert {name for name, kind in kinds.items() if kind == "search.GenotypeNet"} == set(BEYOND)


def test_layouts_of_cifar_and_imagenet():
    cifar = model_config(find("GDAS_V1 CIFAR-10 36/20")["spec"])
    imagenet = model_config(find("GDAS_V1 ImageNet 50/14")["spec"])
    for config, channels, layers, reductions, stem, classes in (
        (cifar, 36, 20, [6, 13], "cifar", 10),
        (imagenet, 50, 14, [4, 9], "imagenet", 1000),
    ):
        backbone = config["backbone"]
        assert (backbone["channels"], backbone["layers"], backbone["reductions"]) == (channels, layers, reductions)
        assert backbone["stem"] == stem and config["num_classes"] == classes


def test_a_genotype_net_is_the_cell_net_of_the_same_genotype():
    genotype = find("DARTS_V2 CIFAR-10 36/20")["spec"]["genotype"]
    arguments = dict(channels=4, layers=5, out_indices=(0, 1, 2, 3))
    searched = CellNet(**arguments, arch=dict(from_genotype(genotype))).double().eval()
    fixed = GenotypeNet(**arguments, **genotype_edges(genotype)).double().eval()
    assert fixed.feature_info == searched.feature_info
    searched.stem0.load_state_dict(fixed.stem0.state_dict())
    for a, b in zip(searched.cells, fixed.cells, strict=True):
        a.preprocess0.load_state_dict(b.preprocess0.state_dict())
        a.preprocess1.load_state_dict(b.preprocess1.state_dict())
        for node, (sources, operations) in enumerate(zip(b.dag.sources, b.dag.nodes, strict=True), 2):
            for source, operation in zip(sources, operations, strict=True):
                a.dag.edges[f"n{node}<-{source}"].only.load_state_dict(operation.state_dict())
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    for one, two in zip(searched(x), fixed(x), strict=True):
        assert torch.allclose(one, two, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("letter", "params", "macs"),
    [("b", 3.8843, 536.488), ("e", 3.1202, 414.697), ("f", 3.6275, 497.614), ("g", 3.3755, 453.376)],
)
def test_fair_darts_has_the_printed_figures(letter, params, macs):
    """Printed: 3.88 M and 536 M, 3.12 and 414, 3.62 and 497, 3.375 and 453, truncated; with the auxiliary head's parameters."""
    row = fair(letter)
    config = config_of({**row, "spec": {**row["spec"], "empty_nodes": "left out"}})
    whole = MODELS.build(config)
    cost = count(whole, (3, 32, 32))
    auxiliary = sum(p.numel() for p in whole.backbone.auxiliary.parameters())
    assert f"{(cost.params + auxiliary) / 1e6:.4f} {cost.macs / 1e6:.3f}" == f"{params} {macs}"
    printed = row["published_as"]
    assert f"{params}".startswith(printed["params"][:4]) and f"{macs}".startswith(printed["madds"])


def test_nodes_without_edges_are_zero():
    """An empty sum; it is concatenated as the genotype says."""
    y = tiny(fair("a")["spec"]["genotype"]).eval().cells[0](torch.randn(2, 12, 8, 8), torch.randn(2, 12, 8, 8))
    assert [bool(part.any()) for part in y.split(4, dim=1)] == [True, False, True, True]
    with pytest.raises(ValueError, match="neither 'zeros' nor 'left out'"):
        tiny(fair("a")["spec"]["genotype"], empty_nodes="gone")


def test_nodes_without_edges_may_be_left_out():
    """Normal cells of FairDARTS a, c, e, g have no edge into node 3; c's and g's have one out of it (fairdarts/model.py)."""
    settings = dict(out_indices=(0, 1, 2, 3), empty_nodes="left out")
    widths = {letter: tiny(fair(letter)["spec"]["genotype"], **settings).out_channels for letter in "abcefg"}
    assert widths["b"] == widths["f"] == (12, 16, 32, 64)
    # with three layers the second and the third are reductions, whose nodes all have edges
    assert widths["a"] == widths["c"] == widths["e"] == widths["g"] == (12, 12, 32, 64)
    cell = tiny(fair("c")["spec"]["genotype"], empty_nodes="left out").cells[0]
    # node 4 reads (0, 2); node 5 keeps its edge from 0 alone. They are the third and the fourth state
    assert cell.dag.sources == [(0, 1), (0, 2), (0,)] and list(cell.ends) == ["2", "3", "4"]


def test_nodes_of_none_are_zero_and_concatenated():
    genotype = find(BEYOND[1])["spec"]["genotype"]
    model = GenotypeNet(**genotype_edges(genotype), channels=4, layers=3).eval()
    y = model.cells[1](torch.randn(2, 12, 8, 8), torch.randn(2, 16, 8, 8))
    assert y.shape == (2, 32, 4, 4) and [bool(part.any()) for part in y.split(8, dim=1)] == [True, True, False, False]


@pytest.mark.parametrize("name", [*BEYOND, "FairDARTS_a CIFAR-10 36/20", "FairDARTS_g CIFAR-10 36/20"])
def test_levels_and_gradients(name):
    config = model_config(find(name)["spec"])["backbone"]
    config |= dict(channels=4, layers=5, reductions=[1, 3], auxiliary=True, num_classes=3, out_indices=(0, 1, 2, 3))
    model = MODELS.build(config)
    maps = model(torch.randn(2, 3, 17, 17))
    assert [m.shape[2] for m in maps] == [17, 17, 9, 5] and model.out_strides == (1, 1, 2, 4)
    assert [m.shape[1] for m in maps] == list(model.out_channels)
    (sum(m.square().sum() for m in maps) + model.aux_logits.sum()).backward()
    missing = {n.rsplit(".", 2)[0] for n, p in model.named_parameters() if p.grad is None}
    # in this genotype only `none` reads the second input of reduction cells
    assert missing == ({"cells.1.preprocess1", "cells.3.preprocess1"} if name == BEYOND[1] else set())


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("stride", [1, 2])
def test_operations_keep_channels(operation, stride):
    assert OPERATIONS[operation](6, stride)(torch.randn(2, 6, 7, 5)).shape == (2, 6, *((7, 5) if stride == 1 else (4, 3)))


def test_factorized_convolutions_stride_along_their_own_axis():
    convs = [m for m in OPERATIONS["conv_3x1_1x3"](4, 2) if isinstance(m, nn.Conv2d)]
    assert [(m.kernel_size, m.stride) for m in convs] == [((1, 3), (1, 2)), ((3, 1), (2, 1))]


def test_any_sampled_architecture_is_the_same_as_edges():
    """A genotype's edges may come in any order of their nodes."""
    arch = record(lambda: CellNet(channels=4, layers=3)).space.sample(random.Random(0))
    edges = {
        cell: [
            (op, int(name.split("/n")[1].split("<-")[0]), int(name.split("<-")[1]))
            for name, op in arch.items()
            if name.startswith(cell) and "<-" in name
        ]
        for cell in ("normal", "reduce")
    }
    concat = {f"{cell}_concat": range(2, 6) for cell in edges}
    fixed = GenotypeNet(edges["normal"][::-1], reduce=edges["reduce"], **concat, channels=4, layers=3)
    assert sum(p.numel() for p in fixed.parameters()) == sum(
        p.numel() for p in CellNet(channels=4, layers=3, arch=arch).parameters()
    )


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (dict(normal=[["transformer", 2, 0]]), "'transformer'"),
        (dict(normal=[["skip_connect", 2, 2]]), r"node 2 can't read states \[2\]"),
        (dict(normal=[["skip_connect", 1, 0]]), "node 1"),
        (dict(normal=[]), "can't concatenate"),
        (dict(normal=[["skip_connect", 2, 0.5]]), "unlike 0.5"),
        (dict(normal_concat=[0, 2]), "from 2 on"),
        (dict(normal_concat=[2, 2]), "different nodes"),
        (dict(layers=2), "too few"),
        (dict(auxiliary=True), "num_classes"),
    ],
)
def test_what_makes_no_network_is_named(changed, says):
    genotype = fair("b")["spec"]["genotype"]
    settings = {key: changed.pop(key) for key in list(changed) if key not in EDGES}
    with pytest.raises(ValueError, match=says):
        tiny({**genotype, **changed}, **settings)


def test_damaged_specifications_are_named():
    spec = find(BEYOND[0])["spec"]
    with pytest.raises(ValueError, match="'mnist'"):
        model_config({**spec, "dataset": "mnist"})
    with pytest.raises(ValueError, match="7 values"):
        model_config({**spec, "genotype": {**spec["genotype"], "normal": spec["genotype"]["normal"][1:]}})
    with pytest.raises(ValueError, match="damaged"):
        model_config({**spec, "genotype": {"normal": []}})
