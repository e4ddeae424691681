import copy
import math
import random
from itertools import pairwise

import pytest
import torch
from torch import nn

from backbones import AutoDeepLab
from backbones.auto_deeplab import found_architecture, trellis
from backbones.auto_deeplab_cell import Halve, candidates
from backbones.published import find
from search.space import SomeOf, TopInputs
from search.supernet import ArchParams, Relax, Softmax, building, inherit, record

SMALL = dict(filters=4, layers=4, blocks=2, stem=(4, 4, 8))


def supernet(dtype=torch.float64, std=1.0, **settings):
    """A small supernet and its logits."""
    torch.manual_seed(0)

    def build():
        return AutoDeepLab(**{**SMALL, "affine": False, **settings})

    params = ArchParams(record(build).space, std=std)
    with building(Relax(params)):
        model = build()
    return params.to(dtype), model.to(dtype)


def architecture(path, blocks=2, operation="sep_conv_3x3"):
    """A cell of one operation on this path, each block on the two inputs."""
    arch = {"path": tuple(path)}
    for node in range(2, 2 + blocks):
        arch[f"cell/n{node}/inputs"] = (0, 1)
        arch |= {f"cell/n{node}<-{source}": operation for source in (0, 1)}
    return arch


def test_the_space_is_the_paper_s():
    space = record(lambda: AutoDeepLab()).space
    assert trellis(12).count == 28_657
    inputs = [choice for choice in space if isinstance(choice, SomeOf)]
    assert [len(choice.options) for choice in inputs] == [2, 3, 4, 5, 6] and all(choice.k == 2 for choice in inputs)
    edges = [choice for choice in space if "<-" in choice.name]
    assert len(edges) == 20 and all(choice.relax_only == ("none",) and len(choice.options) == 8 for choice in edges)
    # one cell for all layers and strides: unordered pairs of different inputs, seven operations on each
    assert space.size == 28_657 * math.prod(math.comb(n, 2) * 7**2 for n in range(2, 7))


def test_only_nodes_that_a_path_reaches_are_built():
    _, model = supernet(layers=5, filters=4)
    reached = {f"l{layer}_s{path[layer]}" for path in trellis(5).values() for layer in range(5)}
    assert set(model.cells) == reached and "l2_s32" not in reached
    assert model.out_strides == (4, 8, 16, 32) and model.out_channels == (8, 16, 32, 64)


def test_widths_are_those_of_the_paper():
    with torch.device("meta"):
        model = AutoDeepLab(arch=architecture((4, 8, 16, 32, 16), 5), layers=5)
    blocks = {name: cell.dags["stride1"].edges["n2<-1"].only[2].out_channels for name, cell in model.cells.items()}
    assert blocks == {"l0_s4": 8, "l1_s8": 16, "l2_s16": 32, "l3_s32": 64, "l4_s16": 32}
    assert {name: cell.out_channels for name, cell in model.cells.items()} == {n: 5 * c for n, c in blocks.items()}


def test_a_node_is_the_weighted_sum_of_its_cell_on_each_incoming_map():
    """Equation 6, written out; gates by hand, so that a mixture of inputs would be seen."""
    params, model = supernet(layers=3)
    model.eval()
    x = torch.randn(1, 3, 33, 33, dtype=torch.float64)
    sizes = {4: (9, 9), 8: (5, 5), 16: (3, 3)}
    with torch.no_grad(), params.gated(Softmax()):
        beta = params.probabilities(Softmax())["path"]
        stem = model.stem1(model.stem0(x))
        cells = model.cells

        def cell(name, source, y, before):
            return cells[name]([(source, y, None)], before, sizes)

        first = cell("l0_s4", 4, stem, {})
        fine = beta[1, 4, 4] * cell("l1_s4", 4, first, {4: stem})
        coarse = beta[1, 4, 8] * cell("l1_s8", 4, first, {4: stem})
        expected = beta[2, 4, 8] * cell("l2_s8", 4, fine, {4: first})
        expected = expected + beta[2, 8, 8] * cell("l2_s8", 8, coarse, {4: first})
        got = dict(zip(model.out_strides, model(x), strict=True))[8]
    assert (got - expected.relu()).abs().max() < 1e-12 and got.abs().max() > 0


def test_the_input_two_layers_back_is_left_out_where_its_stride_has_no_map():
    _, model = supernet(layers=4)
    missing = {name for name, cell in model.cells.items() if not len(cell.before_last)}
    # the stem has a map at stride 4 only before the second layer
    assert missing == {"l0_s4", "l1_s8", "l2_s8", "l2_s16", "l3_s16", "l3_s32"}
    for name, cell in model.cells.items():
        assert any(edge.endswith("<-0") for edge in cell.dags["stride1"].edges) == (name not in missing)
    path = (4, 8, 8, 8)
    narrow = AutoDeepLab(arch=architecture(path), **SMALL)
    assert [bool(len(cell.before_last)) for cell in narrow.cells.values()] == [False, False, False, True]
    narrow = AutoDeepLab(arch=architecture(path), layout="published", **SMALL)
    assert [list(cell.before_last) for cell in narrow.cells.values()] == [["s2"], ["s4"], ["s4"], ["s8"]]


