"""The Auto-FPN-style neck: sizes, space, wiring of a network that is known, plans, mistakes."""

import pytest
import torch
import torch.nn.functional as F

from backbones.auto_fpn import AutoFPN, fusion_candidates
from search.space import Architecture
from search.supernet import ArchParams, Relax, Softmax, building, record

IN = (8, 12, 16)


def neck(**settings):
    return AutoFPN(IN, **{"channels": 8, "fused": 3, "num_outs": 4, **settings})


def maps(size=21, batch=2):
    generator = torch.Generator().manual_seed(0)
    sizes = [(-(-size // s), -(-(size + 1) // s)) for s in (1, 2, 4)]
    return tuple(torch.randn(batch, c, *n, generator=generator, dtype=torch.float64) for c, n in zip(IN, sizes, strict=True))


def wide(**settings):
    torch.manual_seed(0)

    def build():
        return neck(affine=False, **settings)

    params = ArchParams(record(build).space, std=1.0).double()
    with building(Relax(params)):
        return params, build().double()


def test_four_levels_of_two_nodes_have_this_many_architectures():
    space = record(lambda: AutoFPN((8, 8, 8, 8), channels=8)).space
    # of 4 states two edges of 5 operations each, then of 5
    cell = (6 * 5**2) * (10 * 5**2)
    assert space.size == cell**4
    assert "fusion_p6/n5<-4" in space and "fusion_p7/n4/inputs" not in space


@pytest.mark.parametrize(("start_level", "fused", "num_outs"), [(0, 3, 3), (0, 3, 5), (0, 4, 5), (1, 4, 5), (2, 2, 3)])
def test_levels_halve(start_level, fused, num_outs):
    params, model = wide(start_level=start_level, fused=fused, num_outs=num_outs)
    given = maps()
    with params.gated(Softmax()):
        found = model(given)
    assert len(found) == num_outs and model.out_channels == (8,) * num_outs
    rows, columns = given[start_level].shape[2:]
    for x in found:
        assert x.shape == (2, 8, rows, columns)
        rows, columns = -(-rows // 2), -(-columns // 2)


def test_a_network_of_identities_adds_the_levels_it_keeps():
    """Each node takes the first two states: the finest and the second level, brought to the cell's size."""
    choices = {}
    for level in (3, 4, 5):
        for node in (3, 4):
            choices[f"fusion_p{level}/n{node}/inputs"] = (0, 1)
            choices |= {f"fusion_p{level}/n{node}<-{i}": "skip_connect" for i in (0, 1)}
    model = neck(arch=Architecture(choices)).double().eval()
    given = maps()
    finest, second = (model.laterals[f"p{level}"](x) for level, x in zip((3, 4), given, strict=False))
    sums = [
        finest + F.interpolate(second, finest.shape[2:], mode="nearest"),
        F.max_pool2d(finest, 2, 2, ceil_mode=True) + second,
        F.max_pool2d(finest, 4, 4, ceil_mode=True) + F.max_pool2d(second, 2, 2, ceil_mode=True),
    ]
    found = model(given)
    for level, x, total in zip((3, 4, 5), found, sums, strict=False):
        assert torch.allclose(x, model.outputs[f"p{level}"](torch.cat([total, total], 1)), atol=1e-12)
    assert torch.equal(found[3], F.max_pool2d(found[2], 2, 2, ceil_mode=True))


def test_candidates_keep_the_map():
    x = torch.randn(2, 4, 7, 5)
    for make in fusion_candidates(True).values():
        assert make(4, 1)(x).shape == x.shape


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (dict(start_level=3), "start_level=3, but"),
        (dict(fused=2), "fused=2 must be from 2 to num_outs=4, and no fewer than the 3 maps"),
        (dict(fused=5), "fused=5 must be from 2 to num_outs=4"),
        (dict(nodes=0), "nodes=0 and channels=8 must be at least 1"),
        (dict(partial=3), "8 channels can't be split in partial_channels=3"),
    ],
)
def test_settings_that_cannot_be_are_said(settings, said):
    with pytest.raises(ValueError, match=said):
        wide(**settings)
    with pytest.raises(ValueError, match=r"in_channels=\[8, 12, 16\] of the neck, but"):
        wide()[1](maps()[:2])
