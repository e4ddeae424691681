"""Searchable and published networks, one family a file."""

from backbones import (
    atomnas,
    autonl,
    darts,
    densenas,
    enas,
    fairnas,
    fbnet,
    fna,
    mbconv,
    mobilenet,
    nasnet,
    nsga_net,
    proxyless,
    randwire,
    resnet,
    shufflenet,
    slimmable,
    spinenet,
    squeezenas,
)
from backbones.cell_net import CellNet
from backbones.chain_net import ChainNet

__all__ = [
    "CellNet",
    "ChainNet",
    "atomnas",
    "autonl",
    "darts",
    "densenas",
    "enas",
    "fairnas",
    "fbnet",
    "fna",
    "mbconv",
    "mobilenet",
    "nasnet",
    "nsga_net",
    "proxyless",
    "randwire",
    "resnet",
    "shufflenet",
    "slimmable",
    "spinenet",
    "squeezenas",
]
