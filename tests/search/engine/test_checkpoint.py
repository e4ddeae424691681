"""Checkpoints: plain values only, whole or not at all, refused in a sentence."""

import json
import pickle
import random
import resource
import signal

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub

from search.engine import UserError, checkpoint
from tests.search.engine import tiny


def own(**visnas):
    return {"state_dict": {"w": torch.ones(2)}, "visnas": {"version": checkpoint.FORMAT, **visnas}}


class Evil:
    ran = False

    def __reduce__(self):
        return (setattr, (Evil, "ran", True))


def test_plain_makes_numpy_and_history_buffers_readable_without_unpickling(tmp_path):
    hub = MessageHub.get_instance("test_plain")
    for value in (1.0, np.float64(2.5), torch.tensor(3.0)):
        hub.update_scalar("train/loss", value)
    hub.update_info("palette", np.arange(3))
    hub.update_info("object", object())
    checkpoint.write(tmp_path / "c.pth", {"hub": checkpoint.plain_hub(hub.state_dict())})
    saved = checkpoint.hub_from_plain(checkpoint.read(tmp_path / "c.pth")["hub"])
    assert isinstance(saved["log_scalars"]["train/loss"], HistoryBuffer)
    assert saved["log_scalars"]["train/loss"].data[0].tolist() == [1.0, 2.5, 3.0]
    assert saved["runtime_info"]["palette"].tolist() == [0, 1, 2]
    assert "object" not in saved["runtime_info"]


def test_plain_names_what_it_cant_save():
    with pytest.raises(ValueError, match=r"checkpoint\.a\.b holds a Evil"):
        checkpoint.plain({"a": {"b": Evil()}})


def test_random_states_survive_a_checkpoint(tmp_path):
    from search.engine.data import random_states, seed_everything, set_random_states

    seed_everything(1, "test")
    checkpoint.write(tmp_path / "c.pth", checkpoint.plain(random_states()))
    drawn = [random.random(), np.random.rand(), np.random.randn(), float(torch.rand(()))]
    set_random_states(checkpoint.read(tmp_path / "c.pth"))
    assert [random.random(), np.random.rand(), np.random.randn(), float(torch.rand(()))] == drawn


def test_missing_damaged_and_foreign_files_are_said(tmp_path):
    path = tmp_path / "c.pth"
    with pytest.raises(UserError, match="no checkpoint at"):
        checkpoint.read(path)
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(UserError, match=r"c\.pth is damaged"):
        checkpoint.read(path)
    checkpoint.write(path, own())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"c\.pth is damaged"):
        checkpoint.read(path)
    checkpoint.write(path, {"state_dict": {"w": torch.ones(2)}})
    with pytest.raises(UserError, match="wasn't written by this project"):
        checkpoint.read_own(path)
    checkpoint.write(path, own(version=99) | {"visnas": {"version": 99}})
    with pytest.raises(UserError, match="update visnas"):
        checkpoint.read_own(path)


def test_flipped_bytes_are_noticed(tmp_path):
    path = tmp_path / "c.pth"
    checkpoint.write(path, own() | {"state_dict": {"w": torch.full((1000,), 7.0)}})
    data = bytearray(path.read_bytes())
    at = data.find(torch.full((4,), 7.0).numpy().tobytes())
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="damaged"):
        checkpoint.read(path)


def test_damage_to_the_pickle_is_damage_not_hidden_code(tmp_path):
    path = tmp_path / "c.pth"
    checkpoint.write(path, own())
    data = bytearray(path.read_bytes())
    at = data.find(b"state_dict")
    # an operation that the safe reader doesn't know
    data[at - 5] = ord("i")
    path.write_bytes(data)
    with pytest.raises(UserError, match="damaged"):
        checkpoint.read(path)


