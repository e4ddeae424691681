import random
from dataclasses import replace
from itertools import product

import pytest

from search.cost.planner import (
    Ladders,
    Need,
    Needs,
    NothingFits,
    Reserve,
    Setting,
    choose,
    parse_bytes,
    parted,
    say_bytes,
    smaller,
)

LADDERS = Ladders(
    execution=("reference", "batched/fast", "batched/small"),
    precision=("float32", "bfloat16"),
    parts=(1, 2, 4),
    crop=(32, 16),
    partial=(1, 2, 4),
    batch=64,
)
FACTORS = {"reference": 1.0, "batched/fast": 0.5, "batched/small": 0.25, "float32": 1.0, "bfloat16": 0.5}


def peak(setting):
    """128 kB at first."""
    factor = FACTORS[setting.execution] * FACTORS[setting.precision] / setting.partial
    return int(2 * setting.batch / setting.parts * setting.crop**2 * factor)


def needed(limit):
    setting = choose(LADDERS, peak, limit)
    return setting.execution, setting.precision, setting.parts, setting.crop, setting.partial


@pytest.mark.parametrize(
    ("text", "size"),
    [("11GB", 11 * 10**9), ("11 GiB", 11 * 2**30), ("900mb", 9 * 10**8), ("1.5kB", 1500), ("12B", 12), ("2TiB", 2**41)],
)
def test_sizes_of_memory(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["11 apples", "11", "GB", "0GB", "-3GB", "11G", "1e3MB", ""])
def test_what_is_no_size(text):
    with pytest.raises(ValueError, match=r"11GB, 10\.5GiB or 900MB"):
        parse_bytes(text)


def test_sizes_for_people():
    assert say_bytes(11_234_000_000) == "11.23 GB"
    assert say_bytes(900e6) == "900.0 MB"


