"""tools/export.py: what it writes is used without this project; a mistake is one sentence and leaves no file."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from PIL import Image

from search import export
from search.engine.checkpoint import read_own
from tools.export import pixels

ROOT = Path(__file__).resolve().parents[2]
# of the base config's validation images
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
SPEC = {"schema": "mobilenet_v1", "width_mult": 0.25, "num_classes": 7}


@pytest.fixture
def spec(tmp_path):
    path = tmp_path / "narrow.json"
    path.write_text(json.dumps(SPEC))
    return path


@pytest.fixture(scope="module")
def scores(tool, train_config, trained, images, tmp_path_factory):
    """What tools/test.py says of the test images: (images, normalised as the config says; the scores)."""
    out = tmp_path_factory.mktemp("scores") / "out.json"
    assert tool("test")(train_config, trained / "checkpoint.pth", "--out", out) == 0
    rows = json.loads(out.read_text())["predictions"]
    pixels = [np.asarray(Image.open(images / "val" / row["image"]).convert("RGB")) for row in rows]
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    values = (torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2) / 255 - mean) / std
    return values.contiguous(), torch.tensor([row["scores"] for row in rows])


def test_a_trained_network_as_onnx_gives_the_scores_of_the_test(tool, train_config, trained, scores, tmp_path, capsys):
    import onnxruntime

    out = tmp_path / "net.onnx"
    checkpoint = trained / "checkpoint.pth"
    arguments = (train_config, "--checkpoint", checkpoint, "--format", "onnx", "-o", out)
    assert tool("export")(*arguments, "--dynamic-batch", "--shape", 3, 16, 16) == 0
    assert "of their variation" in capsys.readouterr().out
    images, expected = scores
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"images": images.numpy()})
    torch.testing.assert_close(torch.from_numpy(logits).softmax(1), expected, rtol=0, atol=1e-5)
    notes = session.get_modelmeta().custom_metadata_map
    assert json.loads(notes["classes"]) == ["cat", "dog", "owl"]
    assert notes["pixels"].endswith(f"mean {MEAN}, std {STD}")
    assert notes["weights"] == f"of {checkpoint}" and notes["made by"].startswith("python tools/export.py ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.onnx"]


def test_a_trained_network_as_a_module_gives_the_scores_of_the_test(tool, train_config, trained, scores, tmp_path):
    out = tmp_path / "net.py"
    assert tool("export")(train_config, "--checkpoint", trained / "checkpoint.pth", "--format", "module", "-o", out) == 0
    images, expected = scores
    torch.save(images, tmp_path / "images.pt")
    program = """
import sys
for name in ("search", "backbones", "tasks", "mmengine", "mmcv"):
    sys.modules[name] = None
sys.path.insert(0, "")
import net, torch
with torch.no_grad():
    torch.save(net.load()(torch.load("images.pt")).softmax(1), "scores.pt")
