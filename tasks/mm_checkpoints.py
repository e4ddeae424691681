"""Upstream mmengine's own checkpoints under torch's safe loading.

Since torch 2.6 `torch.load` unpickles only what it is told to be harmless. mmengine 0.10.7 doesn't tell it, and its checkpoints
hold histories of what was logged: neither a training goes on from one, nor does `mmdet.apis.init_detector` read one. Here
mmengine's loader of local files tells it. The maintained fork does so itself, and is left alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader

from search.environment import installed

_KINDS = ("bool", "uint8", "int32", "int64", "float16", "float32", "float64")
# what numbers and arrays are made by, under the names of numpy 2 and 1
_MAKERS = (np.float64(0).__reduce__()[0], np.zeros(0).__reduce__()[0])
_HOMES = ("numpy._core.multiarray", "numpy.core.multiarray")
# what mmengine's message hub holds, numpy's arrays and numbers included
HARMLESS = [
    HistoryBuffer,
    # by which a history names its statistics; what it gives is called only if it is listed here too
    getattr,
    np.ndarray,
    np.dtype,
    *(type(np.dtype(kind)) for kind in _KINDS),
    *((maker, f"{home}.{maker.__name__}") for maker in _MAKERS for home in _HOMES),
]


def load(filename: str, map_location: Any = None) -> Any:
    """The content of a checkpoint file; `map_location` as torch's.

    Raises FileNotFoundError, and UnpicklingError for a file that holds other objects than mmengine's checkpoints do.
    """
    path = Path(filename).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"the checkpoint {filename} does not exist")
    with torch.serialization.safe_globals(HARMLESS):
        return torch.load(path, map_location=map_location, weights_only=True)


def install() -> None:
    """Let upstream mmengine read local checkpoints by `load`."""
    if {"mmengine", "mmengine-lite"} & installed().keys():
        CheckpointLoader.register_scheme("", load, force=True)
