import importlib.util
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs" / "classification"
CLASSES = ("cat", "dog", "owl")
# a step of these takes a tenth of a second
SEARCH = """
_base_ = {base!r}
data_root = {data!r}
pipeline = [
    dict(type='search.RandomCrop', size=16, padding=2),
    dict(type='search.RandomHorizontalFlip'),
    dict(type='search.Normalize', mean=[0.5, 0.5, 0.5], std=[0.25, 0.25, 0.25]),
]
model = dict(backbone=dict(channels=4, layers=3, nodes=2))
strategy = dict(freeze_epochs=1)
train_cfg = dict(max_epochs=2)
train_dataloader = dict(batch_size=8, dataset=dict(size=16, pipeline=pipeline))
arch_dataloader = dict(batch_size=8, dataset=dict(size=16, pipeline=pipeline))
val_dataloader = dict(dataset=dict(size=16))
test_dataloader = dict(dataset=dict(size=16))
visualizer = dict(vis_backends=[dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')])
"""
TRAIN = """
_base_ = {base!r}
data_root = {data!r}
pipeline = [
    dict(type='search.RandomCrop', size=16, padding=2),
    dict(type='search.RandomHorizontalFlip'),
    dict(type='search.Normalize', mean=[0.5, 0.5, 0.5], std=[0.25, 0.25, 0.25]),
]
model = dict(backbone=dict(channels=4, layers=3, nodes=2))
train_cfg = dict(max_epochs=2)
train_dataloader = dict(batch_size=8, num_batch_per_epoch=3, dataset=dict(size=16, pipeline=pipeline))
val_dataloader = dict(dataset=dict(size=16))
test_dataloader = dict(dataset=dict(size=16))
visualizer = dict(vis_backends=[dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')])
"""


def write_images(folder, train=14, val=4, classes=CLASSES, seed=0):
    """Noise around a brightness of its own for each class, brighter on the left."""
    rng = np.random.default_rng(seed)
    for part, count in (("train", train), ("val", val)):
        for label, name in enumerate(classes):
            place = folder / part / name
            place.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 120, (16, 16, 3)) + 40 * label
                pixels[:, :8] += 30
                Image.fromarray(pixels.astype("uint8")).save(place / f"{i:02d}.png")
    return folder


@pytest.fixture(scope="session")
def tool():
    """`tool("search")` is the main function of tools/search.py, run in this process."""

    def load(name):
        key = f"tool_{name}"
        if key not in sys.modules:
            spec = importlib.util.spec_from_file_location(key, ROOT / "tools" / f"{name}.py")
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            sys.modules[key] = module
        return lambda *argv: sys.modules[key].main([str(a) for a in argv])

    return load


@pytest.fixture
def found(tool, capsys):
    """`found(code, config, work_dir, options)` runs a search; what it says on standard error."""

    def run(code, config, work_dir, *options):
        assert tool("search")(config, "--work-dir", work_dir, *(("--cfg-options", *options) if options else ())) == code
        error = capsys.readouterr().err
        assert "Traceback" not in error
        return error

    return run


@pytest.fixture(scope="session")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A folder of their own for the embedded scenes."""
    before = os.environ.get("VISNAS_CACHE")
    os.environ["VISNAS_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield os.environ["VISNAS_CACHE"]
    if before is None:
        del os.environ["VISNAS_CACHE"]
    else:
        os.environ["VISNAS_CACHE"] = before


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="session")
def search_config(tmp_path_factory, images):
    path = tmp_path_factory.mktemp("configs") / "tiny_search.py"
    path.write_text(SEARCH.format(base=str(CONFIGS / "cells_pc_darts_folder_cpu.py"), data=str(images)))
    return path


@pytest.fixture(scope="session")
def train_config(tmp_path_factory, images):
    path = tmp_path_factory.mktemp("configs") / "tiny_train.py"
    path.write_text(TRAIN.format(base=str(CONFIGS / "cells_folder_cpu_retrain.py"), data=str(images)))
    return path


@pytest.fixture(scope="session")
def searched(tool, search_config, tmp_path_factory, one_thread):
    """The work directory of a finished search."""
    work_dir = tmp_path_factory.mktemp("search") / "work"
    assert tool("search")(search_config, "--work-dir", work_dir) == 0
    return work_dir


@pytest.fixture(scope="session")
def trained(tool, train_config, searched, tmp_path_factory):
    """The work directory of a finished training of what was searched."""
    work_dir = tmp_path_factory.mktemp("train") / "work"
    arch = searched / "architecture.json"
    assert tool("train")(train_config, "--arch", arch, "--work-dir", work_dir) == 0
    return work_dir
