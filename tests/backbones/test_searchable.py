"""The searchable-network contract, over every network of the registry."""

import torch

from backbones import NASFPN, AutoDeepLab, AutoFPN, CellNet, ChainNet, DensePredictionCell, HeadCell
from search.testing import SearchableContract, registered_searchable


class TestCellNetCifar(SearchableContract):
    network = CellNet

    def build(self):
        return CellNet(channels=4, layers=3, affine=False)

    def inputs(self):
        return (torch.randn(2, 3, 9, 9),)


class TestCellNetImageNet(SearchableContract):
    network = CellNet

    def build(self):
        return CellNet(channels=4, layers=3, nodes=2, stem="imagenet", affine=False, out_indices=(0, 1, 2, 3))

    def inputs(self):
        return (torch.randn(2, 3, 64, 64),)


MBCONV = {f"k{k}_e{e}": dict(type="mbconv", kernel=k, expand=e) for k in (3, 5) for e in (2, 3)}


class TestChainNetDepths(SearchableContract):
    """A once-for-all-like space: depths, kernels, expansions; and operations of the whole stage, as MnasNet has."""

    network = ChainNet

    def build(self):
        stages = [
            dict(channels=8, ops=dict(type="separable")),
            dict(channels=8, stride=2, depth=(1, 2, 3), ops=MBCONV),
            dict(channels=16, stride=2, depth=(2, 3), ops=MBCONV, shared=True),
        ]
        return ChainNet(stem=dict(channels=8), stages=stages, last=dict(channels=24), out_indices=(0, 1, 3))

    def inputs(self):
        return (torch.randn(2, 3, 33, 33),)


class TestChainNetSkips(SearchableContract):
    """A ProxylessNAS-like space: each layer but a stage's first may be skipped."""

    network = ChainNet

    def build(self):
        ops = {**MBCONV, "skip": dict(type="skip")}
        stages = [dict(channels=c, stride=2, depth=3, ops=ops) for c in (8, 16)]
        return ChainNet(stem=dict(channels=8, stride=1), stages=stages)

    def inputs(self):
        return (torch.randn(2, 3, 12, 12),)


class TestAutoDeepLabSearch(SearchableContract):
    """The paper's search: three outputs at most, of which a path has one."""

    network = AutoDeepLab
    layout = "search"

    def build(self):
        return AutoDeepLab(filters=4, layers=4, blocks=2, stem=(4, 4, 8), layout=self.layout, affine=False)

    def inputs(self):
        return (torch.randn(2, 3, 65, 33),)

    def outputs(self, model, inputs):
        """What runs of the last layer; a derived network's maps for decoders aren't among the supernet's levels."""
        maps = model(*inputs)
        return [y for y in (maps if model.path is None else maps[-1:]) if y is not None]


class TestAutoDeepLabPublished(TestAutoDeepLabSearch, SearchableContract):
    """The published network's layout."""

    layout = "published"
    # under a softmax every node runs, so maps two layers back that a path alone would need aren't read
    without_gradient = frozenset(
        {"cells.l3_s4.before_last.s8.1.weight", "cells.l3_s16.before_last.s4.1.weight"},
    )


class TestDensePredictionCell(SearchableContract):
    """A neck: three branches of five operations, on the second of two maps."""

    network = DensePredictionCell

    def build(self):
        return DensePredictionCell([4, 6], channels=4, branches=3, rates=(1, 3), grids=(2,), dropout=0.0, affine=False)

    def inputs(self):
        return (torch.randn(2, 4, 9, 7), torch.randn(2, 6, 9, 7))

    def outputs(self, model, inputs):
        return list(model(inputs))[1:]


class TestNASFPN(SearchableContract):
    """Two pyramids of four cells: three levels of odd sizes, one of them pooled."""

    network = NASFPN
    variant = "paper"

    def build(self):
        return NASFPN([6, 4, 8], channels=4, repeats=2, cells=4, start_level=1, num_outs=3, variant=self.variant, affine=False)

    def inputs(self):
        return (torch.randn(2, 6, 25, 13), torch.randn(2, 4, 13, 7), torch.randn(2, 8, 7, 4))

    def outputs(self, model, inputs):
        return list(model(inputs))


class TestNASFPNOfMMDet(TestNASFPN, SearchableContract):
    """Attention by the mean of the finer input."""

    variant = "mmdet"


class TestAutoFPN(SearchableContract):
    """Three fused levels of odd sizes, one of them pooled."""

    network = AutoFPN

    def build(self):
        return AutoFPN([6, 4, 8], channels=4, fused=3, start_level=1, num_outs=3, affine=False)

    def inputs(self):
        return (torch.randn(2, 6, 25, 13), torch.randn(2, 4, 13, 7), torch.randn(2, 8, 7, 4))

    def outputs(self, model, inputs):
        return list(model(inputs))


class TestHeadCell(SearchableContract):
    """Three nodes of one input each."""

    network = HeadCell

    def build(self):
        return HeadCell(6, channels=8, nodes=3, affine=False)

    def inputs(self):
        return (torch.randn(2, 6, 7, 5),)


def test_every_registered_searchable_network_has_a_contract_test():
    tested = {c.network for c in SearchableContract.__subclasses__()}
    registered = set(registered_searchable().values())
    assert {CellNet, ChainNet} <= registered <= tested
