"""Parameters, multiply-adds, activations, memory and latency of networks. ``CONVENTIONS`` says how they are counted."""

from search.cost.count import ACTIVATIONS, CONVENTIONS, PARAMS, Cost, build_on_meta, copy_to_meta, count, count_params
from search.cost.latency import Latency, Timing, measure
from search.cost.latency_table import LatencyTable
from search.cost.memory import bytes_kept, bytes_kept_by

__all__ = [
    "ACTIVATIONS",
    "CONVENTIONS",
    "PARAMS",
    "Cost",
    "Latency",
    "LatencyTable",
    "Timing",
    "build_on_meta",
    "bytes_kept",
    "bytes_kept_by",
    "copy_to_meta",
    "count",
    "count_params",
    "measure",
]
