"""The order of samples and their randomness as pure functions, so that a run restarts at any batch.

- Order: epoch e of a stream is the permutation drawn from (seed, stream, e). A stream never ends; batch number b
  is batch ``b % batches_per_epoch`` of epoch ``b // batches_per_epoch``.
- Randomness: every sample seeds python, numpy and torch from (seed, stream, epoch, index) before its transforms
  run, so it doesn't matter which worker makes it, or whether there are workers.
- Position: the number of batches *consumed* says everything; what workers prefetched beyond it is made again.
- Processes: rank r takes each global batch's samples r, r + world, ...
"""

import random
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from .errors import UserError, whole_number

Key = tuple[int, int]  # (epoch, index)


def require_seed(name: str, value: Any) -> int:
    """``value``, if it can seed python's, numpy's and torch's generators alike; UserError naming ``name`` otherwise."""
    return whole_number(name, value, least=0, below=2**32)


def _entropy(seed: int, stream: str, *rest: int) -> np.random.SeedSequence:
    return np.random.SeedSequence([seed, zlib.crc32(stream.encode()), *rest])


def random_states() -> dict[str, Any]:
    """The states of python's, numpy's and torch's (CPU and CUDA) global generators, as plain values and tensors."""
    name, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_states(states: dict[str, Any]) -> None:
    """Puts back what `random_states` returned."""
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(states["torch"].cpu())
    if states["cuda"]:
        torch.cuda.set_rng_state_all([s.cpu() for s in states["cuda"]])


@contextmanager
def kept_random_states() -> Iterator[None]:
    """Whatever is drawn inside leaves the global generators as they were."""
    states = random_states()
    try:
        yield
    finally:
        set_random_states(states)


def seed_everything(seed: int, stream: str, *rest: int) -> None:
    """Seeds python, numpy and torch (CPU and CUDA) from (seed, stream, rest)."""
    _seed_cpu(seed, stream, *rest)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(torch.initial_seed())


def _seed_cpu(seed: int, stream: str, *rest: int) -> None:
    # the CPU generators only: a sample's transforms must not move a GPU's generator
    words = _entropy(seed, stream, *rest).generate_state(8)
    random.seed(int.from_bytes(words[:2].tobytes(), "little"))
    np.random.seed(words[2:6])
    torch.default_generator.manual_seed(int(words[6]) << 31 | int(words[7]))


class SeededDataset(Dataset):
    """A dataset addressed by (epoch, index) whose every sample has a random stream of its own.

    Args:
        dataset: a map-style dataset; its transforms may draw from python's, numpy's and torch's generators.
        seed, stream: what the samples' random streams depend on, beside epoch and index.
    """

    def __init__(self, dataset: Any, seed: int, stream: str):
        self.dataset, self.seed, self.stream = dataset, seed, stream
        if hasattr(dataset, "metainfo"):
            self.metainfo = dataset.metainfo

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: Key) -> Any:
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: Sequence[Key]) -> list[Any]:
        if get_worker_info() is not None:
            return [self._make(key) for key in keys]
        with kept_random_states():
            return [self._make(key) for key in keys]

    def _make(self, key: Key) -> Any:
        epoch, index = key
        _seed_cpu(self.seed, self.stream, epoch, index)
        return self.dataset[index]


class StreamBatches:
    """A batch sampler that never ends and starts at any batch; yields lists of (epoch, index).

    Args:
        size: samples in the dataset.
        batch_size: samples in a batch of one process.
        seed, stream: what the order depends on, beside the epoch.
        shuffle: False keeps the dataset's order in every epoch.
        drop_last: leave out the samples of an epoch that don't fill a global batch; must be True with several
            processes, whose batches have to be equal.
        rank, world: this process among all.
        limit: end every epoch after this many batches.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        seed: int,
        stream: str,
        shuffle: bool = True,
        drop_last: bool = True,
        rank: int = 0,
        world: int = 1,
        limit: int | None = None,
    ):
        whole_number(f"batch_size of the {stream} data", batch_size)
        if limit is not None:
            whole_number(f"num_batch_per_epoch of the {stream} data", limit)
        if not drop_last and world > 1:
            raise UserError(f"drop_last=False of the {stream} data gives {world} processes unequal batches: leave it out.")
        self.global_batch = batch_size * world
        if size < (self.global_batch if drop_last else 1):
            raise UserError(
                f"The {stream} data hold {size} samples, fewer than one batch of {self.global_batch}: lower "
                "batch_size or give more data."
            )
        self.size, self.seed, self.stream, self.shuffle = size, seed, stream, shuffle
        self.batches = size // self.global_batch if drop_last else -(-size // self.global_batch)
        if limit is not None:
            self.batches = min(self.batches, limit)
        self.rank, self.world, self.start = rank, world, 0
        self.sampler = self  # mmengine's DistSamplerSeedHook looks here for a set_epoch, which we don't need

    def __len__(self) -> int:
        return self.batches

    def order(self, epoch: int) -> np.ndarray:
        """The dataset's indices in the order of `epoch`: [size]."""
        if not self.shuffle:
            return np.arange(self.size)
        return np.random.default_rng(_entropy(self.seed, self.stream, epoch)).permutation(self.size)

    def __iter__(self) -> Iterator[list[Key]]:
        epoch, batch = divmod(self.start, self.batches)
        while True:
            order = self.order(epoch)
            for b in range(batch, self.batches):
                rows = order[b * self.global_batch : (b + 1) * self.global_batch][self.rank :: self.world]
                yield [(epoch, int(i)) for i in rows]
            epoch, batch = epoch + 1, 0


class Stream:
    """A loader's endless batches with the count of those consumed; restarts at any count.

    Args:
        loader: a DataLoader over `StreamBatches`.
    """

    def __init__(self, loader: DataLoader):
        self.loader, self.consumed = loader, 0
        self._iterator: Iterator[Any] | None = None

    def __len__(self) -> int:
        return len(self.loader)

    def next(self) -> Any:
        """The next batch, made ready by the workers if there are any."""
        if self._iterator is None:
            self.loader.batch_sampler.start = self.consumed
            self._iterator = iter(self.loader)
        batch = next(self._iterator)
        self.consumed += 1
        return batch

    def seek(self, consumed: int) -> None:
        """Goes to the state after `consumed` batches."""
        self.close()
        self.consumed = consumed

    def close(self) -> None:
        """Stops the workers; the next batch starts them again."""
        self._iterator = None
