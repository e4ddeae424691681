"""NAS-FPN's space, its cells and its supernet. The published networks are in test_published.py and test_wiring.py."""

import copy
import itertools
import random
from collections import Counter
from math import factorial, prod

import pytest
import torch
import torch.nn.functional as F

from backbones.merging_cell import VARIANTS, MergingCell, resample, wire
from backbones.merging_mixture import Mixture
from backbones.nas_fpn import NASFPN, OPERATIONS, PUBLISHED, cells_of, found_architecture
from backbones.published import find
from search.space import Architecture, Argmax, Space, TopInputs, save
from search.supernet import ArchParams, Fix, Relax, Softmax, building, inherit, record

# of the paper: 100 pixels at level 3 and what halving and rounding up makes of them
SIZES = {3: (100, 50), 4: (50, 25), 5: (25, 13), 6: (13, 7), 7: (7, 4)}
SMALL = dict(channels=4, repeats=1, cells=4, num_outs=3)


def space(**settings) -> Space:
    return record(lambda: NASFPN([8], **settings)).space


def size(outs: int, cells: int) -> int:
    """Ordered pairs and two operations for each cell, levels for those that choose one, an order for the others."""
    pairs = prod(n * (n - 1) for n in range(outs, outs + cells))
    return pairs * 2**cells * outs ** (cells - outs) * factorial(outs)


def maps(*sizes, channels=(6, 4, 8), batch=2):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(batch, c, *s, generator=generator, dtype=torch.float64) for c, s in zip(channels, sizes, strict=True)]


def wide(std=1.0, in_channels=(6, 4, 8), **settings):
    torch.manual_seed(0)

    def build():
        return NASFPN(in_channels, **{**SMALL, "affine": False, **settings})

    params = ArchParams(record(build).space, std=std)
    with building(Relax(params)):
        return params.double(), build().double()


@pytest.fixture(scope="module")
def papers():
    return space()


def test_the_papers_space_has_4e17_architectures(papers):
    assert papers.size == size(5, 7) == 386_266_890_240_000_000
    for outs, cells in ((2, 2), (2, 3), (3, 4), (4, 4), (5, 9)):
        assert space(num_outs=outs, cells=cells).size == size(outs, cells)


def test_the_space_is_what_the_paper_allows_and_nothing_else():
    """Two levels, three cells: written out by hand."""
    made = space(num_outs=2, cells=3)
    legal = set()
    for pairs in itertools.product(*(itertools.permutations(range(n), 2) for n in (2, 3, 4))):
        for ops in itertools.product(("sum", "attention"), repeat=3):
            for level, (one, two) in itertools.product((3, 4), ((3, 4), (4, 3))):
                levels = (level, one, two)
                cells = [(levels[i], ops[i], *pairs[i]) for i in range(3)]
                legal.add(Architecture(found_architecture(cells, 2)))
    assert legal == set(made.enumerate()) and len(legal) == made.size == size(2, 3)
    for one in random.Random(0).sample(sorted(legal, key=str), 50):
        for other in made.neighbours(one, random.Random(1)):
            assert other in legal


def test_samples_are_uniform():
    made = space(num_outs=2, cells=2)
    rng, n = random.Random(0), made.size
    counts = Counter(made.sample(rng) for _ in range(50 * n))
    assert len(counts) == n == 96
    # 99.99 % of a chi-square of 95 degrees of freedom
    assert sum((counts[a] - 50) ** 2 / 50 for a in counts) < 151


