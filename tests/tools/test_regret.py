import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from backbones.merging_cell import Step
from backbones.nas_fpn import NASFPN, PUBLISHED, found_architecture
from tools.regret import CELL, COST, DOWN, GATED, LEVELS, UP, WANTED, information_flow, main, pyramid, steps_of

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("VISNAS_DATA", ROOT.parent / "shared" / "data"))
MACRO = DATA / "nas-bench-macro_cifar10.json"


def small_table(path):
    """27 of the space's architectures: those whose last five layers are 0; accuracy = the first digits' value."""
    codes = [f"{a}{b}{c}00000" for a in range(3) for b in range(3) for c in range(3)]
    rows = {code: {"test_acc": [1.0] * 3, "mean_acc": float(code[:3]), "std": 0.0, "params": 1, "flops": 1} for code in codes}
    path.write_text(json.dumps(rows))
    return path


def committed(name):
    """The figures that README names."""
    return json.loads((ROOT / "docs" / f"regret_{name}.json").read_text())


def test_a_table_with_holes_is_a_users_mistake(tmp_path, capsys):
    assert main([str(small_table(tmp_path / "t.json"))]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "no row" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "options",
    [["absent.json"], ["TABLE", "--seeds", "0"], ["TABLE", "--evaluations", "0"], ["TABLE", "--plot", "figure.png"]],
)
def test_mistakes_have_one_sentence(tmp_path, capsys, options):
    table = small_table(tmp_path / "t.json")
    assert main([str(table) if option == "TABLE" else option for option in options]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.skipif(not MACRO.exists(), reason=f"{MACRO} is absent (set VISNAS_DATA)")
def test_ten_seeds_on_nas_bench_macro(tmp_path):
    command = [sys.executable, ROOT / "tools" / "regret.py", MACRO, "--json"]
    command += ["--strategies", "random", "evolution", "ppo", "--plot", tmp_path / "regret.svg"]
    found = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    result = json.loads(found.stdout)
    kept = committed("nas_bench_macro")["strategies"]
    # a controller's last bits are the processor's
    assert all(result["strategies"][name]["curves"] == kept[name]["curves"] for name in ("random", "evolution"))
    by_chance, evolved, learned = (result["strategies"][name] for name in ("random", "evolution", "ppo"))
    assert len(by_chance["curves"]) == 10 and len(by_chance["mean"]) == 200
    assert by_chance["mean"][49] == pytest.approx(sum(curve[49] for curve in by_chance["curves"]) / 10, abs=1e-4)
    assert 0 <= by_chance["mean"][49] < by_chance["mean"][0]
    # its first population is drawn as random search draws
    assert [curve[:20] for curve in evolved["curves"]] == [curve[:20] for curve in by_chance["curves"]]
    for better in (evolved, learned):
        assert better["p"] < 0.01 and better["verdict"].startswith("better") and "p" not in by_chance
    drawing = (tmp_path / "regret.svg").read_text()
    assert "evolution" in drawing and "regret, mean_acc" in drawing


@pytest.mark.slow
def test_ten_seeds_on_the_pyramid(capsys):
    assert main(["pyramid", "--strategies", "random", "evolution", "ppo", "--evaluations", "300", "--json"]) == 0
    strategies = json.loads(capsys.readouterr().out)["strategies"]
    for name in ("evolution", "ppo"):
        assert len(strategies[name]["curves"]) == 10 and len(strategies[name]["mean"]) == 300
        assert strategies[name]["p"] < 0.01 and strategies[name]["verdict"].startswith("better")
    for name, row in committed("pyramid")["strategies"].items():
        # evolution and chance draw with Python's numbers alone; a controller's last bits are the processor's
        close = {"abs": 1e-4} if name != "ppo" else {"abs": 2.0}
        assert row["mean"] == pytest.approx(strategies[name]["mean"], **close)


@pytest.mark.slow
def test_the_pyramids_strategies_are_tested_against_chance(capsys):
    assert main(["pyramid", "--strategies", "random", "ppo", "evolution", "--evaluations", "40", "--seeds", "2"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "best score on pyramid: information flow, 2 seeds" in shown
    assert "ppo: lr=0.003, batch=10, entropy=0.01; against random at 40 evaluations: no difference shown" in shown


def test_information_flow_of_two_levels_by_hand():
    """Level 3 from a sum, level 4 from an attention by the first output, to which the unused input 4 is added."""
    steps = [Step(3, "sum", (0, 1)), Step(4, "attention", (2, 0), (1,))]
    fine = [CELL / 2, CELL * UP / 2]
    coarse = [CELL / 3 * (fine[0] + DOWN * GATED), CELL / 3 * (fine[1] + 1)]
    worth_fine = (fine[0] ** 0.5 + WANTED * fine[1] ** 0.5) / (1 + WANTED)
    worth_coarse = (WANTED * coarse[0] ** 0.5 + coarse[1] ** 0.5) / (1 + WANTED)
    expected = 100 * (worth_fine + worth_coarse) / 2 - COST - COST / 4
    assert information_flow(steps, (3, 4)) == pytest.approx(expected)
    # of a sum each operand is resampled
    by_sum = information_flow([steps[0], Step(4, "sum", (2, 0), (1,))], (3, 4))
    coarse = [CELL / 3 * DOWN * (fine[0] + 1), CELL / 3 * (DOWN * fine[1] + 1)]
    worth_coarse = (WANTED * coarse[0] ** 0.5 + coarse[1] ** 0.5) / (1 + WANTED)
    assert by_sum == pytest.approx(100 * (worth_fine + worth_coarse) / 2 - COST - COST / 4)


def test_the_steps_are_those_of_the_network():
    target, rng = pyramid(), random.Random(0)
    drawn = [target.space.sample(rng) for _ in range(20)]
    for architecture in [*drawn, target.space.canonical(found_architecture(PUBLISHED))]:
        assert steps_of(architecture) == NASFPN((4, 4, 4), channels=4, repeats=1, arch=architecture).steps


def test_the_published_pyramid_is_far_better_than_chance():
    """It was found for average precision, not for this formula."""
    target, rng = pyramid(), random.Random(0)
    published = target.score(target.space.canonical(found_architecture(PUBLISHED)))
    scores = sorted(target.score(target.space.sample(rng)) for _ in range(200))
    assert published > scores[100]
    assert len(LEVELS) == 5
