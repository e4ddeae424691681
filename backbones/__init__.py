"""Searchable and published networks, one family a file."""

from backbones import mbconv, mobilenet
from backbones.cell_net import CellNet
from backbones.chain_net import ChainNet

__all__ = ["CellNet", "ChainNet", "mbconv", "mobilenet"]
