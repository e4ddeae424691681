import random

import pytest
import torch
from torch import nn

from backbones import CellNet
from backbones.cell_net import AuxiliaryHead
from backbones.genotype import from_genotype, to_genotype
from backbones.published import rows
from backbones.spec import model_config
from search.cost import bytes_kept
from search.registry import MODELS
from search.space import Architecture
from search.supernet import ArchParams, Relax, Softmax, building, inherit, record


def published_cells():
    """Published cells that are architectures of CellNet: (row, config of the network)."""
    for row in rows():
        if row["spec"] and row["spec"]["schema"] == "darts_cell":
            config = model_config(row["spec"])["backbone"]
            if config["type"] == "search.CellNet":
                yield pytest.param(row["spec"], config, id=row["name"])


# (kernel, dilation, how many) of the depthwise convolutions each operation must hold, and what else tells it
EXPECTED = {
    "sep_conv_3x3": [(3, 1), (3, 1)],
    "sep_conv_5x5": [(5, 1), (5, 1)],
    "dil_conv_3x3": [(3, 2)],
    "dil_conv_5x5": [(5, 2)],
}


@pytest.mark.parametrize(("spec", "config"), published_cells())
def test_built_edges_operations_and_strides_equal_the_genotype(spec, config):
    genotype = spec["genotype"]
    with torch.device("meta"):
        model = MODELS.build(config)
    for i, cell in enumerate(model.cells):
        reduction = i in spec["reductions"]
        rows = genotype["reduce" if reduction else "normal"]
        expected = {f"n{2 + k // 2}<-{source}": op for k, (op, source) in enumerate(rows)}
        assert {edge: next(iter(m.ops)) for edge, m in cell.dag.edges.items()} == expected
        for edge, mixed in cell.dag.edges.items():
            stride = 2 if reduction and int(edge.split("<-")[1]) < 2 else 1
            convs = [m for m in mixed.modules() if isinstance(m, nn.Conv2d)]
            name = expected[edge]
            if name in EXPECTED:
                depthwise = [m for m in convs if m.groups > 1]
                assert [(m.kernel_size[0], m.dilation[0]) for m in depthwise] == EXPECTED[name]
                assert [m.stride[0] for m in depthwise] == [stride] + [1] * (len(depthwise) - 1)
            elif name == "skip_connect":
                assert [m.stride[0] for m in convs] == ([2, 2] if stride == 2 else [])
            else:
                kind = nn.MaxPool2d if name == "max_pool_3x3" else nn.AvgPool2d
                assert isinstance(mixed.only, kind) and mixed.only.stride == stride and not convs


@pytest.mark.parametrize(("spec", "config"), published_cells())
def test_genotype_round_trip(spec, config):
    genotype, arch = spec["genotype"], Architecture(config["arch"])
    assert from_genotype(genotype) == arch
    normal, reduce = ([tuple(edge) for edge in genotype[cell]] for cell in ("normal", "reduce"))
    text = f"Genotype({normal=}, normal_concat=range(2, 6), {reduce=}, reduce_concat=[2, 3, 4, 5])"
    assert from_genotype(text) == arch
    assert from_genotype(to_genotype(arch)) == arch


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("__import__('os').system('true')", "not a genotype"),
        ({"normal": []}, "reduce"),
        ({"normal": [("skip_connect", 0), ("skip_connect", 0)], "reduce": []}, "different earlier states"),
        ({"normal": [("skip_connect", 0), ("skip_connect", 2)], "reduce": []}, "different earlier states"),
        ({"normal": [("skip_connect", 0)], "reduce": []}, "edges"),
        ({"normal": [1]}, "1 is no pair"),
        ({"normal": [("a", "x")]}, "'x'"),
    ],
)
def test_what_is_no_genotype_is_refused(text, says):
    with pytest.raises(ValueError, match=says):
        from_genotype(text)


def test_pc_darts_supernet_has_the_official_parameter_count():
    def build():
        return CellNet(channels=16, layers=8, affine=False, partial=4)

    params = ArchParams(record(build).space, edge_logits=True)
    with building(Relax(params)), torch.device("meta"):
        model = build()
    count = sum(p.numel() for p in model.parameters()) + model.out_channels[-1] * 10 + 10
    assert count == 299_578
    assert sum(p.numel() for p in params.parameters()) == 2 * (14 * 8 + 14)


