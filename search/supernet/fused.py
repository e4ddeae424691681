"""The Triton plan of a `MixedDag`: the batched plan, with a state's first depthwise convolutions and pools in one kernel.

One read of a state gives ReLU, every candidate's first depthwise convolution for all targets, and both pools
(search/kernels/depthwise_bank); one matrix product follows for all of them. The sums over candidates and nodes are kernels too
(norm_sum, partial_node). What the bank doesn't know (other convolutions, other pools) runs as in the batched plan.

Letters: B batch, T targets of a job, C channels of a candidate, H and W size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from search.kernels.depthwise_bank import depthwise_bank
from search.supernet.bank import Bank, Chains, Shared
from search.supernet.batched import BatchedPlan


class TritonPlan(BatchedPlan):
    """Runs the modules of one `MixedDag`."""

    triton = True

    def maps(self, bank: Bank, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """See `BatchedPlan.maps`."""
        chains = [job for job in bank.normed if isinstance(job, Chains) and _in_bank(job)]
        pools = {name: job for job in bank.shared if (name := _pool_name(job)) is not None}
        if not chains and not pools:
            return super().maps(bank, x)
        strides = {job.geometries[0][0] for job in chains} | {_stride(job.pool) for job in pools.values()}
        assert len(strides) == 1, f"edges that leave one state have strides {strides}"

        def banked(x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
            weights = [job.weights[0][0].flatten(0, 1).unsqueeze(1) for job in chains]
            dilations = [job.geometries[0][2] for job in chains]
            convs, pooled = depthwise_bank(x, weights, dilations, *strides, tuple(pools), joined=True, triton=True)
            return (self._after_depthwise(chains, convs[0]) if chains else []), pooled

        recompute = any(job.recompute for job in chains)
        made, pooled = checkpoint(banked, x, use_reentrant=False, preserve_rng_state=False) if recompute else banked(x)
        of_chain = dict(zip(map(id, chains), made, strict=True))
        of_pool = dict(zip(map(id, pools.values()), pooled, strict=True))
        return (
            [of_chain[id(job)] if id(job) in of_chain else job.maps(x) for job in bank.normed],
            [job.normalised(of_pool[id(job)]) if id(job) in of_pool else job.map(x) for job in bank.shared],
        )

    def _after_depthwise(self, chains: Sequence[Chains], d: Tensor) -> list[Tensor]:
        """From all first depthwise convolutions [B, sum of T * C, H', W'] to what each job's last norm reads."""
        first = torch.cat([job.weights[0][1] for job in chains])
        z = torch.matmul(first, d.view(len(d), len(first), -1, d.shape[2] * d.shape[3])).view(len(d), -1, *d.shape[2:])
        parts = z.split([len(job.targets) * job.weights[0][1].shape[1] for job in chains], dim=1)
        return [job.rest(part) for job, part in zip(chains, parts, strict=True)]


def _in_bank(job: Chains) -> bool:
    _, _, dilation = job.geometries[0]
    return job.weights[0][0].shape[-1] in (3, 5, 7) and dilation in (1, 2)


def _pool_name(job: Shared) -> str | None:
    """The bank's name of a 3x3 pool with padding 1, whose average counts the pixels inside the image."""
    pool = job.pool
    if pool is None or _pair(pool.kernel_size) != (3, 3) or _pair(pool.padding) != (1, 1) or pool.ceil_mode:
        return None
    if isinstance(pool, nn.MaxPool2d):
        return "max" if _pair(pool.dilation) == (1, 1) and not pool.return_indices else None
    return "avg" if not pool.count_include_pad and pool.divisor_override is None else None


def _stride(pool: nn.Module) -> int:
    return _pair(pool.stride)[0]


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)
