"""DPC's space, its operations and its supernet. The published cell is in test_published.py and test_wiring.py."""

import copy
import random
from collections import Counter
from math import factorial

import pytest
import torch

from backbones.dense_prediction_cell import AtrousSeparable, DensePredictionCell, GridPool, candidates, found_architecture
from backbones.published import find
from search.space import Architecture, Space, TopInputs, save
from search.supernet import ArchParams, Fix, Relax, Softmax, building, inherit, record

SMALL = dict(channels=8, branches=3, rates=(1, 3), grids=(1, 2))
# of SMALL: 1x1, four rates, four grids
OPERATIONS = 9


def wide(edge_logits=False, dtype=torch.float64, in_channels=(16,), **settings):
    torch.manual_seed(0)

    def build():
        return DensePredictionCell(in_channels, **{**SMALL, "affine": False, "dropout": 0.0, **settings})

    params = ArchParams(record(build).space, edge_logits=edge_logits, std=1.0)
    with building(Relax(params)):
        return params.to(dtype), build().to(dtype)


def space(**settings) -> Space:
    return record(lambda: DensePredictionCell([8], **settings)).space


@pytest.fixture(scope="module")
def papers():
    return space()


def test_the_papers_space_has_4e11_cells(papers):
    assert len(candidates(True)) == 1 + 8 * 8 + 4 * 4 == 81
    assert papers.size == factorial(5) * 81**5 == 418_414_128_120
    for branches in (1, 2, 4):
        made = space(**{**SMALL, "branches": branches})
        assert made.size == factorial(branches) * OPERATIONS**branches


def test_samples_are_legal_and_uniform():
    made = space(**SMALL)
    rng = random.Random(0)
    pairs = Counter()
    for _ in range(5400):
        arch = made.sample(rng)
        for branch in (1, 2, 3):
            (source,) = arch[f"dpc/n{branch}/inputs"]
            assert 0 <= source < branch
            assert [name for name in arch if name.startswith(f"dpc/n{branch}<-")] == [f"dpc/n{branch}<-{source}"]
        pairs[source, arch[f"dpc/n3<-{source}"]] += 1
    # the last branch has 3 inputs x 9 operations; 99.99 % of a chi-square of 26 degrees of freedom
    assert len(pairs) == 27
    assert sum((n - 200) ** 2 / 200 for n in pairs.values()) < 61.7


def test_rates_are_of_height_and_width():
    op = AtrousSeparable(1, 1, rate=(2, 5)).eval()
    with torch.no_grad():
        op[0][0].weight.fill_(1.0)
        op[1][0].weight.fill_(1.0)
        x = torch.zeros(1, 1, 15, 15)
        x[..., 7, 7] = 1.0
        rows, columns = op(x)[0, 0].nonzero(as_tuple=True)
    assert set(rows.tolist()) == {5, 7, 9} and set(columns.tolist()) == {2, 7, 12}
    doubled = candidates(True, rate_multiplier=2)["atrous_3x3_rate_6x21"](4, 1)
    assert doubled[0][0].dilation == doubled[0][0].padding == (12, 42)


@pytest.mark.parametrize("size", [(8, 12), (3, 5)])
def test_pyramid_pooling_is_the_means_of_a_grid(size):
    op = GridPool(2, 1, grid=(2, 4), c_in=2).eval()
    x = torch.rand(1, 2, *size)
    with torch.no_grad():
        op.conv[0].weight.copy_(torch.eye(2).view(2, 2, 1, 1))
        y = op(x)
    assert y.shape == x.shape
    if size == (8, 12):
        means = x.view(1, 2, 2, 4, 4, 3).mean((3, 5))
        # corners are aligned, the norm divides by sqrt(1 + eps)
        assert torch.allclose(y[..., :: size[0] - 1, :: size[1] - 1], means[..., ::1, ::3] / (1 + 1e-5) ** 0.5)
    one = GridPool(2, 1, grid=(1, 1)).eval()
    assert torch.allclose(one(x), one(x).mean((2, 3), keepdim=True).expand_as(x))


def test_other_maps_are_passed_on():
    arch = record(lambda: DensePredictionCell([4, 16, 6], in_index=1, **SMALL)).space.sample(random.Random(3))
    neck = DensePredictionCell([4, 16, 6], in_index=1, arch=arch, **SMALL)
    maps = [torch.randn(2, c, 6, 6) for c in (4, 16, 6)]
    first, context, last = neck(maps)
    assert first is maps[0] and last is maps[2] and neck.out_channels == (4, 8, 6) and context.shape == (2, 8, 6, 6)
    with pytest.raises(ValueError, match=r"in_channels=\[4, 16, 6\] of the neck, but the backbone's maps have \[4, 16\]"):
        neck(maps[:2])