def test_an_illegal_cell_can_not_be_said(papers):
    good = found_architecture(PUBLISHED)
    assert tuple(cells_of(good)) == PUBLISHED
    papers.check(Architecture(good))
    for wrong, says in (
        ({**good, "nas_fpn/n6/b|a=1": 1}, "must be one of 0, 2, 3, 4, 5"),
        ({**good, "nas_fpn/n6/a": 6}, "must be one of 0, 1"),
        ({**good, "nas_fpn/n11/op": "concat"}, "must be one of 'sum', 'attention'"),
        ({**good, "nas_fpn/n5/level": 2}, "must be one of 3, 4"),
        ({**good, "nas_fpn/outputs": (3, 4, 5, 5, 6)}, "an order of 3, 4, 5, 6, 7"),
        ({**good, "nas_fpn/n7/level": 3}, "no choice named 'nas_fpn/n7/level'"),
    ):
        with pytest.raises(ValueError, match=says):
            papers.check(Architecture(wrong))
    for cells, says in (
        ([(3, "sum", 0, 1), (3, "sum", 0, 1)], r"levels \[3, 3\], not each of \[3, 4\] once"),
        ([(3, "sum", 0, 0), (4, "sum", 0, 1)], "cell 2 merges features 0 and 0"),
        ([(3, "sum", 0, 1), (4, "sum", 0, 3)], "two different earlier ones"),
    ):
        with pytest.raises(ValueError, match=says):
            wire(cells, (3, 4), VARIANTS["paper"])


def test_the_published_cells_and_what_is_added_to_outputs(papers):
    rows = find("R50 NAS-FPN (7@256) 640")["spec"]["merging_cells"]
    assert [(level, op, *inputs) for level, op, inputs, _ in rows] == list(PUBLISHED)
    steps = wire(PUBLISHED, (3, 4, 5, 6, 7), VARIANTS["paper"])
    # P5 (2) joins the output of level 5, feature 9, and P7 (4) that of level 7, feature 10
    assert {n: step.added for n, step in enumerate(steps, 5) if step.added} == {9: (2,), 10: (4,)}
    # the coarser input attends: P6, 8 (P4), 9 (P5), 10 (P7); in mmdet the other one
    attentions = [step.inputs for step in steps if step.op == "attention"]
    assert attentions == [(3, 1), (8, 7), (9, 6), (10, 9)]
    of_mmdet = wire(PUBLISHED, (3, 4, 5, 6, 7), VARIANTS["mmdet"])
    assert [step.inputs for step in of_mmdet if step.op == "attention"] == [pair[::-1] for pair in attentions]
    # later outputs may take an input of a level that is made already, but then it was added before
    late = wire([(3, "sum", 1, 0), (4, "sum", 0, 2)], (3, 4), VARIANTS["paper"])
    assert late[0].added == late[1].added == ()
    late = wire([(4, "sum", 0, 2), (3, "sum", 0, 3), (5, "sum", 1, 2)], (3, 4, 5), VARIANTS["paper"])
    assert late[0].added == (1,)


@pytest.mark.parametrize("variant", ["paper", "mmdet"])
def test_attention_of_two_maps(variant):
    """f0 + f1 * sigmoid(max of f0), f0 the coarser one; mmdet: the finer one, and its mean."""
    fine, coarse = maps((4, 4), (2, 2), channels=(3, 3))
    arch = found_architecture([(4, "attention", 0, 1), (3, "sum", 0, 1)], 2)
    neck = NASFPN([3, 3], 3, repeats=1, cells=2, num_outs=2, variant=variant, arch=arch).double().eval()
    for lateral in neck.laterals.values():
        torch.nn.init.dirac_(lateral[0].weight)
    seen = {}
    neck.repeats[0]["n2"].conv.register_forward_pre_hook(lambda _, given: seen.update(x=given[0]))
    neck((fine, coarse))
    if variant == "mmdet":
        # laterals of ones, normalised by running statistics of 0 and 1
        fine, coarse = fine / (1 + 1e-5) ** 0.5, coarse / (1 + 1e-5) ** 0.5
    fine = F.max_pool2d(fine, 2)
    if variant == "paper":
        expected = coarse + fine * torch.sigmoid(coarse.flatten(2).max(2).values)[..., None, None]
    else:
        expected = fine + coarse * torch.sigmoid(fine.flatten(2).mean(2))[..., None, None]
    assert torch.allclose(seen["x"], F.relu(expected), atol=1e-12)


