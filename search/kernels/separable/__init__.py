"""Depthwise-separable convolutions of many targets at once, keeping only their inputs for backward."""

from search.kernels.separable.depthwise import depthwise_backward
from search.kernels.separable.function import norm_relu_separable, relu_separable
from search.kernels.separable.reference import norm_relu_separable_reference, relu_separable_reference

__all__ = [
    "depthwise_backward",
    "norm_relu_separable",
    "norm_relu_separable_reference",
    "relu_separable",
    "relu_separable_reference",
]
