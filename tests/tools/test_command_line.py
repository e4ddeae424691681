import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageOps

from search import space
from search.engine.checkpoint import read_own
from search.engine.loops import ExactLoop

ROOT = Path(__file__).resolve().parents[2]


def history(work_dir):
    return [json.loads(line) for line in (work_dir / "history.jsonl").read_text().splitlines()]


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def outcome(work_dir):
    """All that a run computed."""
    saved = read_own(work_dir / "checkpoint.pth")
    loop = saved["visnas"]["loop"]
    arch = [loop.get("arch_params"), loop.get("arch_optimizer")]
    return [saved["state_dict"], saved["optimizer"], saved["param_schedulers"], arch]


def events(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (file,) = folder.glob("events.out.tfevents.*")
    found = EventAccumulator(str(file))
    found.Reload()
    return found


def interrupt_after(monkeypatch, epochs):
    """Ctrl-C right after the checkpoint of this epoch."""
    run = ExactLoop._run_epoch

    def run_epoch(loop):
        run(loop)
        if loop.epoch == epochs:
            raise KeyboardInterrupt

    monkeypatch.setattr(ExactLoop, "_run_epoch", run_epoch)


def test_a_search_leaves_everything_in_its_work_directory(searched):
    names = ["architecture.json", "summary.json", "report.html", "checkpoint.pth", "history.jsonl", "config.py"]
    assert all((searched / name).stat().st_size > 0 for name in names)
    assert {file.name for file in (searched / "splits").glob("*.txt")} >= {"weights.txt", "architecture.txt"}
    assert [line["phase"] for line in history(searched)] == ["freeze", "search"]
    assert space.load(searched / "architecture.json").provenance["strategy"]


def test_mmengine_s_visualisation_files(searched, trained):
    for work_dir in (searched, trained):
        (scalars,) = work_dir.rglob("vis_data/scalars.json")
        rows = [json.loads(line) for line in scalars.read_text().splitlines()]
        written = {round(row["epoch/train_loss"], 4) for row in rows if "epoch/train_loss" in row}
        assert written == {round(line["train_loss"], 4) for line in history(work_dir)}
        # an evaluation writes files of its own, in test/
        shown = events(scalars.parent).Scalars("epoch/train_loss")
        assert {round(scalar.value, 4) for scalar in shown} == written


def test_an_interrupted_search_resumes_to_the_same_result(tool, search_config, searched, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        interrupt_after(patch, 1)
        assert tool("search")(search_config, "--work-dir", tmp_path / "w", "--resume") == 130
    assert "holds no checkpoint" in capsys.readouterr().err
    assert not (tmp_path / "w" / "architecture.json").exists()
    command = (search_config, "--work-dir", tmp_path / "w", "--resume")

    torch.set_num_threads(2)
    try:
        assert tool("search")(*command) == 2
        assert "--allow-different-threads" in capsys.readouterr().err
    finally:
        torch.set_num_threads(1)
    assert tool("search")(*command) == 0
    assert same(outcome(tmp_path / "w"), outcome(searched))
    files = [space.load(place / "architecture.json") for place in (tmp_path / "w", searched)]
    assert files[0].parts == files[1].parts


def test_an_interrupted_training_resumes_to_the_same_result(tool, train_config, searched, trained, tmp_path, monkeypatch):
    command = (train_config, "--arch", searched / "architecture.json", "--work-dir", tmp_path / "w")
    with monkeypatch.context() as patch:
        interrupt_after(patch, 1)
        assert tool("train")(*command) == 130
    assert tool("train")(*command, "--resume") == 0
    assert same(outcome(tmp_path / "w"), outcome(trained))


def test_another_number_of_threads_goes_on_when_allowed(tool, train_config, searched, tmp_path, monkeypatch):
    command = (train_config, "--arch", searched / "architecture.json", "--work-dir", tmp_path / "w")
    with monkeypatch.context() as patch:
        interrupt_after(patch, 1)
        assert tool("train")(*command) == 130
    torch.set_num_threads(2)
    try:
        assert tool("train")(*command, "--resume", "--allow-different-threads") == 0
    finally:
        torch.set_num_threads(1)


def test_amp_runs_in_sixteen_bits(tool, search_config, train_config, searched, trained, tmp_path):
    assert tool("search")(search_config, "--work-dir", tmp_path / "s", "--amp") == 0
    arch = searched / "architecture.json"
    assert tool("train")(train_config, "--arch", arch, "--work-dir", tmp_path / "t", "--amp") == 0
    for work_dir, full in ((tmp_path / "s", searched), (tmp_path / "t", trained)):
        losses = [line["train_loss"] for line in history(work_dir)]
        exact = [line["train_loss"] for line in history(full)]
        assert losses != exact
        assert losses == pytest.approx(exact, rel=0.1)


def test_the_seed_changes_a_run_and_is_written_down(tool, train_config, searched, trained, tmp_path):
    arch = searched / "architecture.json"
    assert tool("train")(train_config, "--arch", arch, "--work-dir", tmp_path / "w", "--seed", 5) == 0
    assert json.loads((tmp_path / "w" / "summary.json").read_text())["seed"] == 5
    assert history(tmp_path / "w")[0]["train_loss"] != history(trained)[0]["train_loss"]


def test_the_learning_rate_scales_with_the_batch(tool, train_config, searched, trained, tmp_path):
    command = (train_config, "--arch", searched / "architecture.json", "--work-dir", tmp_path / "w")
    options = ("--cfg-options", "auto_scale_lr.base_batch_size=16", "train_cfg.max_epochs=1")
    assert tool("train")(*command, "--auto-scale-lr", *options) == 0
    assert history(tmp_path / "w")[0]["lr"] == pytest.approx(history(trained)[0]["lr"] / 2)


def test_inherited_weights_start_the_training(tool, search_config, train_config, tmp_path):
    whole = ("model.backbone.partial=1", "strategy.freeze_epochs=0", "train_cfg.max_epochs=1")
    search = tmp_path / "s"
    assert tool("search")(search_config, "--work-dir", search, "--cfg-options", *whole) == 0
    command = (train_config, "--arch", search / "architecture.json", "--work-dir", tmp_path / "w")
    # nothing moves, so that the checkpoint shows what the training started from
    still = ("optim_wrapper.optimizer.lr=0", "optim_wrapper.optimizer.weight_decay=0", "train_cfg.max_epochs=1")
    assert tool("train")(*command, "--inherit", search / "checkpoint.pth", "--cfg-options", *still) == 0
    wide = read_own(search / "checkpoint.pth")["state_dict"]
    narrow = read_own(tmp_path / "w" / "checkpoint.pth")["state_dict"]
    convolutions = [name for name, tensor in narrow.items() if tensor.dim() == 4]
    assert len(convolutions) > 10
    assert all(torch.equal(narrow[name], wide[name]) for name in convolutions)


def test_weights_of_partial_channels_are_not_inherited(tool, train_config, searched, tmp_path, capsys):
    command = (train_config, "--arch", searched / "architecture.json", "--work-dir", tmp_path / "w")
    assert tool("train")(*command, "--inherit", searched / "checkpoint.pth") == 2
    assert "partial=1" in capsys.readouterr().err


def launch(name, *argv):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [str(ROOT / "tools" / f"{name}.py"), *map(str, argv), "--launcher", "pytorch"]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.mark.slow
def test_two_processes(search_config, train_config, tmp_path):
    launch("search", search_config, "--work-dir", tmp_path / "s")
    saved = read_own(tmp_path / "s" / "checkpoint.pth")["visnas"]
    assert saved["world"] == 2
    assert [line["phase"] for line in history(tmp_path / "s")] == ["freeze", "search"]
    launch("train", train_config, "--arch", tmp_path / "s" / "architecture.json", "--work-dir", tmp_path / "t")
    assert read_own(tmp_path / "t" / "checkpoint.pth")["visnas"]["world"] == 2


def test_a_test_prints_the_score_and_writes_predictions(tool, train_config, trained, images, tmp_path, capsys):
    before = (trained / "config.py").read_text()
    out, shown = tmp_path / "new" / "out.json", tmp_path / "shown"
    test = (train_config, trained / "checkpoint.pth")
    assert tool("test")(*test, "--out", out, "--show-dir", shown) == 0
    top1 = float(re.search(r"^(?:\w+/)?top1: ([\d.]+)$", capsys.readouterr().out, re.MULTILINE)[1])
    written = json.loads(out.read_text())
    assert written["classes"] == ["cat", "dog", "owl"]
    rows = written["predictions"]
    assert [row["image"] for row in rows] == sorted(
        str(path.relative_to(images / "val")) for path in (images / "val").rglob("*.png")
    )
    right = [row["prediction"] == row["label"] == row["image"].split("/")[0] for row in rows]
    assert top1 == pytest.approx(100 * sum(right) / len(right), abs=1e-3)
    assert all(row["label"] == written["classes"][i // 4] for i, row in enumerate(rows))
    pictures = sorted(shown.iterdir())
    assert len(pictures) == 12
    assert sum(path.name.startswith("wrong-") for path in pictures) == 12 - sum(right)
    with Image.open(pictures[0]) as picture:
        assert picture.size == (160, 188)
    assert (trained / "config.py").read_text() == before


def test_tta_is_the_mean_over_mirror_images(tool, train_config, trained, images, tmp_path):
    mirrored = tmp_path / "mirrored"
    for path in images.rglob("*.png"):
        target = mirrored / path.relative_to(images)
        target.parent.mkdir(parents=True, exist_ok=True)
        ImageOps.mirror(Image.open(path)).save(target)
    scores = {}
    for name, options in (
        ("plain", ()),
        ("mirrored", ("--cfg-options", f"data_root={mirrored}")),
        ("tta", ("--tta",)),
    ):
        out = tmp_path / f"{name}.json"
        assert tool("test")(train_config, trained / "checkpoint.pth", "--out", out, *options) == 0
        scores[name] = torch.tensor([row["scores"] for row in json.loads(out.read_text())["predictions"]])
    assert not torch.allclose(scores["plain"], scores["mirrored"], atol=1e-3)
    assert torch.allclose(scores["tta"], (scores["plain"] + scores["mirrored"]) / 2, atol=1e-5)
