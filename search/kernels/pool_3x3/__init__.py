"""3x3 pools of padding 1 that are faster on CPU than the library's."""

from search.kernels.pool_3x3.function import avg_pool_3x3, max_pool_3x3

__all__ = ["avg_pool_3x3", "max_pool_3x3"]
