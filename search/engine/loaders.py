"""Data loaders from configs: training streams that restart at any batch, and mmengine's for scoring."""

import copy
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from mmengine.registry import FUNCTIONS
from torch.utils.data import DataLoader

from search.registry import DATASETS

from .data import SeededDataset, StreamBatches
from .errors import UserError

_SAMPLERS = ("DefaultSampler", "mmengine.DefaultSampler", "InfiniteSampler", "mmengine.InfiniteSampler")


def training_loader(cfg: Mapping[str, Any] | DataLoader, seed: int, stream: str, rank: int = 0, world: int = 1) -> DataLoader:
    """A loader whose order and augmentation are functions of (seed, stream, epoch, index).

    Args:
        cfg: as mmengine's dataloader configs. ``sampler`` may be left out or name one of mmengine's two, of which
            ``shuffle`` counts (default True); ``drop_last`` defaults to True. Workers live as long as the stream,
            so ``persistent_workers`` makes no difference.
        seed, stream: see `search.engine.data`.
        rank, world: this process among all.

    Raises:
        UserError: a sampler that can't be restarted, no batch_size, or fewer samples than one batch.
    """
    if not isinstance(cfg, Mapping):
        raise UserError(f"The {stream} data need a config (dict), not a built {type(cfg).__name__}.")
    left = copy.deepcopy(dict(cfg))
    if "batch_size" not in left:
        raise UserError(f"The {stream} data have no batch_size: give one, for instance batch_size=64.")
    if left.pop("batch_sampler", None) is not None:
        raise UserError(f"The {stream} data can't have a batch_sampler: its order couldn't be restarted.")
    shuffle = _shuffle(left.pop("sampler", None), stream)
    left.pop("persistent_workers", None)
    left.pop("disable_subprocess_warning", None)
    dataset = left.pop("dataset")
    if isinstance(dataset, Mapping):
        dataset = DATASETS.build(dataset)
        if hasattr(dataset, "full_init"):
            dataset.full_init()
    batches = StreamBatches(
        len(dataset),
        left.pop("batch_size"),
        seed,
        stream,
        shuffle,
        left.pop("drop_last", True),
        rank,
        world,
        left.pop("num_batch_per_epoch", None),
    )
    return DataLoader(
        SeededDataset(dataset, seed, stream),
        batch_sampler=batches,
        collate_fn=_function(left.pop("collate_fn", {"type": "pseudo_collate"})),
        worker_init_fn=_function(left.pop("worker_init_fn", None)),
        # of its own, so that making an iterator leaves the global generator alone
        generator=torch.Generator(),
        **left,
    )


def _shuffle(sampler: Mapping[str, Any] | None, stream: str) -> bool:
    if sampler is None:
        return True
    extra = sorted(set(sampler) - {"type", "shuffle"})
    if sampler.get("type") not in _SAMPLERS or extra:
        raise UserError(
            f"The {stream} data have sampler={dict(sampler)}, which can't be restarted exactly: leave it out, or "
            "give dict(type='DefaultSampler', shuffle=True or False)."
        )
    return bool(sampler.get("shuffle", True))


def _function(cfg: Mapping[str, Any] | Callable | None) -> Callable | None:
    if not isinstance(cfg, Mapping):
        return cfg
    arguments = dict(cfg)
    kind = arguments.pop("type")
    found = FUNCTIONS.get(kind) if isinstance(kind, str) else kind
    if found is None:
        raise UserError(f"The function {kind!r} isn't registered in mmengine's FUNCTIONS.")
    return partial(found, **arguments)
