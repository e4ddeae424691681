"""The searchable-network contract, over every network of the registry."""

import torch

from backbones import CellNet
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


def test_every_registered_searchable_network_has_a_contract_test():
    tested = {c.network for c in SearchableContract.__subclasses__()}
    registered = set(registered_searchable().values())
    assert CellNet in registered and registered <= tested
