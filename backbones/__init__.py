"""Searchable and published networks, one family a file."""

from backbones import (
    atomnas,
    auto_deeplab,
    autonl,
    darts,
    dense_prediction_cell,
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
    published,
    randwire,
    resnet,
    shufflenet,
    slimmable,
    spinenet,
    squeezenas,
)
from backbones.auto_deeplab import AutoDeepLab
from backbones.cell_net import CellNet
from backbones.chain_net import ChainNet
from backbones.dense_prediction_cell import DensePredictionCell

__all__ = [
    "AutoDeepLab",
    "CellNet",
    "ChainNet",
    "DensePredictionCell",
    "atomnas",
    "auto_deeplab",
    "autonl",
    "darts",
    "dense_prediction_cell",
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
    "published",
    "randwire",
    "resnet",
    "shufflenet",
    "slimmable",
    "spinenet",
    "squeezenas",
]
