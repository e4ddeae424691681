from pathlib import Path

from search.space import load

ROOT = Path(__file__).resolve().parents[2]


def test_export_and_import_give_the_architecture_back(tool, tmp_path, capsys):
    genotype, shipped = tool("genotype"), ROOT / "backbones/archs/darts_v2.json"
    assert genotype(shipped) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("Genotype(normal=[('sep_conv_3x3', 0), ")
    (tmp_path / "found.txt").write_text(printed)
    assert genotype(tmp_path / "found.txt", "-o", tmp_path / "back.json") == 0
    back, there = load(tmp_path / "back.json").parts["backbone"], load(shipped).parts["backbone"]
    assert back.architecture == there.architecture and back.fingerprint == there.fingerprint


def test_what_is_no_genotype_is_one_sentence(tool, tmp_path, capsys):
    (tmp_path / "bad.txt").write_text("Genotype(normal=[('conv_9x9', 0), ('skip_connect', 1)], reduce=[])")
    assert tool("genotype")(tmp_path / "bad.txt", "-o", tmp_path / "back.json") == 2
    said = capsys.readouterr().err
    assert len(said.strip().splitlines()) == 1 and "conv_9x9" in said
    assert not (tmp_path / "back.json").exists()
