"""Each mistake is one sentence on standard error and exit code 2, and nothing is lost."""

import os
import pickle
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest
import torch

from backbones.cell_net import CellNet
from search import space
from search.engine.checkpoint import read_own
from search.supernet import record

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def refused(tool, capfd):
    """Runs a tool in this process and gives its one sentence."""

    def run(name, *argv):
        capfd.readouterr()
        assert tool(name)(*argv) == 2
        captured = capfd.readouterr()
        lines = captured.err.strip().splitlines()
        assert [line for line in lines if line.startswith("error: ")] == lines[-1:]
        assert "Traceback" not in captured.err + captured.out
        return lines[-1].removeprefix("error: ")

    return run


def copy_of(images, folder, **changes):
    """A copy of the images without, or with another content of, some files: `changes` maps a name to bytes or None."""
    for path in images.rglob("*.png"):
        name = str(path.relative_to(images))
        if any(name.startswith(part) for part, content in changes.items() if content is None):
            continue
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(changes.get(name, path.read_bytes()))
    return folder


def test_missing_and_empty_data_folders(refused, search_config, train_config, searched, tmp_path):
    arch = searched / "architecture.json"
    (tmp_path / "empty" / "train").mkdir(parents=True)
    (tmp_path / "bare").mkdir()
    for data, words in (
        ("absent", "does not exist"),
        ("bare", "no folder 'train'"),
        ("empty", "no class folders"),
    ):
        option = ("--work-dir", tmp_path / "w", "--cfg-options", f"data_root={tmp_path / data}")
        for command in (("search", search_config), ("train", train_config, "--arch", arch)):
            sentence = refused(*command, *option)
            assert words in sentence
            assert str(tmp_path / data) in sentence


def test_a_class_without_images(refused, search_config, images, tmp_path):
    data = copy_of(images, tmp_path / "data", **{"train/dog/": None})
    (data / "train" / "dog").mkdir()
    sentence = refused("search", search_config, "--work-dir", tmp_path / "w", "--cfg-options", f"data_root={data}")
    assert str(data / "train" / "dog") in sentence
    assert "no image" in sentence


