"""Depthwise bank: ReLU, the depthwise candidates of all targets and both pools from one read of the input."""

from search.kernels.depthwise_bank.operator import depthwise_bank
from search.kernels.depthwise_bank.reference import depthwise_bank_reference

__all__ = ["depthwise_bank", "depthwise_bank_reference"]
