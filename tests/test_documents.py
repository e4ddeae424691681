"""What README.md and CONTRIBUTING.md say: files exist, examples run."""

import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
# files that the walks in CONTRIBUTING.md tell the reader to make
EXAMPLES = {"backbones/plain_net.py", "search/strategies/sharp_darts.py"}


def expanded(text):
    """Shell braces: `a_{b,c}.py` -> a_b.py, a_c.py."""
    parts = re.split(r"\{([^{}]*)\}", text)
    options = [part.split(",") if i % 2 else [part] for i, part in enumerate(parts)]
    return {"".join(pieces) for pieces in itertools.product(*options)}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_file_that_is_named_exists(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    named = set(re.findall(r"(?<![\w/.])(?:search|backbones|tasks|configs|tools|tests|docs)/[\w/{},]+\.\w+", text))
    assert named or document == "CHANGELOG.md"
    paths = {path for name in named for path in expanded(name)} - EXAMPLES
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_nothing_is_left_to_fill_in(document):
    assert "TBD" not in (ROOT / document).read_text(encoding="utf-8")


def test_the_tree_lists_every_tool_and_part():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = text.split("## How it fits together")[1].split("```")[1]
    for path in (ROOT / "tools").glob("*.py"):
        assert path.name in tree
    for part in (ROOT / "search").iterdir():
        if part.name not in ("__pycache__", "__init__.py"):
            assert part.name in tree


def test_the_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for document in DOCUMENTS:
        for line in re.findall(r"`make ([a-z -]+)", (ROOT / document).read_text(encoding="utf-8")):
            for target in line.split():
                assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"make {target} in {document}"


def test_the_walks_of_contributing_run(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 3
    file = tmp_path / "test_walks.py"
    check = "\n\ndef test_strategy():\n    assert SharpDARTS(temperature=0.3).gate == Softmax(0.3)\n"
    file.write_text("\n".join(blocks) + check, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed and int(passed[1]) >= 9