def test_resampling_reaches_any_size():
    for level, target in itertools.product(SIZES, SIZES):
        x = torch.randn(1, 2, *SIZES[level])
        y = resample(x, level, target, SIZES[target])
        assert tuple(y.shape[2:]) == SIZES[target]
        assert set(y.unique().tolist()) <= set(x.unique().tolist())
        if target >= level:
            # no pixel is left out; steps of two come to the same
            assert y.amax() == x.amax()
            for _ in range(target - level):
                x = F.max_pool2d(x, 2, 2, ceil_mode=True)
            assert torch.equal(x, y)
    # maps of a backbone that rounds down
    x = torch.arange(25.0).view(1, 1, 5, 5)
    assert resample(x, 3, 4, (2, 2)).flatten().tolist() == [12, 14, 22, 24]
    assert torch.equal(resample(x, 4, 3, (10, 10)), x.repeat_interleave(2, 2).repeat_interleave(2, 3))


@pytest.mark.parametrize("variant", ["paper", "mmdet"])
def test_five_levels_of_any_image(variant, papers):
    neck = NASFPN([3, 4, 8, 16], 8, repeats=2, start_level=1, variant=variant, arch=papers.sample(random.Random(4))).eval()
    inputs = [torch.randn(1, c, *s) for c, s in zip((3, 4, 8, 16), ((200, 99), (100, 50), (50, 25), (25, 13)), strict=True)]
    with torch.no_grad():
        assert {level: tuple(y.shape[2:]) for level, y in enumerate(neck(inputs), 3)} == SIZES
    # of 8 channels already
    assert set(neck.laterals) == ({"p3", "p5"} if variant == "paper" else {"p3", "p4", "p5"})
    assert neck.out_channels == (8,) * 5
    with pytest.raises(ValueError, match=r"in_channels=\[3, 4, 8, 16\] of the neck, but the backbone's maps have \[4, 8, 16\]"):
        neck(inputs[1:])


def pooled(x, average):
    return torch.sigmoid(x.mean((2, 3), keepdim=True) if average else x.amax((2, 3), keepdim=True))


@pytest.mark.parametrize("variant", ["paper", "mmdet"])
def test_a_mixture_is_the_expectation_of_what_is_merged(variant):
    """With cells that change nothing: summed pair by pair, operation by operation, level by level."""
    params, model = wide(variant=variant)
    p = {name: torch.softmax(logit.detach(), 0) for name, logit in params.logits.items()}
    inputs = dict(zip((3, 4, 5), maps((12, 8), (6, 4), (3, 2), channels=(4, 4, 4)), strict=True))
    sizes = {level: tuple(x.shape[2:]) for level, x in inputs.items()}
    features = [{level: x} for level, x in inputs.items()]
    weights = [{level: 1.0} for level in inputs]
    arrangements = model.order.arrangements
    joint = {}
    for n in range(3, 7):
        at = f"nas_fpn/n{n}"
        joint[n] = {(a, b): p[f"{at}/a"][a] * p[f"{at}/b|a={a}"][b - (b > a)] for a, b in itertools.permutations(range(n), 2)}
        assert sum(joint[n].values()) == pytest.approx(1)
        own = {}
        for target in inputs:
            total = 0
            for (a, b), pair in joint[n].items():
                for la, lb in itertools.product(features[a], features[b]):
                    one, two = (resample(features[j][at_], at_, target, sizes[target]) for j, at_ in ((a, la), (b, lb)))
                    finer_attends = variant == "mmdet"
                    lead, other = (one, two) if (la <= lb if finer_attends else la >= lb) else (two, one)
                    merged = p[f"{at}/op"][0] * (one + two)
                    merged = merged + p[f"{at}/op"][1] * (lead + other * pooled(lead, finer_attends))
                    total = total + pair * weights[a][la] * weights[b][lb] * merged
            if n >= 4:
                for j in range(4):
                    takers = [m for m in range(3, n + 1) if m > j]
                    free = prod(1 - sum(w for pair, w in joint[m].items() if j in pair) for m in takers)
                    if target in features[j]:
                        total = total + weights[j][target] * free * features[j][target]
            own[target] = total
        features.append(own)
        if n == 3:
            weights.append(dict(zip(inputs, p[f"{at}/level"], strict=True)))
        else:
            orders = p["nas_fpn/outputs"]
            weights.append({t: sum(w for w, o in zip(orders, arrangements, strict=True) if o[n - 4] == t) for t in inputs})
    expected = {t: sum(weights[n][t] * features[n][t] for n in (4, 5, 6)) for t in inputs}
    with params.gated(Softmax()):
        mixture = Mixture(model.gates, model.choices, OPERATIONS, model.order, model.attention, inputs[3])
    found = mixture.run([lambda x, level: x] * 4, inputs, sizes)
    for level in inputs:
        assert torch.allclose(found[level], expected[level], rtol=1e-10, atol=1e-10)


