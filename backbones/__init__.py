"""Searchable and published networks, one family a file."""

from backbones.cell_net import CellNet

__all__ = ["CellNet"]
