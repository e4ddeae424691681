"""Several processes: start them on CPU or GPU, average gradients in one flat reduction.

The search loop wraps nothing in DistributedDataParallel: its reducer does not see ``autograd.grad`` or
``functional_call`` and fails on logits frozen after wrapping. One flat ``all_reduce`` over what has a gradient
serves first and second order alike and equals one process at the same global batch up to rounding.
"""

import os
import subprocess
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from .errors import UserError


def start(launcher: str) -> bool:
    """Joins the process group of `launcher` ('none', 'pytorch', 'slurm'); on CPU with gloo.

    Must run before mmengine's Runner, whose own start-up needs a GPU. Returns whether this call started it.

    Raises:
        UserError: unknown launcher, or the launcher's environment variables are missing.
    """
    if launcher not in ("none", "pytorch", "slurm"):
        raise UserError(f"launcher={launcher!r} is unknown: use 'none', 'pytorch' or 'slurm'.")
    if launcher == "none" or dist.is_initialized():
        return False
    if launcher == "slurm":
        _environment_from_slurm()
    missing = [k for k in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR") if k not in os.environ]
    if missing:
        raise UserError(
            f"launcher={launcher!r} needs the environment variables {', '.join(missing)}: start with "
            "`torchrun --nproc-per-node N tools/... --launcher pytorch`."
        )
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("nccl")
    else:
        dist.init_process_group("gloo")
    return True


def _environment_from_slurm() -> None:
    names = {"RANK": "SLURM_PROCID", "WORLD_SIZE": "SLURM_NTASKS", "LOCAL_RANK": "SLURM_LOCALID"}
    missing = [name for name in (*names.values(), "SLURM_NODELIST") if name not in os.environ]
    if missing:
        raise UserError(f"launcher='slurm' needs the environment variables {', '.join(missing)}: use srun.")
    for name, source in names.items():
        os.environ[name] = os.environ[source]
    if "MASTER_ADDR" not in os.environ:
        command = ["scontrol", "show", "hostnames", os.environ["SLURM_NODELIST"]]
        hosts = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        os.environ["MASTER_ADDR"] = hosts[0]
    os.environ.setdefault("MASTER_PORT", "29500")


def rank() -> int:
    """This process's rank, 0 without a process group."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """The number of processes, 1 without a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def average(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The mean of each tensor over the processes, by one flat all_reduce for each dtype.

    Returns new tensors of the same shapes; the same tensors when there is one process.
    """
    world = world_size()
    if world == 1:
        return list(tensors)
    averaged: list[Tensor] = list(tensors)
    for dtype in dict.fromkeys(t.dtype for t in tensors):
        places = [i for i, t in enumerate(tensors) if t.dtype == dtype]
        flat = torch.cat([tensors[i].detach().reshape(-1) for i in places])
        dist.all_reduce(flat)
        flat /= world
        for i, part in zip(places, flat.split([tensors[i].numel() for i in places]), strict=True):
            averaged[i] = part.view_as(tensors[i])
    return averaged


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replaces every existing ``.grad`` by its mean over the processes, in place."""
    if world_size() == 1:
        return
    grads = [p.grad for p in parameters if p.grad is not None]
    for grad, mean in zip(grads, average(grads), strict=True):
        grad.copy_(mean)


def average_buffers(model: nn.Module) -> None:
    """Replaces every floating-point buffer (batch norm statistics) by its mean over the processes."""
    if world_size() == 1:
        return
    buffers = [b for b in model.buffers() if b.is_floating_point()]
    for buffer, mean in zip(buffers, average(buffers), strict=True):
        buffer.copy_(mean)


def same_everywhere(modules: Iterable[nn.Module]) -> None:
    """Gives every process the parameters and buffers of rank 0."""
    if world_size() == 1:
        return
    for module in modules:
        for tensor in (*module.parameters(), *module.buffers()):
            dist.broadcast(tensor.detach(), src=0)


def gather(value: Any) -> list[Any]:
    """The value of every process, in rank order, on every process."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values
