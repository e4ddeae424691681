"""Convolutions of many targets at once, depthwise-separable ones and full ones, keeping only their inputs for backward."""

from search.kernels.separable.depthwise import by_input, by_weight
from search.kernels.separable.function import norm_relu_separable, relu_convolution, relu_separable, relu_separables
from search.kernels.separable.reference import norm_relu_separable_reference, relu_separable_reference

__all__ = [
    "by_input",
    "by_weight",
    "norm_relu_separable",
    "norm_relu_separable_reference",
    "relu_convolution",
    "relu_separable",
    "relu_separable_reference",
    "relu_separables",
]
