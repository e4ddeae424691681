"""Which candidates of a state the Triton plan runs as one operation: every candidate runs once, alone or in it."""

from torch import nn

from backbones.operations import darts_candidates
from search.supernet.bank import Alike, Target
from search.supernet.candidates import Chain, Pool, kind_of
from search.supernet.fused import _fuse


def alikes(*modules, targets=2):
    return [
        Alike([Target(3 + t, 2 * n + t) for t in range(targets)], [kind_of(module)] * targets)
        for n, module in enumerate(modules)
    ]


def darts(stride=1, affine=False):
    return [make(4, stride) for name, make in darts_candidates(affine).items() if name != "none"]


def places(fused, left):
    return sorted([place for one in fused for place in one.places()] + [t.place for one in left for t in one.targets])


def test_all_candidates_of_darts_are_one():
    for stride in (1, 2):
        for affine in (True, False):
            given = alikes(*darts(stride, affine))
            (fused,), left = _fuse(False, given, stride)
            assert left == [] and places([fused], left) == list(range(2 * len(given)))


def test_norms_of_another_kind_stay_outside():
    modules = darts()
    # the second norm of a chain, and a pool's
    list(modules[3].modules())[-1].eps = 1e-3
    list(modules[1].modules())[-1].eps = 1e-3
    given = alikes(*modules)
    fused, left = _fuse(False, given, 1)
    assert [type(one.kinds[0]) for one in left] == [Chain, Pool]
    assert places(fused, left) == list(range(2 * len(given)))


def test_two_pools_of_one_name_both_run():
    normalised = nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.BatchNorm2d(4, affine=False))
    given = alikes(nn.MaxPool2d(3, 1, 1), normalised, nn.AvgPool2d(3, 1, 1, count_include_pad=False))
    fused, left = _fuse(False, given, 1)
    assert places(fused, left) == list(range(6)) and len(left) == 1


def test_norms_in_eval_mode_and_lone_identities_stay_outside():
    given = alikes(*(module.eval() for module in darts()))
    fused, left = _fuse(False, given, 1)
    assert fused == [] and len(left) == len(given)
    given = alikes(nn.Identity())
    assert _fuse(False, given, 1) == ([], given)
