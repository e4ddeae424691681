"""Order and randomness of samples as functions of (seed, stream, epoch, index)."""

import random

import numpy as np
import pytest
import torch

from search.engine import UserError
from search.engine.data import SeededDataset, Stream, StreamBatches, kept_random_states, random_states
from search.engine.loaders import training_loader
from tests.search.engine import tiny


def take(batches, count):
    iterator = iter(batches)
    return [next(iterator) for _ in range(count)]


def test_an_epoch_is_a_permutation_and_epochs_differ():
    batches = StreamBatches(12, 4, 0, "train")
    rows = take(batches, 6)
    first, second = ([i for row in rows[e : e + 3] for _, i in row] for e in (0, 3))
    assert sorted(first) == sorted(second) == list(range(12)) and first != second
    assert [e for row in rows for e, _ in row] == [0] * 12 + [1] * 12


def test_streams_and_seeds_have_orders_of_their_own():
    orders = {tuple(StreamBatches(30, 4, s, n).order(0)) for s in (0, 1) for n in ("train", "architecture")}
    assert len(orders) == 4


@pytest.mark.parametrize("start", [1, 3, 7, 9])
def test_any_start_continues_the_same_sequence(start):
    straight = take(StreamBatches(14, 4, 0, "train"), 12)
    again = StreamBatches(14, 4, 0, "train")
    again.start = start
    assert take(again, 12 - start) == straight[start:]


def test_ranks_share_each_global_batch():
    whole = take(StreamBatches(16, 4, 0, "train"), 4)
    parts = [take(StreamBatches(16, 2, 0, "train", rank=r, world=2), 4) for r in (0, 1)]
    for batch, a, b in zip(whole, *parts, strict=True):
        assert a == batch[0::2] and b == batch[1::2]


def test_drop_last_and_limit():
    assert [len(row) for row in take(StreamBatches(10, 4, 0, "train"), 3)] == [4, 4, 4]
    assert [len(row) for row in take(StreamBatches(10, 4, 0, "train", drop_last=False), 3)] == [4, 4, 2]
    limited = StreamBatches(40, 4, 0, "train", limit=2)
    assert len(limited) == 2 and [row[0][0] for row in take(limited, 4)] == [0, 0, 1, 1]


def test_impossible_settings_are_said():
    with pytest.raises(UserError, match="hold 3 samples, fewer than one batch of 4"):
        StreamBatches(3, 4, 0, "train")
    with pytest.raises(UserError, match="drop_last=False"):
        StreamBatches(8, 2, 0, "train", drop_last=False, world=2)
    with pytest.raises(UserError, match="can't be restarted exactly"):
        training_loader({**tiny.loader(8, 0, 0), "sampler": {"type": "ClassBalanced"}}, 0, "train")
    with pytest.raises(UserError, match="no batch_size"):
        training_loader({"dataset": {"type": "search.TinyImages"}}, 0, "train")


def images(workers, skip=0, count=5):
    loader = training_loader(tiny.loader(12, 0, workers, augment=True), 0, "train")
    stream = Stream(loader)
    stream.seek(skip)
    rows = [stream.next()["inputs"] for _ in range(count - skip)]
    stream.close()
    return rows


def test_augmentation_depends_on_neither_workers_nor_where_a_run_began():
    here, workers, later = images(0), images(2), images(2, skip=2)
    assert all(torch.equal(a, b) for a, b in zip(here, workers, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(here[2:], later, strict=True))


def test_an_image_is_augmented_differently_in_each_epoch():
    dataset = SeededDataset(tiny.TinyImages(augment=True), 0, "train")
    first, again, second = dataset[(0, 5)]["inputs"], dataset[(0, 5)]["inputs"], dataset[(1, 5)]["inputs"]
    assert torch.equal(first, again) and not torch.equal(first, second)


def test_loading_leaves_the_global_generators_alone():
    before = random_states()
    images(0)
    after = random_states()
    assert before["python"] == after["python"]
    assert torch.equal(before["numpy"][1], after["numpy"][1]) and before["numpy"][2:] == after["numpy"][2:]
    assert torch.equal(before["torch"], after["torch"])


def test_kept_random_states():
    expected = None
    for _ in range(2):
        with kept_random_states():
            drawn = (random.random(), np.random.rand(), float(torch.rand(())))
        assert expected in (None, drawn)
        expected = drawn
