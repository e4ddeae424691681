"""How a choice appears in a network: wide and narrow builds, gates, mixed operations."""

from search.kernels.launches import triton_launches
from search.supernet.arch_params import ArchParams
from search.supernet.candidates import Halves, Kind
from search.supernet.gates import GateRule, Softmax
from search.supernet.inherit import Inherited, inherit
from search.supernet.mixed import Gate, Gates, MixedOp, Zero
from search.supernet.mixed_dag import MixedDag
from search.supernet.pick import Fix, Pick, Record, Relax, building, reading, record
from search.supernet.recalibrate import recalibrate
from search.supernet.statistics import suspended_statistics

__all__ = [
    "ArchParams",
    "Fix",
    "Gate",
    "GateRule",
    "Gates",
    "Halves",
    "Inherited",
    "Kind",
    "MixedDag",
    "MixedOp",
    "Pick",
    "Record",
    "Relax",
    "Softmax",
    "Zero",
    "building",
    "inherit",
    "reading",
    "recalibrate",
    "record",
    "suspended_statistics",
    "triton_launches",
]
