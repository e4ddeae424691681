import itertools
import json
import random
import re
import runpy
from html.parser import HTMLParser
from pathlib import Path

import pytest

from search.report import write
from search.space import OneOf, Ordinal, SomeOf, Space, save

ROOT = Path(__file__).resolve().parents[3]
VOID = {"meta", "link", "br", "img", "input", "hr"}


class Balance(HTMLParser):
    """Every element closed in order; keeps the references and the text."""

    def __init__(self):
        super().__init__()
        self.open, self.references, self.text = [], [], []

    def handle_starttag(self, tag, attributes):
        if tag not in VOID:
            self.open.append(tag)
        self.references += [value for key, value in attributes if key in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read_page(path):
    parser = Balance()
    parser.feed(path.read_text(encoding="utf-8"))
    parser.close()
    assert not parser.open
    return parser, re.sub(r"\s+", " ", " ".join(parser.text))


@pytest.fixture(scope="module")
def page(work_dir):
    return write(work_dir)


def small_work_dir(folder):
    """A search small enough to be drawn many times: one node, two operations and a width."""
    space = Space(
        "small",
        [
            SomeOf("c/n2/inputs", (0, 1), 1),
            OneOf("c/n2<-0", ("skip", "conv"), when=(("c/n2/inputs", 0),)),
            OneOf("c/n2<-1", ("skip", "conv"), when=(("c/n2/inputs", 1),)),
            Ordinal("width", (16, 32)),
        ],
    )
    architecture = space.sample(random.Random(0))
    row = {
        "epoch": 1,
        "phase": "freeze",
        "train_loss": 1.0,
        "arch_loss": 1.1,
        "score": {"supernet": 50.0, "derived": 40.0},
        "gap": 10.0,
        "skip_share": 0.5,
        "entropy": 0.9,
        "lr": 0.1,
        "seconds": 2.0,
        "images_per_second": 100.0,
        "peak_memory_mib": 10.0,
        "probabilities": {"c/n2/inputs": [0.5, 0.5], "c/n2<-0": [0.4, 0.6], "width": [0.3, 0.7]},
        "architecture": architecture.to_json(),
        "warning": "skips",
    }
    summary = {
        "task": "classification",
        "strategy": "pc_darts",
        "seed": 0,
        "versions": {"torch": "2"},
        "seconds": 3.0,
        "peak_memory_mib": 10.0,
        "supernet": {"params": 10},
        "derived": {"params": 5, "macs": 7, "input_size": [3, 8, 8], "convention": "x", "score_supernet": 40.0},
        "random": [{"architecture": {}, "params": 4, "macs": 6, "score_supernet": 30.0}],
        "space": {"size": space.size, "fingerprint": space.fingerprint},
    }
    compare = {
        "protocol": {"seeds": [0]},
        "runs": [{"group": "a", "seed": 0, "params": 1, "macs": 2, "validation": 3.0, "test": 4.0}],
        "groups": {"a": {"n": 1, "mean": 4.0, "std": None}},
        "tests": [{"a": "a", "b": "b", "u": 1.0, "p": 0.5, "verdict": "no difference shown"}],
    }
    folder.mkdir()
    (folder / "history.jsonl").write_text("".join(json.dumps({**row, "epoch": i}) + "\n" for i in (1, 2)))
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "compare.json").write_text(json.dumps(compare))
    save(folder / "architecture.json", {"neck": (space, architecture)}, {"seed": 0})
    return folder


def test_the_page_holds_every_section(work_dir):
    _page, text = read_page(write(work_dir))
    for heading in ("The derived architecture", "Epoch by epoch", "Discretisation gap", "Skip share and entropy",
                    "Probabilities over time", "Costs, beside random architectures", "Comparison after retraining",
                    "Settings, versions, time and memory"):  # fmt: skip
        assert heading in text
    assert "3.35 M" in text and "528.36 M" in text and "51 min 15 s" in text
    assert "SHA-256 " + "ab" * 32 in text
    assert "no difference shown" in text
    assert "Left out" not in text and "Note:" not in text


def test_the_page_asks_the_network_for_nothing(page):
    parser, _ = read_page(page)
    assert parser.references and all(reference.startswith("#") for reference in parser.references)
    html = page.read_text(encoding="utf-8")
    assert not re.search(r"@import|<script|<link|<img|url\((?!#)", html)
    namespaces = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert set(re.findall(r"https?://[^\s\"'<)]+", html)) <= namespaces


def test_the_same_files_give_the_same_page(page, work_dir):
    before = page.read_bytes()
    assert write(work_dir).read_bytes() == before
    assert not list(work_dir.glob(".report*"))


def test_no_two_elements_share_an_id(page):
    ids = re.findall(r'\bid="([^"]+)"', page.read_text(encoding="utf-8"))
    assert len(ids) == len(set(ids))


