"""All mixed operations that leave a state, for all targets, summed: from its first read to the targets' sums."""

from search.kernels.mixed_state.operator import mixed_state
from search.kernels.mixed_state.reference import mixed_state_reference
from search.kernels.mixed_state.structure import Structure

__all__ = ["Structure", "mixed_state", "mixed_state_reference"]
