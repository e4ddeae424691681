"""A batch in parts takes the step of the whole batch."""

import pytest
import torch

from search import report
from search.engine import UserError, checkpoint, search
from search.engine.parts import parts_of
from tests.search.engine import tiny


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(report, "write", lambda work_dir: None)
    yield
    torch.set_num_threads(threads)


def test_parts_are_nearly_equal_and_complete():
    images = torch.arange(10)
    parts = parts_of({"inputs": images, "samples": list(range(10)), "extra": None}, 4)
    assert [share for share, _ in parts] == [0.2, 0.3, 0.2, 0.3]
    assert torch.cat([part["inputs"] for _, part in parts]).equal(images)
    assert [sample for _, part in parts for sample in part["samples"]] == list(range(10))
    assert all(part["extra"] is None and part["inputs"].data_ptr() >= images.data_ptr() for _, part in parts)


def test_a_small_batch_has_fewer_parts_and_one_is_the_batch_itself():
    batch = (torch.ones(3, 2), [1, 2, 3])
    assert [part[1] for _, part in parts_of(batch, 8)] == [[1], [2], [3]]
    assert parts_of(batch, 1) == [(1.0, batch)]


@pytest.mark.parametrize("strategy", [{"type": "PCDARTS", "freeze_epochs": 1}, {"type": "DARTS", "order": 1}])
def test_without_batch_statistics_parts_change_nothing_but_rounding(tmp_path, strategy):
    states = []
    for parts in (1, 3):
        cfg = tiny.config(
            tmp_path / str(parts),
            epochs=2,
            model={"frozen_norms": True, "double": True},
            loop={"batch_parts": parts, "arch_clip_grad": {"max_norm": 0.05}},
            strategy=strategy,
            train_dataloader=tiny.loader(24, 0, 0, double=True, augment=True),
            arch_dataloader=tiny.loader(20, 50, 0, double=True, augment=True),
            val_dataloader=tiny.scored(12, 100, double=True),
        )
        search(cfg)
        saved = checkpoint.read_own(tmp_path / str(parts) / "checkpoint.pth")
        states.append({**saved["state_dict"], **saved["visnas"]["loop"]["arch_params"]})
    whole, parted = states
    assert whole.keys() == parted.keys()
    for name, value in whole.items():
        assert torch.allclose(value, parted[name], rtol=1e-9, atol=1e-12), name
    moved = [name for name, value in whole.items() if value.is_floating_point() and not value.equal(parted[name])]
    # rounding differs, so the parts were taken
    assert any("n2<-0" in name for name in moved)


def test_second_order_and_accumulation_run_in_parts(tmp_path):
    wrapper = {"optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.9}, "accumulative_counts": 2}
    result = search(
        tiny.config(tmp_path, epochs=2, loop={"batch_parts": 2}, optim_wrapper=wrapper, strategy={"type": "DARTS", "order": 2})
    )
    assert result.score is not None


@pytest.mark.parametrize(("parts", "words"), [(0, "batch_parts=0"), (5, "batch_parts=5 is more than the 4 images of train")])
def test_impossible_numbers_of_parts(tmp_path, parts, words):
    with pytest.raises(UserError, match=words):
        search(tiny.config(tmp_path, loop={"batch_parts": parts}))