def test_what_files_say_is_shown_not_run(tmp_path):
    folder = small_work_dir(tmp_path / "w")
    summary = json.loads((folder / "summary.json").read_text())
    summary["strategy"] = "<script>alert(1)</script>"
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "config.py").write_text("x = '</pre><script>alert(2)</script>'")
    assert "<script" not in write(folder).read_text(encoding="utf-8")


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no work directory"):
        write(tmp_path / "nothing")
    with pytest.raises(ValueError, match="nothing to report"):
        write(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_a_half_written_last_line_is_noted(tmp_path):
    folder = small_work_dir(tmp_path / "w")
    with (folder / "history.jsonl").open("a") as file:
        file.write('{"epoch": 3, "phase": "sea')
    _, text = read_page(write(folder))
    assert "the last line of history.jsonl can't be read" in text
    assert "2 epochs" in text


@pytest.mark.parametrize("name", ["history.jsonl", "summary.json", "architecture.json", "compare.json"])
def test_each_file_may_be_missing_or_cut(tmp_path, name):
    folder = small_work_dir(tmp_path / "w")
    whole = (folder / name).read_bytes()
    (folder / name).unlink()
    read_page(write(folder))
    for part in range(5):
        (folder / name).write_bytes(whole[: len(whole) * part // 5])
        _, text = read_page(write(folder))
        assert name in text or "the architecture is left out" in text


BAD = [None, "x", -1, [1, "x"], {}, True, float("nan")]


@pytest.mark.parametrize("bad", BAD)
def test_a_value_of_another_kind_in_the_history_stops_nothing(tmp_path, bad):
    folder = small_work_dir(tmp_path / "w")
    row = json.loads((folder / "history.jsonl").read_text().splitlines()[0])
    lines = [{**row, key: bad} for key in row] + [{k: v for k, v in row.items() if k != key} for key in row]
    (folder / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    read_page(write(folder))
    (folder / "history.jsonl").write_text(json.dumps({**dict.fromkeys(row, bad), "epoch": 1}) + "\n")
    read_page(write(folder))


@pytest.mark.parametrize("name", [pytest.param("summary.json", marks=pytest.mark.slow), "compare.json"])
def test_a_value_of_another_kind_in_a_summary_stops_nothing(tmp_path, name):
    small = small_work_dir(tmp_path / "small")
    whole = json.loads((small / name).read_text())
    for key, bad in itertools.product(whole, BAD):
        (tmp_path / name).write_text(json.dumps({**whole, key: bad}))
        read_page(write(tmp_path))
    for key, value in whole.items():
        rows = value if isinstance(value, list) else [value]
        for row, bad in itertools.product((row for row in rows if isinstance(row, dict)), BAD):
            changed = dict.fromkeys(row, bad)
            (tmp_path / name).write_text(json.dumps({**whole, key: [changed] if isinstance(value, list) else changed}))
            read_page(write(tmp_path))


def test_a_training_alone_is_reported(tmp_path):
    row = {"epoch": 1, "phase": "train", "train_loss": 2.0, "score": {"validation": 61.5}, "seconds": 1.0}
    (tmp_path / "history.jsonl").write_text(json.dumps(row) + "\n")
    _, text = read_page(write(tmp_path))
    assert "Training" in text and "61.5" in text
    assert "The derived architecture" not in text


def test_a_comparison_alone_is_reported(work_dir, tmp_path):
    (tmp_path / "compare.json").write_text((work_dir / "compare.json").read_text())
    _, text = read_page(write(tmp_path))
    assert "Comparison of searches" in text and "Left out" not in text
    # in the order of the heads: a, b, verdict, U, p
    assert "PC-DARTS random better (p=0.048) 17.00 0.0476" in text


def test_choices_outside_cells_are_tabled_and_charted(tmp_path):
    _, text = read_page(write(small_work_dir(tmp_path / "w")))
    assert "Other choices" in text and "width" in text


def test_draw_writes_a_figure_and_refuses_mistakes(work_dir, tmp_path, capsys):
    main = runpy.run_path(str(ROOT / "tools" / "draw.py"))["main"]
    architecture = str(work_dir / "architecture.json")
    assert main([architecture, "-o", str(tmp_path / "cell.svg")]) == 0
    assert (tmp_path / "cell.svg").read_text().count("sep conv 3×3") == 5
    for arguments, sentence in (
        ([architecture, "-o", "cell.png"], "must end in .svg"),
        ([architecture, "-o", "cell.svg", "--part", "neck"], "no part 'neck'; it has backbone"),
        ([architecture, "-o", "cell.svg", "--cell", "norm"], "no cell 'norm'"),
        ([str(tmp_path / "no.json"), "-o", "cell.svg"], "no.json"),
        ([architecture, "-o", str(tmp_path / "no" / "cell.svg")], "No such file"),
    ):
        capsys.readouterr()
        assert main(arguments) == 2
        assert sentence in capsys.readouterr().err