def test_only_active_options_run():
    """Two pairs of inputs, one level and one operation of each cell: nothing else runs or gets a gradient."""
    params, model = wide()

    def gate(space, logits):
        values = Softmax()(space, logits)
        kept = {}
        for name, (weights, active) in values.items():
            few = active[:2] if name.endswith("/a") else active[-1:] if "/b|" in name else active[:1]
            kept[name] = weights / weights[list(few)].sum(), few
        return kept

    with params.gated(gate):
        outputs = model(maps((12, 8), (6, 4), (3, 2)))
    sum((y**2).sum() for y in outputs).backward()
    assert tuple(params.space["nas_fpn/outputs"].at(0)) == (3, 4, 5)
    # all cells take input 0 or 1 and the feature before
    norms = {n for n, m in model.named_modules() if isinstance(m, torch.nn.BatchNorm2d) and m.num_batches_tracked > 0}
    run = {"repeats.0.n3.norms.p3", "repeats.0.n4.norms.p3", "repeats.0.n5.norms.p4", "repeats.0.n6.norms.p5"}
    assert norms == run | {"laterals.p3.1", "laterals.p5.1"}
    gradient = params.logits["nas_fpn/n5/a"].grad
    assert gradient[:2].all() and not params.logits["nas_fpn/n5/b|a=3"].grad.any()