network = net.Network()
network.load_state_dict(torch.load(sys.argv[1], weights_only=True)["state_dict"])
"""
    command = [sys.executable, "-I", "-c", program, trained / "checkpoint.pth"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    torch.testing.assert_close(torch.load(tmp_path / "scores.pt"), expected, rtol=0, atol=1e-6)
    source = out.read_text()
    # the size is the training's, from its summary
    assert "images: 3x16x16" in source and "sizes of images: any that the original takes" in source
    kept = torch.load(tmp_path / "net.pth", weights_only=True)
    state = read_own(trained / "checkpoint.pth")["state_dict"]
    assert kept.keys() == state.keys() and all(torch.equal(kept[name], state[name]) for name in kept)


def test_a_published_network_by_name_as_a_program(tool, tmp_path):
    out = tmp_path / "net.pt2"
    assert tool("export")("MobileNetV3 Small 1.0", "--shape", 3, 64, 64, "--format", "torch", "-o", out) == 0
    extra = {"notes.json": ""}
    program = torch.export.load(out, extra_files=extra)
    assert program.module()(torch.zeros(1, 3, 64, 64)).shape == (1, 1000)
    notes = json.loads(extra["notes.json"])
    assert notes["weights"] == "random" and notes["images"] == "3x64x64"
    assert int(notes["parameters"].replace(",", "")) == sum(p.numel() for p in program.parameters())


def test_a_detector_as_a_module_from_another_folder(tool, tmp_path, monkeypatch):
    pytest.importorskip("mmdet")
    options = ("--shape", "3", "64", "64", "--classes", "5", "--format", "module", "-o", "net.py")
    export = tool("export")
    monkeypatch.chdir(tmp_path)
    # as a runner of this process leaves it
    with DefaultScope.overwrite_default_scope("mmengine"):
        assert export("RetinaNet FNA", *options) == 0
    source = (tmp_path / "net.py").read_text()
    # class scores of nine anchors on five levels, then their boxes; not what becomes of them
    assert "Images [B, 3, 64, 64] -> [B, 45, 8, 8], [B, 45, 4, 4]" in source and "[B, 36, 8, 8]" in source


def test_a_model_s_own_preprocessor_is_noted():
    assert pixels({"model": {"type": "mmdet.RetinaNet"}}) == {}
    note = pixels({"model": {"data_preprocessor": {"type": "mmdet.DetDataPreprocessor", "mean": [123.7]}}})["pixels"]
    assert note == 'as this preprocessor leaves them: {"type": "mmdet.DetDataPreprocessor", "mean": [123.7]}'


def test_a_specification_and_a_plain_state_dict(tool, spec, tmp_path, capsys):
    first, second = tmp_path / "a.py", tmp_path / "b.py"
    options = ("--shape", 3, 32, 32, "--format", "module")
    assert tool("export")(spec, *options, "-o", first) == 0
    # the first one's weights are random, and the same every time
    assert tool("export")(spec, *options, "-o", second, "--checkpoint", first.with_suffix(".pth")) == 0
    one, two = (torch.load(path.with_suffix(".pth"), weights_only=True) for path in (first, second))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert one["head.weight"].shape[0] == 7
    assert tool("export")(spec, *options, "-o", second, "--classes", 3) == 0
    assert torch.load(second.with_suffix(".pth"), weights_only=True)["head.weight"].shape[0] == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("SPEC", "--format", "onnx", "-o", "net.pt2"), ".onnx"),
        (("SPEC", "--format", "onnx", "-o", "absent/net.onnx"), "no folder"),
        (("SPEC", "--format", "torch", "-o", "net.pt2"), "--shape"),
        (("SPEC", "--format", "torch", "-o", "net.pt2", "--shape", "3", "0", "8"), "--shape"),
        (("SPEC", "--format", "torch", "-o", "net.pt2", "--shape", "1", "32", "32"), "can't run on images of 1x32x32"),
        (("SPEC", "--format", "torch", "-o", "net.pt2", "--arch", "a.json"), "--arch"),
        (("SPEC", "--format", "module", "-o", "net.py", "--dynamic-batch"), "--dynamic-batch"),
        (("SPEC", "--format", "module", "-o", "net.py", "--classes", "1"), "--classes"),
        (("MobileNetV4", "--format", "module", "-o", "net.py"), "MobileNetV"),
        (("absent.py", "--format", "module", "-o", "net.py"), "absent.py"),
        (("absent.json", "--format", "module", "-o", "net.py"), "absent.json"),
        (("NEGATIVE", "--format", "module", "-o", "net.py", "--shape", "3", "32", "32"), "c_out=-32"),
        (("SPEC", "--format", "module", "-o", "FOLDER", "--shape", "3", "32", "32"), "can't be written"),
        (
            ("SPEC", "--checkpoint", "WEIGHTLESS", "--format", "module", "-o", "net.py", "--shape", "3", "32", "32"),
            "no weights",
        ),
        (("DARTS", "--format", "module", "-o", "net.py"), "holds 2 networks"),
        (("CONFIG", "--format", "module", "-o", "net.py"), "architecture"),
        (
            ("CONFIG", "--arch", "DARTS", "--format", "module", "-o", "net.py", "--classes", "3", "--shape", "3", "16", "16"),
            "space",
        ),
        (("CONFIG", "--arch", "FOUND", "--format", "module", "-o", "net.py"), "--classes"),
        (("CONFIG", "--arch", "FOUND", "--format", "module", "-o", "net.py", "--classes", "3"), "--shape"),
        (("CONFIG", "--checkpoint", "SEARCH", "--arch", "FOUND", "--format", "module", "-o", "net.py"), "supernet"),
        (("SPEC", "--checkpoint", "TRAINED", "--shape", "3", "32", "32", "--format", "module", "-o", "net.py"), "no weight"),
        (("CONFIG", "--checkpoint", "TRAINED", "--classes", "5", "--format", "module", "-o", "net.py"), "shape"),
        (("CONFIG", "--checkpoint", "absent.pth", "--format", "module", "-o", "net.py"), "absent.pth"),
    ],
)
def test_mistakes_have_one_sentence_and_leave_no_file(
    tool, spec, train_config, searched, trained, arguments, words, tmp_path, monkeypatch, capsys
):
    paths = {
        "SPEC": spec,
        "CONFIG": train_config,
        "FOUND": searched / "architecture.json",
        "SEARCH": searched / "checkpoint.pth",
        "TRAINED": trained / "checkpoint.pth",
        "NEGATIVE": tmp_path / "negative.json",
        "FOLDER": tmp_path / "folder.py",
        "WEIGHTLESS": tmp_path / "weightless.pth",
        "DARTS": ROOT / "backbones" / "archs" / "darts_v2.json",
    }
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "negative.json").write_text(json.dumps({**SPEC, "width_mult": -1}))
    torch.save({"state_dict": 3}, tmp_path / "weightless.pth")
    folder = tmp_path / "out"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert tool("export")(*(paths.get(argument, argument) for argument in arguments)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and words in error
    assert list(folder.iterdir()) == [] and not (tmp_path / "folder.pth").exists()


def test_a_checkpoint_is_never_written_over(tool, train_config, trained, capsys):
    checkpoint = trained / "checkpoint.pth"
    before = checkpoint.read_bytes()
    arguments = (train_config, "--checkpoint", checkpoint, "--format", "module", "-o", trained / "checkpoint.py")
    assert tool("export")(*arguments) == 2
    assert "choose another name" in capsys.readouterr().err
    assert checkpoint.read_bytes() == before


@pytest.mark.parametrize(("kind", "suffix", "name"), [("torch", ".pt2", "program_of"), ("module", ".py", "fill")])
def test_what_differs_is_not_written(tool, spec, tmp_path, monkeypatch, capsys, kind, suffix, name):
    if kind == "torch":
        monkeypatch.setattr(export, name, lambda data: lambda images: torch.ones(len(images), 7))
    else:
        monkeypatch.setattr(export, name, lambda network, model: {})
    out = tmp_path / f"net{suffix}"
    out.write_text("what was there before")
    assert tool("export")(spec, "--shape", 3, 32, 32, "--format", kind, "-o", out) == 2
    assert "nothing was written" in capsys.readouterr().err
    assert out.read_text() == "what was there before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["narrow.json", out.name]


def test_a_missing_package_names_the_extra(tool, spec, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert tool("export")(spec, "--shape", 3, 32, 32, "--format", "onnx", "-o", tmp_path / "net.onnx") == 2
    assert "visnas[export]" in capsys.readouterr().err