def test_train_and_val_classes_that_differ(refused, search_config, images, tmp_path):
    data = copy_of(images, tmp_path / "data", **{"val/dog/": None})
    sentence = refused("search", search_config, "--work-dir", tmp_path / "w", "--cfg-options", f"data_root={data}")
    assert str(data / "val") in sentence
    assert "'dog'" in sentence


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_or_truncated_image_is_named(refused, search_config, images, tmp_path, workers):
    whole = (images / "train" / "owl" / "00.png").read_bytes()
    for content in (b"not an image", whole[: len(whole) // 2]):
        changes = {f"train/owl/{i:02d}.png": content for i in range(14)}
        data = copy_of(images, tmp_path / f"data{len(content)}", **changes)
        options = [f"data_root={data}", f"train_dataloader.num_workers={workers}"]
        sentence = refused("search", search_config, "--work-dir", tmp_path / f"w{len(content)}", "--cfg-options", *options)
        assert str(data / "train" / "owl") in sentence
        assert ".png" in sentence


@pytest.mark.parametrize("workers", [0, 1])
def test_a_crop_larger_than_the_images(refused, search_config, tmp_path, workers):
    options = ["train_dataloader.dataset.pipeline.0.size=64", f"train_dataloader.num_workers={workers}"]
    sentence = refused("search", search_config, "--work-dir", tmp_path / "w", "--cfg-options", *options)
    assert "RandomCrop" in sentence
    assert "(3, 16, 16)" in sentence


def test_unknown_keys_and_types(refused, search_config, tmp_path):
    for option, words in (
        ("modle.backbone.channels=4", "'model'"),
        ("model.backbone.chanels=4", "'channels'"),
        ("model.backbone.type=search.CelNet", "'search.CellNet'"),
        ("strategy.type=PCDART", "'PCDARTS'"),
        ("train_dataloader.dataset.type=search.ImageFoldr", "'search.ImageFolder'"),
        ("train_cfg.type=search.BilevelLop", "'search.BilevelLoop'"),
        ("train_cfg.max_epoch=4", "'max_epochs'"),
        ("task=clasification", "'classification'"),
    ):
        sentence = refused("search", search_config, "--work-dir", tmp_path / "w", "--cfg-options", option)
        assert words in sentence
    assert not (tmp_path / "w").exists()


def test_a_missing_config_and_missing_architectures(refused, train_config, tmp_path):
    assert "nothere.py" in refused("search", tmp_path / "nothere.py")
    work = ("--work-dir", tmp_path / "w")
    assert "give --arch" in refused("train", train_config, *work)
    assert "nothere.json" in refused("train", train_config, "--arch", tmp_path / "nothere.json", *work)


def test_an_architecture_of_another_space(refused, train_config, tmp_path):
    other = record(lambda: CellNet(channels=4, layers=3, nodes=3)).parts["backbone"]
    space.save(tmp_path / "other.json", {"backbone": (other, other.at(0))}, {})
    sentence = refused("train", train_config, "--arch", tmp_path / "other.json", "--work-dir", tmp_path / "w")
    assert "another space" in sentence
    assert "n4" in sentence


class Harmful:
    def __reduce__(self):
        return (os.mkdir, (str(self.place),))

    def __init__(self, place):
        self.place = place


@pytest.fixture
def bad_checkpoints(searched, trained, tmp_path):
    """(name, words of the sentence) of files that are no good checkpoints."""
    whole = (trained / "checkpoint.pth").read_bytes()
    (tmp_path / "torn.pth").write_bytes(whole[: len(whole) // 2])
    flipped = bytearray(whole)
    flipped[:4] = b"oops"
    (tmp_path / "noise.pth").write_bytes(bytes(flipped[:2000]))
    torch.save({"state_dict": {}, "x": Harmful(tmp_path / "harm")}, tmp_path / "harm.pth")
    with open(tmp_path / "plain.pth", "wb") as file:
        pickle.dump({"x": Harmful(tmp_path / "harm")}, file)
    with zipfile.ZipFile(tmp_path / "zip.pth", "w") as file:
        file.writestr("readme", "no checkpoint")
    return {
        "absent.pth": "no checkpoint",
        "torn.pth": "damaged",
        "noise.pth": "damaged",
        "zip.pth": "damaged",
        "plain.pth": "damaged",
        "harm.pth": "could run code",
    }


def test_checkpoints_that_cannot_be_read(refused, search_config, train_config, searched, bad_checkpoints, tmp_path):
    arch = searched / "architecture.json"
    for name, words in bad_checkpoints.items():
        path = tmp_path / name
        for command in (
            ("test", train_config, path, "--arch", arch),
            ("train", train_config, "--arch", arch, "--inherit", path, "--work-dir", tmp_path / "t" / name),
        ):
            sentence = refused(*command)
            assert words in sentence
            assert name in sentence
        if path.exists():
            work = tmp_path / "s" / name
            work.mkdir(parents=True)
            (work / "checkpoint.pth").write_bytes(path.read_bytes())
            assert words in refused("search", search_config, "--work-dir", work, "--resume")
            assert (work / "checkpoint.pth").read_bytes() == path.read_bytes()
    assert not (tmp_path / "harm").exists()


def test_a_checkpoint_of_another_config(refused, search_config, train_config, searched, trained, tmp_path):
    before = (searched / "checkpoint.pth").read_bytes(), (searched / "history.jsonl").read_bytes()
    command = ("search", search_config, "--work-dir", searched, "--resume", "--cfg-options")
    assert "optim_wrapper.optimizer.lr" in refused(*command, "optim_wrapper.optimizer.lr=0.5")
    assert before == ((searched / "checkpoint.pth").read_bytes(), (searched / "history.jsonl").read_bytes())
    wide = ("test", train_config, trained / "checkpoint.pth", "--cfg-options", "model.backbone.channels=8")
    assert "doesn't fit" in refused(*wide)
    more = ("test", train_config, trained / "checkpoint.pth", "--cfg-options", "model.backbone.layers=5")
    assert "doesn't fit" in refused(*more)


def test_a_work_directory_that_holds_another_run(refused, search_config, train_config, searched, trained):
    def content():
        files = [path for place in (searched, trained) for path in place.rglob("*") if path.is_file()]
        return {path: path.read_bytes() for path in files}

    before = content()
    arch = searched / "architecture.json"
    for command in (
        ("search", search_config, "--work-dir", searched),
        ("search", search_config, "--work-dir", searched, "--cfg-options", "train_cfg.max_epochs=3"),
        ("search", search_config, "--work-dir", trained),
        ("train", train_config, "--arch", arch, "--work-dir", searched),
        ("train", train_config, "--arch", arch, "--work-dir", trained),
    ):
        assert "already holds" in refused(*command)
    assert "search" in refused("train", train_config, "--arch", arch, "--work-dir", searched, "--resume")
    assert content() == before


FULL_DISK = """
import resource, sys
sys.path.insert(0, {root!r})
import torch
torch.set_num_threads(1)
from search.engine import checkpoint
from tools_search import main

write = checkpoint.write
def write_then_fill(path, content):
    write(path, content)
    # from the first checkpoint on no file may grow beyond this
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, resource.RLIM_INFINITY))
checkpoint.write = write_then_fill
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_full_disk_leaves_the_last_checkpoint(tool, search_config, searched, tmp_path):
    (tmp_path / "tools_search.py").write_text((ROOT / "tools" / "search.py").read_text())
    script = tmp_path / "full.py"
    script.write_text(textwrap.dedent(FULL_DISK.format(root=str(ROOT))))
    command = [sys.executable, str(script), str(search_config), "--work-dir", str(tmp_path / "w")]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr[-3000:]
    lines = done.stderr.strip().splitlines()
    assert lines[-1].startswith("error: ")
    assert "largest size" in lines[-1]
    assert "Traceback" not in done.stderr
    saved = read_own(tmp_path / "w" / "checkpoint.pth")
    assert saved["visnas"]["loop"]["epoch"] == 1
    assert not list((tmp_path / "w").glob(".*.tmp"))
    assert tool("search")(search_config, "--work-dir", tmp_path / "w", "--resume") == 0
    ours, theirs = (space.load(place / "architecture.json").parts for place in (tmp_path / "w", searched))
    assert ours == theirs