def test_what_is_given_up_comes_in_the_stated_order():
    whole = peak(LADDERS.first)
    assert needed(whole) == ("reference", "float32", 1, 32, 1)
    assert needed(whole // 2) == ("batched/fast", "float32", 1, 32, 1)
    assert needed(whole // 4) == ("batched/small", "float32", 1, 32, 1)
    assert needed(whole // 8) == ("batched/small", "bfloat16", 1, 32, 1)
    assert needed(whole // 16) == ("batched/small", "bfloat16", 2, 32, 1)
    assert needed(whole // 32) == ("batched/small", "bfloat16", 4, 32, 1)
    # a smaller image takes back some of the parts, a larger K of both
    assert needed(whole // 33) == ("batched/small", "bfloat16", 2, 16, 1)
    assert needed(whole // 128) == ("batched/small", "bfloat16", 4, 16, 1)
    assert needed(whole // 129) == ("batched/small", "bfloat16", 4, 16, 2)
    assert needed(whole // 512) == ("batched/small", "bfloat16", 4, 16, 4)
    assert choose(replace(LADDERS, parts=(1,), crop=(32,)), peak, whole // 9) == Setting(
        "batched/small", "bfloat16", 1, 32, 2, 64
    )


def test_no_more_is_given_up_than_is_needed():
    # between two numbers of parts the cheapest execution isn't needed
    assert needed(peak(LADDERS.first) * 3 // 8) == ("batched/small", "float32", 1, 32, 1)
    for limit in range(300, peak(LADDERS.first), 997):
        setting = choose(LADDERS, peak, limit)
        assert peak(setting) <= limit
        own = LADDERS.first
        for name in ("execution", "precision"):
            if getattr(setting, name) != getattr(own, name):
                ladder = getattr(LADDERS, name)
                before = ladder[ladder.index(getattr(setting, name)) - 1]
                assert peak(replace(setting, **{name: before})) > limit


def test_the_smallest_need_is_named():
    with pytest.raises(NothingFits) as stop:
        choose(LADDERS, peak, 255)
    least = stop.value
    assert least.need == 256 == peak(least.setting)
    assert (
        str(least)
        == "nothing fits in 0.0 MB: the smallest need is 0.0 MB (K=4, batch 64 in 4 parts, crop 16, bfloat16, batched/small)"
    )
    assert choose(LADDERS, peak, least.need) == least.setting


def test_a_precision_that_needs_more_is_not_the_smallest_need():
    def needs(setting):
        return peak(setting) + (1000 if setting.precision == "bfloat16" else 0)

    with pytest.raises(NothingFits) as stop:
        choose(LADDERS, needs, 500)
    assert (stop.value.need, stop.value.setting.precision) == (512, "float32")
    assert choose(LADDERS, needs, 512) == stop.value.setting


def made_up(rng):
    """Needs of a network: what saves activations costs weights, and either may be the most of it."""
    weights, activations = (10 ** rng.uniform(2, 6) for _ in range(2))
    together, rounded, gradients = (rng.uniform(0, 1) for _ in range(3))
    kept = {execution: rng.uniform(0.05, 1.0) for execution in LADDERS.execution}

    def needs(setting):
        more = together * (setting.execution != "reference")
        more += rounded * (setting.precision == "bfloat16") + gradients * (setting.parts > 1)
        share = kept[setting.execution] * (0.5 if setting.precision == "bfloat16" else 1) / setting.parts
        return int((weights * (1 + more) + activations * setting.crop**2 / 32**2 * share) / setting.partial) + 1

    return needs


@pytest.mark.parametrize("seed", range(50))
def test_the_choice_is_that_of_trying_all(seed):
    needs = made_up(random.Random(seed))
    ladders = replace(LADDERS, parts=(1, 2, 4, 8), crop=(32, 28, 24, 20, 16), partial=(1, 2, 4, 8))
    order = product(ladders.partial, ladders.crop, ladders.parts, ladders.precision, ladders.execution)
    every = [Setting(e, p, parts, crop, k, ladders.batch) for k, crop, parts, p, e in order]
    sizes = [needs(setting) for setting in every]
    least, most = min(sizes), max(sizes)
    for i in range(20):
        limit = int(least * (most / least) ** (i / 20))
        asked = []

        def counted(setting, asked=asked):
            asked.append(setting)
            return needs(setting)

        assert choose(ladders, counted, limit) == next(s for s, size in zip(every, sizes, strict=True) if size <= limit)
        # of 480, for each is a whole step on fake tensors
        assert len(asked) == len(set(asked)) <= 100
    with pytest.raises(NothingFits) as stop:
        choose(ladders, needs, least - 1)
    assert stop.value.need == least == needs(stop.value.setting)


def test_few_settings_are_measured():
    def asked(limit):
        found = []
        choose(LADDERS, lambda setting: found.append(setting) or peak(setting), limit)
        return len(found)

    whole = peak(LADDERS.first)
    assert asked(whole) == 1
    # the config's own, the one that gives up everything, and those of the execution; then of the precision too
    assert [asked(whole // part) for part in (2, 4, 8)] == [3, 4, 7]


def measured(setting):
    """Convex in the batch: weights dominate below 8 images."""
    size = max(80, 10 * setting.batch)
    return Need(10, 2, 10, 10, {"weights": 4 * setting.batch, "architecture": 5 * setting.batch}, {"weights": 50, "both": size})


def test_between_measured_batches_a_need_is_never_too_low():
    calls = []

    def measure(setting):
        calls.append(setting.batch)
        return measured(setting)

    needs = Needs(measure, (16, 2), Reserve())
    own = LADDERS.first
    for batch in range(2, 17):
        setting = replace(own, batch=batch)
        exact = measured(setting).peak
        assert exact <= needs(setting) <= exact + 40
    assert sorted(calls) == [2, 16]
    at_end = replace(own, batch=16)
    assert needs(at_end) == needs.exact_bytes(at_end) == 160


def test_the_largest_batch_that_fits():
    own = LADDERS.first
    needs = Needs(measured, (8, 64, 512), Reserve(fixed=100, share=0.5))
    # 15 bytes an image, and 100
    assert needs.largest_batch(own, 100 + 15 * 64) == 64
    assert needs.largest_batch(own, 100 + 15 * 77 + 14) == 77
    assert needs.largest_batch(own, 100 + 15 * 13) == 13
    assert needs.largest_batch(own, 100 + 15 * 8 - 1) is None
    assert needs.largest_batch(own, 10**9) == 512


def test_parts_of_a_need():
    need = measured(LADDERS.first)
    assert need.peak == 640 and need.most_kept == 320


def test_ladders():
    assert parted(128) == parted(16) == (1, 2, 4, 8)
    assert parted(15) == (1, 2, 4)
    assert parted(4) == (1, 2)
    assert parted(3) == parted(1) == (1,)
    assert smaller(224) == (224, 192, 160, 128)
    assert smaller(321) == (321, 320, 288, 256, 224, 192)
    assert smaller(32) == (32, 28, 24, 20, 16)
    assert smaller(8) == (8,)
