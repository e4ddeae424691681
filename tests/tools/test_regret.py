import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools.regret import main

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("VISNAS_DATA", ROOT.parent / "shared" / "data"))
MACRO = DATA / "nas-bench-macro_cifar10.json"


def small_table(path):
    """27 of the space's architectures: those whose last five layers are 0; accuracy = the first digits' value."""
    codes = [f"{a}{b}{c}00000" for a in range(3) for b in range(3) for c in range(3)]
    rows = {code: {"test_acc": [1.0] * 3, "mean_acc": float(code[:3]), "std": 0.0, "params": 1, "flops": 1} for code in codes}
    path.write_text(json.dumps(rows))
    return path


def test_a_table_with_holes_is_a_users_mistake(tmp_path, capsys):
    assert main([str(small_table(tmp_path / "t.json"))]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "no row" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("options", [["absent.json"], ["TABLE", "--seeds", "0"], ["TABLE", "--evaluations", "0"]])
def test_mistakes_have_one_sentence(tmp_path, capsys, options):
    table = small_table(tmp_path / "t.json")
    assert main([str(table) if option == "TABLE" else option for option in options]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.realdata
@pytest.mark.skipif(not MACRO.exists(), reason=f"{MACRO} is absent (set VISNAS_DATA)")
def test_ten_seeds_on_nas_bench_macro(tmp_path, capsys):
    command = [sys.executable, ROOT / "tools" / "regret.py", MACRO, "--json", "--evaluations", "50"]
    found = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    result = json.loads(found.stdout)
    assert len(result["regret"]) == 10 and len(result["mean"]) == 50
    assert result["mean"][49] == pytest.approx(sum(curve[49] for curve in result["regret"]) / 10)
    assert 0 <= result["mean"][49] < result["mean"][0]
    assert main([str(MACRO)]) == 0
    assert "200" in capsys.readouterr().out
