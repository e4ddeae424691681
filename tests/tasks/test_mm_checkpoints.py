"""mmengine's checkpoints are read with what they log, and nothing else is unpickled."""

import os
import pickle

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader

from search.environment import installed
from tasks import mm_checkpoints

pytestmark = pytest.mark.upstream
UPSTREAM = "mmengine" in installed()


@pytest.fixture
def logged(tmp_path):
    """A file as mmengine's checkpoint hook writes it, and what stands in it."""
    buffer = HistoryBuffer()
    for value, count in ((2.0, 1), (np.float64(4.0), 3)):
        buffer.update(value, count)
    hub = dict(log_scalars={"train/loss": buffer}, runtime_info=dict(AP=np.float64(0.25), step=np.int64(7)), resumed_keys={})
    torch.save(dict(state_dict=dict(w=torch.arange(3.0)), message_hub=hub), tmp_path / "epoch_1.pth")
    return tmp_path / "epoch_1.pth"


@pytest.mark.parametrize("load", [mm_checkpoints.load, CheckpointLoader.load_checkpoint], ids=["ours", "mmengine"])
def test_a_training_can_go_on_from_what_it_logged(logged, load):
    mm_checkpoints.install()
    content = load(str(logged), map_location="cpu")
    assert torch.equal(content["state_dict"]["w"], torch.arange(3.0))
    hub = content["message_hub"]
    assert hub["runtime_info"] == dict(AP=0.25, step=7)
    buffer = hub["log_scalars"]["train/loss"]
    # (2 + 4) / (1 + 3)
    assert buffer.statistics("mean") == 1.5 and buffer.data[0].tolist() == [2.0, 4.0]


def test_arrays_of_numpy_1_are_read(tmp_path):
    file = tmp_path / "epoch_1.pth"
    # the format before zip files: plain pickles, whose names end with their lines
    torch.save(dict(counts=np.arange(3.0)), file, _use_new_zipfile_serialization=False)
    content = file.read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert b"cnumpy.core.multiarray\n_reconstruct\n" in content
    file.write_bytes(content)
    assert mm_checkpoints.load(str(file))["counts"].tolist() == [0.0, 1.0, 2.0]


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("harm",)


def test_nothing_else_is_unpickled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(dict(state_dict={}, meta=Harmful()), "epoch_1.pth")
    with pytest.raises(pickle.UnpicklingError, match=r"mkdir"):
        mm_checkpoints.load("epoch_1.pth")
    assert not (tmp_path / "harm").exists()


def test_a_missing_file_is_named():
    with pytest.raises(FileNotFoundError, match=r"the checkpoint nowhere\.pth does not exist"):
        mm_checkpoints.load("nowhere.pth")


@pytest.mark.skipif(UPSTREAM, reason="upstream mmengine is installed")
def test_the_forks_loader_is_left_alone():
    before = dict(CheckpointLoader._schemes)
    mm_checkpoints.install()
    assert CheckpointLoader._schemes == before