def test_a_path_moves_its_own_statistics_alone():
    """One-shot training: the convolution is shared by the levels of a cell, the norms aren't."""
    params, model = wide()
    before = copy.deepcopy(model.state_dict())
    arch = params.space.sample(random.Random(5))
    with params.masked(arch):
        model.train()(maps((12, 8), (6, 4), (3, 2)))
    levels = (arch["nas_fpn/n3/level"], *arch["nas_fpn/outputs"])
    norms = {f"repeats.0.n{n}.norms.p{level}" for n, level in enumerate(levels, 3)} | {"laterals.p3.1", "laterals.p5.1"}
    moved = {name.rpartition(".")[0] for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == norms
    narrow = NASFPN([6, 4, 8], arch=arch, affine=False, **SMALL).double()
    inherit(narrow, before)
    narrow.train()(maps((12, 8), (6, 4), (3, 2)))
    for name, value in narrow.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name


@pytest.mark.parametrize("k", [1, 2, 4, 8])
def test_any_number_of_partial_channels_trains(k):
    params, model = wide(partial=k, channels=8)
    optimizer = torch.optim.SGD([*model.parameters(), *params.parameters()], lr=0.1)
    before = copy.deepcopy({**model.state_dict(), **params.state_dict()})
    with params.gated(Softmax()):
        sum(y.square().mean() for y in model(maps((12, 8), (6, 4), (3, 2)))).backward()
    optimizer.step()
    after = {**model.state_dict(), **params.state_dict()}
    # a bias in front of a norm has no effect
    still = {name for name, value in after.items() if torch.allclose(value, before[name], rtol=0, atol=1e-14)}
    assert {name for name in still if not name.endswith(("conv.bias", ".0.bias"))} == set()
    assert model.repeats[0]["n3"].conv.weight.shape == (8 // k, 8 // k, 3, 3)
    if k > 1:
        narrow = NASFPN([6, 4, 8], arch=params.space.sample(random.Random(0)), affine=False, **{**SMALL, "channels": 8})
        with pytest.raises(ValueError, match="partial=1"):
            inherit(narrow, model.state_dict())


def test_what_no_convolution_sees_is_half_of_what_was_merged():
    cell = MergingCell(8, (3, 4), k=2).double().eval()
    (x,) = maps((5, 4), channels=(8,))
    y = cell(x, 4)
    assert torch.equal(y[:, 1::2], x[:, 4:] / 2)
    assert torch.equal(y[:, 0::2], cell.norms["p4"](cell.conv(F.relu(x[:, :4]))))


def test_decoding_finds_the_certain_architecture(papers):
    arch = papers.sample(random.Random(3))
    params = ArchParams(papers)
    with torch.no_grad():
        for name, logit in params.logits.items():
            logit.zero_()
            if name in arch:
                choice = papers[name]
                options = choice.arrangements if name.endswith("outputs") else choice.options
                logit[options.index(arch[name])] = 0.01
    for rule in (Argmax(), TopInputs()):
        assert rule(papers, params.probabilities()) == arch


def test_one_shot_norms_may_be_affine_and_are_inherited():
    params, model = wide(affine=True)
    arch = params.space.sample(random.Random(0))
    narrow = NASFPN([6, 4, 8], arch=arch, **SMALL).double()
    found = inherit(narrow, model.state_dict())
    assert found.without_counterpart == () and len(found.loaded) == len(narrow.state_dict())
    found = inherit(NASFPN([6, 4, 8], arch=arch, **SMALL).double(), wide(affine=False)[1].state_dict())
    assert set(found.without_counterpart) == set(narrow.without_counterpart()) != set()


def test_architectures_of_other_spaces_are_refused(tmp_path):
    made = space(**SMALL)
    good = dict(made.sample(random.Random(0)))
    first = good["nas_fpn/n4/a"]
    for wrong, says in (
        ({**good, "nas_fpn/n3/op": "concat"}, "chooses 'concat' for 'nas_fpn/n3/op', which this neck doesn't offer"),
        ({k: v for k, v in good.items() if k != "nas_fpn/outputs"}, "doesn't say 'nas_fpn/outputs'"),
        ({k: v for k, v in good.items() if k != f"nas_fpn/n4/b|a={first}"}, f"doesn't say 'nas_fpn/n4/b.a={first}'"),
        ({**good, f"nas_fpn/n4/b|a={(first + 1) % 4}": first}, "has a value, but what it depends on was not chosen"),
    ):
        with pytest.raises(ValueError, match=says), building(Fix(wrong)):
            NASFPN([8], **SMALL)
    save(tmp_path / "arch.json", {"neck": (made, Architecture(good))}, {})
    NASFPN([8], arch=tmp_path / "arch.json", **SMALL)
    with pytest.raises(ValueError, match=r"part 'neck' is an architecture of another space|doesn't say"):
        NASFPN([8], arch=tmp_path / "arch.json", **{**SMALL, "cells": 5})


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (dict(cells=2), "cells=2 can't make num_outs=3 levels"),
        (dict(num_outs=7, cells=7), "num_outs=7 must be 2 to 6"),
        (dict(in_channels=[8] * 4), "no fewer than the 4 maps"),
        (dict(start_level=1), r"start_level=1, but in_channels=\[8\] are of 1 maps"),
        (dict(repeats=0), "repeats=0"),
        (dict(partial=3), "4 channels can't be split in partial=3"),
        (dict(variant="torchvision"), "variant='torchvision' is none of paper, mmdet"),
    ],
)
def test_settings_that_cannot_be(settings, says):
    with pytest.raises(ValueError, match=says):
        record(lambda: NASFPN(**{"in_channels": [8], **SMALL, **settings}))
