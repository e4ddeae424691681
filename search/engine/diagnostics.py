"""What a search tells about itself each epoch: entropy of the gates, share of skips, the discretisation gap."""

import math
import re
import resource
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from search.space import Architecture, Choice, OneOf, Space, Walk

# more skips than this share of a cell's edges is the collapse of DARTS-like searches (RobustDARTS, arXiv 1909.09656)
COLLAPSE = 0.5


def is_skip(option: object) -> bool:
    """Whether an option passes its input on unchanged, by the names in use."""
    return isinstance(option, str) and ("skip" in option or option == "identity")


def skip_counts(space: Space, architecture: Architecture) -> dict[str, tuple[int, int]]:
    """By cell (what stands before the first '/' of a name): chosen skips, and operations that could have been one."""
    counts: dict[str, tuple[int, int]] = {}
    for choice in space:
        if isinstance(choice, OneOf) and choice.name in architecture and any(map(is_skip, choice.options)):
            cell = choice.name.split("/")[0]
            skips, all_ = counts.get(cell, (0, 0))
            counts[cell] = (skips + is_skip(architecture[choice.name]), all_ + 1)
    return counts


def skip_share(space: Space, architecture: Architecture) -> float | None:
    """The share of skips among the chosen operations that could be one; None if none could."""
    counts = skip_counts(space, architecture).values()
    total = sum(n for _, n in counts)
    return sum(skips for skips, _ in counts) / total if total else None


def gate_entropy(space: Space, probabilities: Mapping[str, Any]) -> float | None:
    """Mean entropy of the operations' gates over that of uniform gates: 1 undecided, 0 decided."""
    shares = []
    for choice in space:
        if isinstance(choice, OneOf) and choice.name in probabilities and len(choice.options) > 1:
            weights = probabilities[choice.name]
            entropy = -sum(p * math.log(p) for p in weights if p > 0)
            shares.append(entropy / math.log(len(weights)))
    return sum(shares) / len(shares) if shares else None


def collapse_warning(space: Space, architecture: Architecture) -> str | None:
    """A sentence when most operations of a cell are skips, else None."""
    cells = [
        f"{skips} of {total} operations of the {cell} cell"
        for cell, (skips, total) in skip_counts(space, architecture).items()
        if total > 1 and skips > COLLAPSE * total
    ]
    if not cells:
        return None
    return (
        f"The search is collapsing to skip connections ({' and '.join(cells)}), which train easily and classify "
        "poorly: stop earlier, freeze the logits for longer, use PC-DARTS, or set skip_limit."
    )


def describe_architecture(
    space: Space, probabilities: Mapping[str, Any], architecture: Architecture, frozen: bool
) -> dict[str, Any]:
    """The logits and what they decode to, as plain values for a line of history; no warning while `frozen`."""
    return {
        "skip_share": skip_share(space, architecture),
        "entropy": gate_entropy(space, probabilities),
        "probabilities": {name: _plain(space[name], weights) for name, weights in probabilities.items()},
        "architecture": architecture.to_json(),
        "warning": None if frozen else collapse_warning(space, architecture),
    }


def _plain(choice: Choice, weights: Any) -> list[float] | dict[str, float]:
    """Weights of options as a list; those of a walk's moves by the moves' names."""
    if isinstance(choice, Walk):
        return {choice.transition_text(move): float(p) for move, p in weights.items()}
    return [float(p) for p in weights]


def peak_memory_mib() -> float:
    """The most memory held so far: on the GPU if there is one, else this process's resident memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    # Linux: ru_maxrss begins with the peak of the process that started this one
    status = Path("/proc/self/status")
    peak = re.search(r"^VmHWM:\s*(\d+) kB", status.read_text(), re.MULTILINE) if status.exists() else None
    if peak is not None:
        return int(peak[1]) / 2**10
    # kilobytes on Linux, bytes on macOS
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
