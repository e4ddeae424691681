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
    nas_fcos,
    nas_fpn,
    nasnet,
    nsga_net,
    proxyless,
    published,
    randwire,
    resnet,
    retinanet,
    shufflenet,
    slimmable,
    spinenet,
    squeezenas,
)
from backbones.auto_deeplab import AutoDeepLab
from backbones.auto_fpn import AutoFPN
from backbones.cell_net import CellNet
from backbones.chain_net import ChainNet
from backbones.dense_prediction_cell import DensePredictionCell
from backbones.head_cell import HeadCell
from backbones.nas_fcos import NASFCOSNeck
from backbones.nas_fpn import NASFPN

__all__ = [
    "NASFPN",
    "AutoDeepLab",
    "AutoFPN",
    "CellNet",
    "ChainNet",
    "DensePredictionCell",
    "HeadCell",
    "NASFCOSNeck",
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
    "nas_fcos",
    "nas_fpn",
    "nasnet",
    "nsga_net",
    "proxyless",
    "published",
    "randwire",
    "resnet",
    "retinanet",
    "shufflenet",
    "slimmable",
    "spinenet",
    "squeezenas",
]
