"""Two gloo processes on CPU against one at the same global batch."""

from pathlib import Path

import pytest
import torch

from search.engine import UserError, distributed
from tests.search.engine import tiny

EXACT = {"dropout": 0.0, "frozen_norms": True, "double": True}
# under names of hooks that change no result, so that runs with others go on
DUMP = {"progress": {"type": "search.Dump"}}


def settings(world, size=12, model=None, **data):
    """3 steps an epoch of 4 images over all processes."""
    batch = 4 // world
    return {
        "world": world,
        "model": model or EXACT,
        "default_hooks": DUMP,
        "train_dataloader": tiny.loader(size, 0, 0, batch, **data),
        "val_dataloader": tiny.scored(12, 100, **data),
    }


def ranks(folder, world):
    return [torch.load(folder / f"rank{r}.pt", weights_only=True) for r in range(world)]


def worst(a, b):
    assert a.keys() == b.keys()
    return max(float((a[k].double() - b[k].double()).abs().max()) for k in a)


@pytest.mark.parametrize("strategy", ["first", "second", "exact", "edges"])
def test_two_processes_search_like_one(tmp_path, strategy):
    """One frozen epoch, then 3 steps of logits and weights; float64, norms in eval mode, SGD for both."""
    chosen = {
        "first": {"type": "DARTS", "order": 1},
        "second": {"type": "DARTS", "order": 2},
        "exact": {"type": "DARTS", "order": 2, "exact": True},
        "edges": {"type": "PCDARTS"},
    }[strategy]
    found = {}
    for world in (1, 2):
        args = {
            **settings(world, double=True),
            "strategy": {**chosen, "freeze_epochs": 1},
            "arch_dataloader": tiny.loader(12, 50, 0, 4 // world, double=True),
            "arch_optimizer": {"type": "SGD", "lr": 5.0, "momentum": 0.9, "weight_decay": 1e-3},
        }
        assert tiny.in_children(tmp_path / str(world), epochs=2, **args) == [0] * world
        found[world] = ranks(tmp_path / str(world), world)
    assert worst(found[2][0], found[2][1]) == 0.0
    assert worst(found[1][0], found[2][0]) < 1e-10
    logits = torch.cat([v for k, v in found[1][0].items() if k.startswith("logits/")])
    assert float(logits.abs().max()) > 0.05, "the logits must have left their start (standard deviation 0.001)"
    assert any(name.endswith("/inputs") for name in found[1][0] if name.startswith("logits/")) == (strategy == "edges")


def test_ranks_stay_bit_identical_with_batch_norm_in_train_mode(tmp_path):
    """10 steps, augmentation and dropout differing between ranks, momentum and Adam."""
    model = {"dropout": 0.2}
    args = {
        **settings(2, size=20, model=model, augment=True),
        "arch_dataloader": tiny.loader(20, 50, 0, 2, augment=True),
        "strategy": {"type": "PCDARTS", "freeze_epochs": 0},
    }
    assert tiny.in_children(tmp_path, epochs=2, **args) == [0, 0]
    first, second = ranks(tmp_path, 2)
    learned = {k: v for k, v in first.items() if "running_" not in k}
    assert worst(learned, {k: second[k] for k in learned}) == 0.0


def test_two_processes_train_like_one(tmp_path):
    found = {}
    for world in (1, 2):
        args = {**settings(world, double=True), "train": True}
        assert tiny.in_children(tmp_path / str(world), epochs=2, **args) == [0] * world
        found[world] = ranks(tmp_path / str(world), world)[0]
    assert worst(found[1], found[2]) < 1e-10


@pytest.mark.parametrize("accumulated", [1, 3])
def test_two_processes_resume_exactly(tmp_path, accumulated):
    """Killed after step 9, saved after step 8: with 3 steps for one update each process holds gradients of its own."""
    wrapper = {"optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.9}, "accumulative_counts": accumulated}
    args = {
        **settings(2, size=24, model={"dropout": 0.2}, augment=True),
        "arch_dataloader": tiny.loader(20, 50, 0, 2, augment=True),
        "loop": {"save_steps": 2},
        "optim_wrapper": wrapper,
        "epochs": 2,
    }
    assert tiny.in_children(tmp_path / "straight", **args) == [0, 0]
    kill = {**DUMP, "visualization": {"type": "search.Kill", "where": "step", "at": 9}}
    codes = tiny.in_children(tmp_path / "killed", **{**args, "default_hooks": kill})
    assert codes == [-9, -9]
    assert tiny.in_children(tmp_path / "killed", **args, resume=True) == [0, 0]
    assert tiny.differences(tiny.state(tmp_path / "straight"), tiny.state(tmp_path / "killed")) == []
    straight, killed = ranks(tmp_path / "straight", 2), ranks(tmp_path / "killed", 2)
    assert [worst(a, b) for a, b in zip(straight, killed, strict=True)] == [0.0, 0.0]
    # mmengine's place for the processes' results, in the current folder
    assert not Path(".dist_test").exists()


def test_unknown_launcher_and_missing_environment_are_said():
    with pytest.raises(UserError, match="launcher='mpi'"):
        distributed.start("mpi")
    with pytest.raises(UserError, match="torchrun"):
        distributed.start("pytorch")


def test_average_of_one_process_is_what_it_was():
    tensor = torch.randn(3)
    assert distributed.average([tensor])[0] is tensor
