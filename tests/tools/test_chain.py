"""A chain of blocks, which has no cells, goes through all tools: searched, trained, tested, counted, exported."""

import json
from pathlib import Path

from search import space

ROOT = Path(__file__).resolve().parents[2]
BASES = ROOT / "configs" / "_base_"
MODEL = """
k3, k5 = dict(type='mbconv', expand=2), dict(type='mbconv', kernel=5, expand=2)
model = dict(
    type='search.ImageClassifier',
    backbone=dict(
        type='search.ChainNet',
        stem=dict(channels=4),
        stages=[
            dict(channels=8, stride=2, depth=(1, 2), ops=dict(k3=k3, k5=k5)),
            dict(channels=8, ops=dict(k3=k3, skip=dict(type='skip'))),
        ],
        last=dict(channels=16),
    ),
    num_classes=10,
)
train_cfg = dict(max_epochs=2)
"""


def config(path, *bases, **loaders):
    """A config of the chain on the folder's images."""
    names = [str(BASES / base) for base in ("runtime/default.py", *bases)]
    settings = "".join(f"{name} = dict(batch_size={size})\n" for name, size in loaders.items())
    path.write_text(f"_base_ = {names!r}\n{MODEL}{settings}")
    return path


def test_from_search_to_export(tool, images, tmp_path, one_thread, capsys):
    data = ("--cfg-options", f"data_root={images}")
    searching = ("data/folder_cpu_search.py", "strategy/darts.py", "schedule/cpu_search.py")
    search = config(tmp_path / "search.py", *searching, train_dataloader=8, arch_dataloader=8)
    found, trained = tmp_path / "found", tmp_path / "trained"
    assert tool("search")(search, "--work-dir", found, *data, "strategy.order=1") == 0
    arch = found / "architecture.json"
    assert {"s0/depth", "s1/b0"} <= set(space.load(arch).parts["backbone"].architecture)
    report = (found / "report.html").read_text()
    assert "<h3>Choices</h3>" in report and "s1/b0" in report
    # what explains drawings of cells
    assert "Dashed lines" not in report and "One chart for each edge" not in report

    training = config(
        tmp_path / "train.py", "data/folder_cpu_retrain.py", "schedule/cpu_retrain.py", train_dataloader=8, val_dataloader=8
    )
    assert tool("train")(training, "--arch", arch, "--work-dir", trained, *data) == 0
    assert tool("test")(training, trained / "checkpoint.pth", *data) == 0
    capsys.readouterr()
    assert tool("cost")("--config", training, arch, "--shape", 3, 16, 16, "--json") == 0
    counted = json.loads(capsys.readouterr().out)
    # a classifier of 10 classes there, of 3 in the data
    derived = json.loads((found / "summary.json").read_text())["derived"]
    assert counted["params"] - derived["params"] == 7 * 17
    net = tmp_path / "net.pt2"
    assert tool("export")(training, "--checkpoint", trained / "checkpoint.pth", "--format", "torch", "-o", net) == 0
