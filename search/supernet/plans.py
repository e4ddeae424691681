"""How a supernet's graphs are executed: the names of the plans, and which one `plan="auto"` takes."""

from __future__ import annotations

import os
from importlib.util import find_spec

import torch

# edge by edge; all edges that leave a state together, in plain PyTorch or with the Triton kernels; the better that runs
PLANS = ("reference", "batched", "triton", "auto")
# what the plans other than the reference keep for backward
MEMORY = ("fast", "balanced", "small")

_KERNEL_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def check_plan(plan: str, memory: str) -> None:
    """ValueError for an unknown plan or memory, and where the two contradict each other."""
    if plan not in PLANS:
        raise ValueError(f"plan={plan!r} is none of {', '.join(PLANS)}")
    if memory not in MEMORY:
        raise ValueError(f"memory={memory!r} is none of {', '.join(MEMORY)}")
    if memory != "fast" and plan == "reference":
        raise ValueError(f"memory={memory!r} needs plan='batched', 'triton' or 'auto': the reference plan recomputes nothing")


def choose_plan(device: torch.device, dtype: torch.dtype) -> tuple[str, str]:
    """What `plan="auto"` is for states on a device, and why, as the end of a sentence."""
    hindrance = _hindrance(device, dtype)
    if hindrance is None:
        return "triton", f"the Triton kernels run on {device.type} in {_name(dtype)}"
    return "batched", hindrance


def require_triton(device: torch.device, dtype: torch.dtype) -> None:
    """ValueError where `plan="triton"` can't run; in Triton's interpreter (TRITON_INTERPRET=1) it runs on the CPU, slowly."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1" and device.type == "cpu" and dtype in _KERNEL_DTYPES
    hindrance = _hindrance(device, dtype)
    if hindrance is not None and not (interpreted and find_spec("triton")):
        raise ValueError(f"plan='triton' can't run: {hindrance}; set plan='auto' or plan='batched'")


def _hindrance(device: torch.device, dtype: torch.dtype) -> str | None:
    if device.type != "cuda":
        return f"the Triton kernels need CUDA, and the supernet is on {device.type}"
    if not find_spec("triton"):
        return "the Triton kernels need the package triton, which isn't installed"
    if dtype not in _KERNEL_DTYPES:
        return f"the Triton kernels take float32, bfloat16 and float16, and the supernet is in {_name(dtype)}"
    return None


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