@pytest.mark.parametrize("layout", ["search", "published"])
def test_a_single_path_runs_its_own_cells_alone(layout):
    params, model = supernet(layout=layout)
    path = (4, 8, 16, 8)
    ran = []
    for name, cell in model.cells.items():
        cell.register_forward_hook(lambda *_, name=name: ran.append(name))
    with torch.no_grad(), params.masked(architecture(path)):
        maps = model(torch.randn(2, 3, 32, 32, dtype=torch.float64))
    assert ran == [f"l{layer}_s{stride}" for layer, stride in enumerate(path)]
    assert [y is not None for y in maps] == [stride == 8 for stride in model.out_strides]


def test_levels_of_a_derived_network():
    """The published path: the decoder's maps are those of the official table, {4: cell 2, 8: cell 5, 16: cell 7}."""
    spec = find("Auto-DeepLab-S")["spec"]
    arch = found_architecture(spec)
    with torch.device("meta"):
        model = AutoDeepLab(filters=20, arch=arch)
        maps = AutoDeepLab(filters=20, arch=arch, out_indices=(0, 1, 2, 3, 4))(torch.empty(1, 3, 321, 321))
    assert [level["module"] for level in model.feature_info] == [
        "cells.l2_s4",
        "cells.l5_s8",
        "cells.l7_s16",
        "cells.l9_s32",
        "output",
    ]
    assert model.out_indices == (0, 4) and model.out_strides == (4, 8) and model.out_channels == (100, 200)
    # what an author says of an image of 321 pixels: tensorflow/models, issue 6393
    assert [y.shape[2] for y in maps] == [81, 41, 21, 11, 41]
    assert arch["path"] == (4, 4, 4, 8, 16, 8, 16, 16, 32, 32, 16, 8)


def test_sizes_along_the_published_path():
    with torch.device("meta"):
        model = AutoDeepLab(filters=4, layout="published", arch=found_architecture(find("Auto-DeepLab-S")["spec"]))
    sizes = []
    for cell in model.cells.values():
        cell.register_forward_hook(lambda m, a, y: sizes.append(y.shape[2]))
    model(torch.empty(1, 3, 321, 321, device="meta"))
    assert sizes == [81, 81, 81, 41, 21, 41, 21, 21, 11, 11, 21, 41]


