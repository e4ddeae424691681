import errno
import os
from argparse import Namespace

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from search import space
from search.engine.command import RESUME, guarded, load, mistake, mistake_of_work, say
from search.engine.errors import UserError, WorkFailed


def caught(action):
    try:
        action()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def fail(error):
    raise error


class ReadsAChangedFile(Dataset):
    """Fails in a loader's process with a ValueError of our own code, or of torch's."""

    def __init__(self, ours):
        self.ours = ours

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return space.load("/no/such/file") if self.ours else torch.zeros(2).view(-1).reshape(3)


def test_a_mistake_is_one_line_on_standard_error_and_exit_code_2(capsys):
    assert guarded(lambda: fail(UserError("the folder\nis empty"))) == 2
    assert capsys.readouterr().err == "error: the folder is empty\n"


def test_our_own_value_errors_are_mistakes_and_others_are_faults():
    assert "no architecture file" in mistake(caught(lambda: space.load("/no/such/file")))
    assert mistake(caught(lambda: int("x"))) is None
    assert mistake(caught(lambda: fail(AssertionError("ours")))) is None
    with pytest.raises(AssertionError):
        guarded(lambda: fail(AssertionError("ours")))


def test_a_refusing_file_system_is_a_mistake(tmp_path):
    (tmp_path / "file").write_text("")
    assert "Not a directory" in mistake(caught(lambda: (tmp_path / "file" / "below").write_text("x")))


def reading(error):
    """An image that the operating system fails to read."""
    try:
        raise error
    except OSError as refused:
        raise UserError("cannot read 000.jpg") from refused


class Refuses(Dataset):
    def __init__(self, number):
        self.number = number

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return fail(OSError(self.number, os.strerror(self.number), "000.jpg"))


@pytest.mark.parametrize("name", ["EIO", "ESTALE", "ENOMEM", "EMFILE", "EAGAIN", "ETIMEDOUT"])
def test_what_may_not_be_met_again_is_no_mistake_of_work(name):
    number = getattr(errno, name)
    for error in (
        caught(lambda: fail(OSError(number, os.strerror(number)))),
        caught(lambda: reading(OSError(number, os.strerror(number), "000.jpg"))),
        caught(lambda: list(DataLoader(Refuses(number), num_workers=1))),
    ):
        # a tool still says it in a line
        assert mistake(error) and mistake_of_work(error) is None


@pytest.mark.parametrize("name", ["ENOENT", "EACCES", "EROFS", "ENOSPC", "EDQUOT", "EINVAL", "ENOLCK"])
def test_a_wrong_path_and_a_full_disk_are_mistakes_of_work_too(name):
    number = getattr(errno, name)
    for error in (
        caught(lambda: fail(OSError(number, os.strerror(number), "000.jpg"))),
        caught(lambda: reading(OSError(number, os.strerror(number), "000.jpg"))),
        caught(lambda: list(DataLoader(Refuses(number), num_workers=1))),
        # what Pillow says of a damaged file
        caught(lambda: reading(OSError("image file is truncated"))),
    ):
        assert mistake_of_work(error) == mistake(error) is not None


@pytest.mark.parametrize("ours", [True, False])
def test_errors_of_a_loader_s_process_lose_their_traceback(ours):
    error = caught(lambda: list(DataLoader(ReadsAChangedFile(ours), num_workers=1)))
    assert "Traceback" in str(error)
    assert mistake(error) == ("there is no architecture file /no/such/file" if ours else None)


def test_a_run_that_failed_is_named_in_a_line(capsys):
    assert guarded(lambda: fail(WorkFailed("trial 3 stopped with exit code -9; see W/output.log"))) == 1
    assert capsys.readouterr().err == "error: trial 3 stopped with exit code -9; see W/output.log\n"


def test_ctrl_c_says_how_to_go_on(capsys):
    assert guarded(lambda: fail(KeyboardInterrupt()), stopped=RESUME) == 130
    assert "--resume" in capsys.readouterr().err
    assert guarded(lambda: fail(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "stopped\n"


@pytest.mark.parametrize(
    ("rank", "launcher", "printed"), [("1", "pytorch", ""), ("0", "pytorch", "done\n"), ("1", "none", "done\n")]
)
def test_only_the_first_process_says_the_result(capsys, monkeypatch, rank, launcher, printed):
    monkeypatch.setenv("RANK", rank)
    say({"launcher": launcher}, "done")
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize(
    ("holds", "says"), [(None, True), ("history.jsonl", True), ("trials", False), ("checkpoint.pth", False)]
)
def test_only_what_starts_at_the_beginning_is_said_to(tmp_path, capsys, holds, says):
    if holds is not None:
        (tmp_path / holds).mkdir()
    load(Namespace(config="configs/demo/digits_search.py", cfg_options=[], work_dir=str(tmp_path), resume=True))
    assert (f"{tmp_path} holds no checkpoint to go on from: starting at the beginning" in capsys.readouterr().err) == says
