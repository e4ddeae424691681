"""Partial-channel node (PC-DARTS, arXiv 1907.05737): weighted sums of mixed and untouched channels, shuffled, in one write."""

from search.kernels.partial_node.operator import max_pool_2x2, partial_node
from search.kernels.partial_node.reference import partial_node_reference
from search.kernels.partial_node.torch_path import max_pool_2x2_torch, partial_node_torch

__all__ = ["max_pool_2x2", "max_pool_2x2_torch", "partial_node", "partial_node_reference", "partial_node_torch"]
