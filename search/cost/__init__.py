"""Parameters, multiply-adds and memory of networks. ``CONVENTIONS`` says how they are counted."""

from search.cost.count import CONVENTIONS, Cost, build_on_meta, copy_to_meta, count, count_params
from search.cost.memory import bytes_kept, bytes_kept_by

__all__ = [
    "CONVENTIONS",
    "Cost",
    "build_on_meta",
    "bytes_kept",
    "bytes_kept_by",
    "copy_to_meta",
    "count",
    "count_params",
]