@pytest.mark.parametrize("size", [(64, 64), (65, 33), (50, 71)])
@pytest.mark.parametrize("layout", ["search", "published"])
def test_any_image_size(size, layout):
    params, model = supernet(torch.float32, layout=layout)
    with torch.no_grad(), params.gated(Softmax()):
        maps = model(torch.randn(2, 3, *size))
    assert [tuple(y.shape[2:]) for y in maps] == [tuple(-(-n // s) for n in size) for s in model.out_strides]


def test_candidates_of_both_kinds():
    full, depthwise = candidates(True), candidates(True, "depthwise")
    assert list(full) == list(depthwise)
    for kernel in (3, 5):
        (conv,) = (m for m in full[f"atrous_conv_{kernel}x{kernel}"](8, 1) if isinstance(m, nn.Conv2d))
        assert (conv.groups, conv.dilation, conv.kernel_size) == (1, (2, 2), (kernel, kernel))
        layers = list(full[f"atrous_conv_{kernel}x{kernel}"](8, 2))
        assert isinstance(layers[1], Halve) and layers[2].dilation == (1, 1)
        assert depthwise[f"atrous_conv_{kernel}x{kernel}"](8, 1)[1].groups == 8
    for stride in (1, 2):
        for make in [*full.values(), *depthwise.values()]:
            assert make(8, stride)(torch.randn(2, 8, 9, 7)).shape == (2, 8, -(-9 // stride), -(-7 // stride))


def test_the_found_cell_is_read_with_its_inputs_in_the_order_of_the_dag():
    arch = found_architecture(find("Auto-DeepLab-S")["spec"])
    # officially state 0 is the last layer's output and state 1 the one before
    assert arch["cell/n2/inputs"] == (0, 1)
    assert (arch["cell/n2<-0"], arch["cell/n2<-1"]) == ("atrous_conv_5x5", "sep_conv_3x3")
    assert (arch["cell/n4/inputs"], arch["cell/n4<-0"], arch["cell/n4<-3"]) == ((0, 3), "sep_conv_3x3", "sep_conv_3x3")
    assert (arch["cell/n6/inputs"], arch["cell/n6<-3"], arch["cell/n6<-5"]) == ((3, 5), "sep_conv_5x5", "atrous_conv_5x5")
    assert record(lambda: AutoDeepLab()).space.contains(arch)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (dict(used_hiddenstates=[1, 0, 0, 0, 0, 0, 0]), "concatenates all blocks"),
        (dict(hiddenstate_indices=[1, 1, 1, 0, 3, 1, 4, 2, 3, 5]), "block 1 reads state 1 twice"),
        (dict(blocks_per_cell=4), "a cell of 4 blocks"),
        (dict(operations=["conv"] * 10), "'conv'"),
    ],
)
def test_cells_that_are_not_searched_are_refused(changes, says):
    with pytest.raises((ValueError, KeyError), match=says):
        found_architecture({**find("Auto-DeepLab-S")["spec"], **changes})


def test_drop_path_grows_with_depth_and_time():
    model = AutoDeepLab(arch=architecture((4, 4, 8, 8)), drop_path=0.4, **SMALL)
    model.set_progress(0.5)
    assert [cell.dags["stride1"].drop_path for cell in model.cells.values()] == pytest.approx([0.05, 0.1, 0.15, 0.2])
    x = torch.randn(2, 3, 32, 32)
    model.train()
    assert not torch.equal(model(x)[1], model(x)[1])
    model.set_progress(0.0)
    assert torch.equal(model(x)[1], model(x)[1])


def test_affine_norms_alone_are_new_in_a_derived_network():
    _, wide = supernet(torch.float32)
    arch = architecture((4, 8, 8, 4), operation="max_pool_3x3")
    narrow = AutoDeepLab(arch=arch, **SMALL)
    result = inherit(narrow, wide.state_dict())
    norms = {n for n, m in narrow.cells.named_modules(prefix="cells") if isinstance(m, nn.BatchNorm2d)}
    assert norms and set(result.without_counterpart) == {f"{n}.{kind}" for n in norms for kind in ("weight", "bias")}
    # the norms after the search's pools are left behind
    assert any(".max_pool_3x3.1.running_mean" in name for name in result.dropped)


def test_a_supernet_of_partial_channels_or_another_layout_is_refused():
    arch = architecture((4, 4, 4, 8))
    for settings, says in [(dict(partial=2), "partial=1"), (dict(layout="published"), "here and")]:
        _, wide = supernet(torch.float32, **settings)
        with pytest.raises(ValueError, match=says):
            inherit(AutoDeepLab(arch=arch, **SMALL), wide.state_dict())


def test_decoding_gives_an_architecture_that_can_be_built():
    params, _ = supernet(layers=6)
    arch = TopInputs()(params.space, params.probabilities())
    path = arch["path"]
    assert len(path) == 6 and all(b in (a // 2, a, 2 * a) for a, b in pairwise(path))
    AutoDeepLab(arch=arch, **{**SMALL, "layers": 6})


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (dict(layout="paper"), "layout='paper' is none of search, published"),
        (dict(atrous="grouped"), "atrous='grouped' is none of full, depthwise"),
        (dict(drop_path=1.0), "drop_path=1.0"),
        (dict(stem=(8, 8)), r"stem=\(8, 8\)"),
        (dict(out_indices=(9,)), "levels 0 to 2"),
        (dict(layers=5), "path"),
    ],
)
def test_settings_that_cannot_be_are_named(settings, says):
    with pytest.raises(ValueError, match=says):
        AutoDeepLab(arch=architecture((4, 8, 8, 8)), **{**SMALL, **settings})


def test_frozen_levels_stay_as_they_are():
    model = AutoDeepLab(arch=architecture((4, 8, 16, 16)), frozen_stages=0, **SMALL).train()
    frozen = {
        name.split(".")[1] if name.startswith("cells") else name.split(".")[0]
        for name, p in model.named_parameters()
        if not p.requires_grad
    }
    assert frozen == {"stem0", "stem1", "l0_s4"}
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    sum(y.square().mean() for y in model(torch.randn(2, 3, 33, 33))).backward()
    optimizer.step()
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved and not {name for name in moved if name.startswith(("stem0", "stem1", "cells.l0_s4"))}


def test_drop_path_leaves_skips_alone_also_at_stride_two():
    """All edges skip, those that leave the inputs of a cell from a finer stride by a convolution."""
    arch = architecture((4, 8, 16, 16), operation="skip_connect")
    model = AutoDeepLab(arch=arch, drop_path=0.9, **{**SMALL, "layout": "published"}).train()
    assert "stride2" in model.cells["l1_s8"].dags
    x = torch.randn(2, 3, 33, 33)
    model.set_progress(1.0)
    assert torch.equal(model(x)[-1], model(x)[-1])


@pytest.mark.parametrize("seed", range(2))
def test_random_architectures_run(seed):
    space = record(lambda: AutoDeepLab(**SMALL)).space
    model = AutoDeepLab(arch=space.sample(random.Random(seed)), **SMALL)
    low, output = model(torch.randn(2, 3, 32, 32))
    assert output.min() >= 0 and low.shape[2:] == (8, 8)