def kept(partial, batch=64, size=32):
    """Bytes the supernet of C=16, 8 layers keeps for backward, gates, classifier and loss included."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    def build():
        return CellNet(channels=16, layers=8, affine=False, partial=partial)

    space = record(build).space
    with FakeTensorMode():
        params = ArchParams(space, edge_logits=partial > 1)
        with building(Relax(params)):
            model, head = build(), nn.Linear(256, 10)
        images, labels = torch.randn(batch, 3, size, size), torch.zeros(batch, dtype=torch.long)

        def loss():
            with params.gated(Softmax()):
                return nn.functional.cross_entropy(head(model(images)[0].mean((2, 3))), labels)

        return bytes_kept(loss, [*model.parameters(), *model.buffers(), *head.parameters(), *params.parameters()])


def test_the_reference_plan_keeps_no_more_than_the_official_pc_darts():
    assert kept(partial=4) / 2**20 <= 2437


@pytest.mark.parametrize(
    ("stem", "channels", "classes", "published"), [("cifar", 36, 10, 0.4764), ("imagenet", 48, 1000, 1.2608)]
)
def test_auxiliary_head_has_the_published_size(stem, channels, classes, published):
    head = AuxiliaryHead(4 * 4 * channels, classes, stem)
    assert f"{sum(p.numel() for p in head.parameters()) / 1e6:.4f}" == f"{published:.4f}"
    assert head(torch.randn(2, 16 * channels, *((8, 8) if stem == "cifar" else (7, 7)))).shape == (2, classes)


def sample():
    return record(lambda: CellNet(channels=4, layers=5)).space.sample(random.Random(0))


def test_features_are_what_feature_info_says():
    for stem, size in (("cifar", 32), ("imagenet", 128)):
        model = CellNet(channels=4, layers=5, stem=stem, out_indices=(0, 1, 2, 3), arch=sample())
        maps = model(torch.randn(1, 3, size, size))
        assert [m.shape[1] for m in maps] == list(model.out_channels)
        assert [size // m.shape[2] for m in maps] == list(model.out_strides)
    assert model.out_strides == (4, 8, 16, 32)


def test_auxiliary_logits_in_training_only_and_not_inherited():
    model = CellNet(channels=4, layers=3, auxiliary=True, num_classes=7, arch=sample())
    x = torch.randn(2, 3, 32, 32)
    model.train()(x)
    assert model.aux_logits.shape == (2, 7)
    model.eval()(x)
    assert model.aux_logits is None
    names = set(model.without_counterpart())
    assert "auxiliary.conv1.weight" in names and names <= set(model.state_dict())


def test_what_search_and_derived_network_do_not_share_is_listed():
    """Affine norms are new in the derived network; the search's norms after pools are left behind."""
    params = ArchParams(record(lambda: CellNet(channels=4, layers=3, affine=False)).space)
    arch = dict(params.space.sample(random.Random(0)))
    arch |= {n: "max_pool_3x3" if n.startswith("normal/") else "sep_conv_3x3" for n in arch if "<-" in n}
    with building(Relax(params)):
        wide = CellNet(channels=4, layers=3, affine=False)
    narrow = CellNet(channels=4, layers=3, arch=arch)
    result = inherit(narrow, wide.state_dict())
    norms = {n for n, m in narrow.cells.named_modules(prefix="cells") if isinstance(m, nn.BatchNorm2d)}
    assert set(result.without_counterpart) == {f"{n}.{p}" for n in norms for p in ("weight", "bias")}
    pools = {n for n, m in narrow.named_modules() if isinstance(m, nn.MaxPool2d)}
    left = ("running_mean", "running_var", "num_batches_tracked")
    assert pools and set(result.dropped) == {f"{n}.1.{b}" for n in pools for b in left}


@pytest.mark.parametrize("side", [1, 2, 3, 4, 5, 8, 14])
def test_auxiliary_head_takes_any_map(side):
    assert AuxiliaryHead(8, 5, "cifar")(torch.randn(2, 8, side, side)).shape == (2, 5)


def test_drop_path_grows_with_progress_and_spares_identities():
    arch = {n: v for n, v in sample().items() if n.startswith("normal/")}
    arch |= {n: "skip_connect" for n in arch if "<-" in n}
    model = CellNet(channels=4, layers=1, reductions=(), drop_path=0.9, arch=arch).train()
    x = torch.randn(4, 3, 8, 8)
    model.set_progress(1.0)
    assert model.cells[0].dag.drop_path == 0.9
    y = [model(x)[0] for _ in range(2)]
    assert torch.equal(*y)
    arch |= {n: "sep_conv_3x3" for n in arch if "<-" in n}
    model = CellNet(channels=4, layers=1, reductions=(), drop_path=0.5, arch=arch).train()
    assert torch.equal(model(x)[0], model(x)[0])
    model.set_progress(1.0)
    assert not torch.equal(model(x)[0], model(x)[0])


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        (dict(stem="vit"), "vit"),
        (dict(auxiliary=True), "num_classes"),
        (dict(num_classes=7), "num_classes=7"),
        (dict(drop_path=1.0), "drop_path=1.0"),
        (dict(reductions=(3, 1)), "reductions"),
        (dict(out_indices=(7,)), "levels 0 to 3"),
        (dict(partial=3), "partial_channels=3"),
    ],
)
def test_settings_that_cannot_be_are_named(kwargs, says):
    with pytest.raises(ValueError, match=says):
        CellNet(channels=4, layers=5, arch=sample(), **kwargs)