@pytest.mark.parametrize("k", [1, 2, 4, 8])
@pytest.mark.parametrize("edge_logits", [False, True])
def test_any_number_of_partial_channels_trains(k, edge_logits):
    params, model = wide(edge_logits, torch.float32, partial=k, channels=16)
    optimizer = torch.optim.SGD([*model.parameters(), *params.parameters()], lr=0.1)
    # two images would be normalised to plus and minus one where they are pooled
    x = (torch.randn(4, 16, 6, 6),)
    before = copy.deepcopy({**model.state_dict(), **params.state_dict()})
    with params.gated(Softmax()):
        model(x)[0].square().mean().backward()
    optimizer.step()
    after = {**model.state_dict(), **params.state_dict()}
    # a branch with one input has no choice of it
    still = {"_logits.dpc/n1/inputs"}
    assert {name for name, value in after.items() if torch.equal(value, before[name])} <= still
    weight = model.dag.edges["n1<-0"].ops["conv_1x1"][0].weight
    assert weight.shape == (16 // k, 16 // k, 1, 1)


@pytest.mark.parametrize("in_channels", [16, 4])
def test_what_no_candidate_sees_reaches_the_branch(in_channels):
    """K = 2: 4 channels made, then the first 4 unseen ones of the map, or all of them and again; shuffled in 2 groups."""
    params, model = wide(in_channels=(in_channels,), partial=2, branches=1)
    x = torch.randn(2, in_channels, 6, 6, dtype=torch.float64)
    with params.gated(Softmax()):
        (branch,) = model.dag(x)
        made = model.dag.edges["n1<-0"](x[:, : in_channels // 2])
    assert torch.equal(branch[:, 0::2], made)
    rest = x[:, in_channels // 2 :]
    assert torch.equal(branch[:, 1::2], rest[:, :4] if in_channels == 16 else torch.cat((rest, rest), 1))


def test_decoding_keeps_the_strongest_input_and_operation():
    params, _ = wide()
    with torch.no_grad():
        for name, logit in params.logits.items():
            logit.zero_()
            if name in ("dpc/n2<-1", "dpc/n3<-0"):
                logit[4] = 3.0
    arch = TopInputs()(params.space, params.probabilities())
    assert arch["dpc/n2/inputs"] == (1,) and arch["dpc/n3/inputs"] == (0,)
    assert arch["dpc/n2<-1"] == arch["dpc/n3<-0"] == "atrous_3x3_rate_3x3"
    assert arch["dpc/n1<-0"] == "conv_1x1"


def test_a_derived_cell_takes_over_the_supernets_weights_but_not_partial_ones():
    params, model = wide(torch.float32)
    arch = params.space.sample(random.Random(0))
    narrow = DensePredictionCell([16], arch=arch, **SMALL)
    found = inherit(narrow, model.state_dict())
    # the search's norms have no scale and shift
    assert set(found.without_counterpart) == set(narrow.without_counterpart()) != set()
    assert torch.equal(narrow.project[0].weight.double(), model.project[0].weight)
    with pytest.raises(ValueError, match="partial=1"):
        inherit(narrow, wide(partial=2)[1].state_dict())


def test_the_published_cell_is_one_of_the_papers_space(papers):
    spec = find("DPC on MobileNetV2 (OS16)")["spec"]
    arch = Architecture(found_architecture(spec["cell"]))
    papers.check(arch)
    assert arch["dpc/n5/inputs"] == (1,) and arch["dpc/n5<-1"] == "atrous_3x3_rate_6x21"
    pooled = [{"op": "pyramid_pooling", "grid_size": [2, 8], "input": -1}, {"op": "conv", "kernel": 1, "input": 0}]
    assert found_architecture(pooled)["dpc/n1<-0"] == "pool_grid_2x8" and found_architecture(pooled)["dpc/n2<-1"] == "conv_1x1"
    with pytest.raises(ValueError, match="branch 0 reads 0"):
        found_architecture([{"kernel": 1, "input": 0}])
    with pytest.raises(ValueError, match="kernel 5"):
        found_architecture([{"kernel": 5, "rate": [1, 1], "input": -1}])


def test_architectures_of_other_spaces_are_refused(tmp_path):
    good = dict(space(**SMALL).sample(random.Random(0)))
    later = {**good, "dpc/n1/inputs": (1,)}
    for wrong, says in (
        (later, r"the architecture chooses \(1,\) for 'dpc/n1/inputs', which this neck doesn't offer"),
        ({**good, "dpc/n1<-0": "atrous_3x3_rate_6x6"}, "'atrous_3x3_rate_6x6' for 'dpc/n1<-0'"),
        ({k: v for k, v in good.items() if k != "dpc/n3/inputs"}, "doesn't say 'dpc/n3/inputs'"),
    ):
        with pytest.raises(ValueError, match=says), building(Fix(wrong)):
            DensePredictionCell([8], **SMALL)
    other = space(**{**SMALL, "rates": (1, 6)})
    shared = {f"dpc/n{i}{end}": value for i in (1, 2, 3) for end, value in (("/inputs", (0,)), ("<-0", "conv_1x1"))}
    save(tmp_path / "arch.json", {"neck": (other, Architecture(shared))}, {})
    with pytest.raises(ValueError, match="part 'neck' is an architecture of another space"):
        DensePredictionCell([8], arch=tmp_path / "arch.json", **SMALL)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (dict(rates=(1, 1)), r"rates=\(1, 1\) must be positive whole numbers, each once"),
        (dict(grids=(0, 2)), "grids"),
        (dict(branches=0), "branches"),
        (dict(rate_multiplier=1.5), "rate_multiplier"),
        (dict(dropout=1.0), "dropout=1.0"),
        (dict(in_index=1), r"in_index=1, but in_channels=\[6\] are of 1 maps"),
        (dict(partial=4), "6 channels can't be split in partial_channels=4"),
        (dict(plan="fast"), "plan='fast'"),
    ],
)
def test_settings_that_cannot_be(settings, says):
    with pytest.raises(ValueError, match=says):
        record(lambda: DensePredictionCell([6], **{**SMALL, **settings}))


def test_dropout_is_of_the_branches_and_only_in_training():
    arch = space(**SMALL).sample(random.Random(0))
    neck = DensePredictionCell([8], arch=arch, **{**SMALL, "dropout": 0.5})
    x = (torch.randn(4, 8, 6, 6),)
    assert torch.equal(neck.eval()(x)[0], neck(x)[0])
    assert not torch.equal(neck.train()(x)[0], neck(x)[0])