@pytest.mark.parametrize("legacy", [False, True])
def test_code_hidden_in_a_file_never_runs(tmp_path, legacy):
    path = tmp_path / "evil.pth"
    torch.save(own() | {"evil": Evil()}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(UserError, match=r"run code|damaged"):
        checkpoint.read(path)
    path.write_bytes(pickle.dumps({"evil": Evil()}))
    with pytest.raises(UserError, match="damaged"):
        checkpoint.read(path)
    assert not Evil.ran


def test_a_full_disk_keeps_the_file_that_was_there(tmp_path):
    path = tmp_path / "c.pth"
    checkpoint.write(path, own())
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(UserError, match="exceed the largest size"):
            checkpoint.write(path, own() | {"state_dict": {"w": torch.ones(10_000)}})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, old)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_run_on_a_full_disk_stops_in_a_sentence_and_goes_on_later(tmp_path):
    assert tiny.in_children(tmp_path / "straight", epochs=2) == [0]
    # the history's third line doesn't fit: the run dies while the first checkpoint lies there
    # under the name of a hook that changes no result, so that the run without it may go on
    full = {"visualization": {"type": "search.FullDisk", "epoch": 1}}
    assert tiny.in_children(tmp_path / "full", epochs=2, default_hooks=full) == [1]
    assert (tmp_path / "full" / "said.txt").read_text().startswith("UserError: Writing ")
    saved = checkpoint.read_own(tmp_path / "full" / "checkpoint.pth")
    assert saved["visnas"]["loop"]["epoch"] == 1
    assert tiny.in_children(tmp_path / "full", epochs=2, resume=True) == [0]
    assert tiny.differences(tiny.state(tmp_path / "straight"), tiny.state(tmp_path / "full")) == []


def test_difference_names_the_first_setting():
    a = json.loads(checkpoint.canonical_config({"model": {"channels": 16}, "work_dir": "a", "seed": 1}))
    b = json.loads(checkpoint.canonical_config({"model": {"channels": 8}, "work_dir": "b", "seed": 1}))
    assert checkpoint.difference(a, b) == "model.channels is 16 there and 8 here"
    assert checkpoint.difference(a, {**a, "epochs": 2}) == "epochs is missing there and 2 here"
    assert checkpoint.difference(a, a) is None


def test_settings_that_change_no_result_are_no_difference():
    loader = {"batch_size": 4, "num_workers": 0}
    a = checkpoint.canonical_config({"train_dataloader": loader, "work_dir": "a"})
    b = checkpoint.canonical_config({"train_dataloader": {**loader, "num_workers": 2}, "work_dir": "b", "resume": True})
    assert a == b


def test_a_hook_that_changes_results_is_a_difference_wherever_it_stands():
    ema = {"type": "EMAHook", "momentum": 0.1}
    plain, averaged, logged = (
        checkpoint.canonical_config({"seed": 1, **({"default_hooks": hooks} if hooks else {})})
        for hooks in (None, {"ema": ema}, {"logger": {"type": "LoggerHook", "interval": 5}})
    )
    assert plain == logged != averaged
    assert checkpoint.canonical_config({"load_from": "a.pth"}) != checkpoint.canonical_config({"load_from": "b.pth"})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "train"}, "of a train run"),
        ({"config": '{"a": 1}'}, "a is 1 there and missing here"),
        ({"world": 2}, "written by 2 processes"),
        ({"threads": 63}, "OMP_NUM_THREADS=63"),
        ({"threads": 63}, r"--threads 63 \(tools/compare"),
    ],
)
def test_another_run_is_refused(change, words):
    ours = {"kind": "search", "config": "{}", "world": 1, "threads": torch.get_num_threads()}
    checkpoint.require_same_run("c.pth", ours, "search", "{}", 1, False)
    with pytest.raises(UserError, match=words):
        checkpoint.require_same_run("c.pth", {**ours, **change}, "search", "{}", 1, False)
    if "threads" in change:
        checkpoint.require_same_run("c.pth", {**ours, **change}, "search", "{}", 1, True)
