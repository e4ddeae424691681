"""Normalised weighted sum: y = sum_n w_n * BN_n(z_n) in two passes over the z_n, products never stored."""

from search.kernels.norm_sum.operator import norm_sum
from search.kernels.norm_sum.reference import norm_sum_reference
from search.kernels.norm_sum.torch_function import norm_sum_torch

__all__ = ["norm_sum", "norm_sum_reference", "norm_sum_torch"]
