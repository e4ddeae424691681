import subprocess
import sys
from pathlib import Path

from search.space import load

ROOT = Path(__file__).resolve().parents[2]


def genotype(*args):
    return subprocess.run([sys.executable, ROOT / "tools/genotype.py", *args], capture_output=True, text=True)


def test_export_and_import_give_the_architecture_back(tmp_path):
    shipped = ROOT / "backbones/archs/darts_v2.json"
    printed = genotype(shipped)
    assert printed.returncode == 0 and printed.stdout.startswith("Genotype(normal=[('sep_conv_3x3', 0), ")
    (tmp_path / "found.txt").write_text(printed.stdout)
    assert genotype(tmp_path / "found.txt", "-o", tmp_path / "back.json").returncode == 0
    back, there = load(tmp_path / "back.json").parts["backbone"], load(shipped).parts["backbone"]
    assert back.architecture == there.architecture and back.fingerprint == there.fingerprint


def test_what_is_no_genotype_is_one_sentence(tmp_path):
    (tmp_path / "bad.txt").write_text("Genotype(normal=[('conv_9x9', 0), ('skip_connect', 1)], reduce=[])")
    done = genotype(tmp_path / "bad.txt", "-o", tmp_path / "back.json")
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1 and "conv_9x9" in done.stderr
    assert not (tmp_path / "back.json").exists()
