"""Work directories as the tools leave them, with made-up but plausible numbers, for the report's tests."""

import json
import math
import random

import pytest

from search.space import Architecture, OneOf, SomeOf, Space, save

OPERATIONS = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
# DARTS_V2 of quark0/darts: per node, (operation, source) twice
PUBLISHED = {
    "normal": [
        [("sep_conv_3x3", 0), ("sep_conv_3x3", 1)],
        [("sep_conv_3x3", 0), ("sep_conv_3x3", 1)],
        [("sep_conv_3x3", 1), ("skip_connect", 0)],
        [("skip_connect", 0), ("dil_conv_3x3", 2)],
    ],
    "reduce": [
        [("max_pool_3x3", 0), ("max_pool_3x3", 1)],
        [("skip_connect", 2), ("max_pool_3x3", 1)],
        [("max_pool_3x3", 0), ("skip_connect", 2)],
        [("skip_connect", 2), ("max_pool_3x3", 1)],
    ],
}

SPLITS = {
    "settings": {"seed": 0},
    "files": {
        "weights": {"count": 646, "sha256": "ab" * 32},
        "architecture": {"count": 646, "sha256": "cd" * 32},
        "validation": {"count": 144, "sha256": "ef" * 32},
    },
}


def make_space() -> Space:
    choices = []
    for cell in ("normal", "reduce"):
        for node in range(2, 6):
            inputs = f"{cell}/n{node}/inputs"
            choices.append(SomeOf(inputs, tuple(range(node)), k=2))
            choices += [
                OneOf(f"{cell}/n{node}<-{i}", OPERATIONS, when=((inputs, i),), relax_only=("none",)) for i in range(node)
            ]
    return Space("darts", choices)


def make_architecture() -> Architecture:
    choices = {}
    for cell, nodes in PUBLISHED.items():
        for node, edges in enumerate(nodes, 2):
            choices[f"{cell}/n{node}/inputs"] = tuple(sorted(source for _, source in edges))
            choices |= {f"{cell}/n{node}<-{source}": operation for operation, source in edges}
    return Architecture(choices)


def make_history(space: Space, architecture: Architecture, epochs: int = 50, freeze: int = 15) -> list[dict]:
    """A PC-DARTS search: frozen logits first, then a drift towards `architecture` with noise."""
    rng = random.Random(0)
    logits = {c.name: [rng.gauss(0, 0.05) for _ in c.options] for c in space}
    pace = {c.name: rng.uniform(0.02, 0.09) for c in space}
    rows = []
    for epoch in range(1, epochs + 1):
        for choice in space:
            if epoch > freeze:
                chosen = architecture.get(choice.name, "skip_connect")
                for i, option in enumerate(choice.options):
                    right = option in chosen if isinstance(chosen, tuple) else option == chosen
                    logits[choice.name][i] += (pace[choice.name] if right else 0) + rng.gauss(0, 0.02)
        probabilities = {}
        for name, values in logits.items():
            total = sum(math.exp(value) for value in values)
            probabilities[name] = [math.exp(value) / total for value in values]
        progress = epoch / epochs
        supernet = 92 - 70 * math.exp(-4 * progress) + rng.gauss(0, 0.8)
        derived = supernet - 25 * (1 - progress) - 4 + rng.gauss(0, 2)
        rows.append(
            {
                "epoch": epoch,
                "phase": "freeze" if epoch <= freeze else "search",
                "train_loss": 2.3 * math.exp(-2.2 * progress) + rng.gauss(0, 0.02),
                "arch_loss": None if epoch <= freeze else 2.3 * math.exp(-1.9 * progress) + rng.gauss(0, 0.04),
                "score": {"supernet": supernet, "derived": derived},
                "gap": supernet - derived,
                "skip_share": 0.125 * round(1 + 3 * progress),
                "entropy": 0.99 - 0.6 * max(0, progress - 0.3),
                "lr": 0.05 * (1 + math.cos(math.pi * progress)),
                "seconds": 61.5 + rng.gauss(0, 1),
                "images_per_second": 366.0 + rng.gauss(0, 6),
                "peak_memory_mib": 1379.4,
                "probabilities": probabilities,
                "architecture": architecture.to_json(),
                "warning": None,
            }
        )
    return rows


def make_summary(space: Space, architecture: Architecture) -> dict:
    rng = random.Random(1)
    return {
        "task": "classification",
        "strategy": "pc_darts",
        "seed": 0,
        "config": "configs/classification/cells_pc_darts_cifar10.py",
        "versions": {"visnas": "0.1.0", "python": "3.11.2", "torch": "2.14.1", "onedl-mmengine": "0.10.12"},
        "hardware": "2 cores, no CUDA device",
        "threads": 1,
        "seconds": 3075.2,
        "peak_memory_mib": 1379.4,
        "epochs": 50,
        "supernet": {"params": 299578},
        "derived": {
            "params": 3349342,
            "macs": 528360000,
            "input_size": [3, 32, 32],
            "convention": "macs",
            "counted": "one multiply-add counts one; convolutions and linear layers; no auxiliary head",
            "score_supernet": 85.31,
        },
        "random": [
            {
                "architecture": space.sample(rng).to_json(),
                "params": rng.randrange(2_400_000, 4_200_000),
                "macs": rng.randrange(380_000_000, 690_000_000),
                "score_supernet": rng.uniform(55, 82),
            }
            for _ in range(6)
        ],
        "space": {"size": space.size, "fingerprint": space.fingerprint},
    }


def make_compare() -> dict:
    rng = random.Random(2)
    means = {"PC-DARTS": 86.4, "DARTS": 85.1, "random": 84.9, "random search": 85.8}
    sizes = {"PC-DARTS": 3, "DARTS": 3, "random": 6, "random search": 3}
    runs, groups = [], {}
    for name, mean in means.items():
        values = [mean + rng.gauss(0, 0.5) for _ in range(sizes[name])]
        runs += [
            {
                "group": name,
                "seed": seed,
                "architecture": f"{name}-{seed}/architecture.json",
                "params": rng.randrange(240_000, 420_000),
                "macs": rng.randrange(38_000_000, 69_000_000),
                "validation": value + 0.3,
                "test": value,
                "search_seconds": 0 if name == "random" else rng.uniform(900, 1100),
                "train_seconds": rng.uniform(500, 700),
            }
            for seed, value in enumerate(values)
        ]
        spread = math.sqrt(sum((v - sum(values) / len(values)) ** 2 for v in values) / (len(values) - 1))
        groups[name] = {"n": len(values), "mean": sum(values) / len(values), "std": spread}
    return {
        "protocol": {"search": "3 seeds", "retrain": {"epochs": 20, "channels": 16}, "validation": "selects"},
        "runs": runs,
        "groups": groups,
        "tests": [
            {"a": "PC-DARTS", "b": "random", "u": 17.0, "p": 0.0476, "verdict": "better (p=0.048)"},
            {"a": "DARTS", "b": "random", "u": 10.0, "p": 0.905, "verdict": "no difference shown"},
        ],
    }


@pytest.fixture
def space():
    return make_space()


@pytest.fixture
def architecture():
    return make_architecture()


@pytest.fixture(scope="module")
def work_dir(tmp_path_factory):
    """A finished search of 12 epochs with a comparison beside it."""
    folder = tmp_path_factory.mktemp("search") / "pc_darts"
    space, architecture = make_space(), make_architecture()
    (folder / "splits").mkdir(parents=True)
    history = make_history(space, architecture, epochs=12, freeze=4)
    (folder / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in history))
    (folder / "summary.json").write_text(json.dumps(make_summary(space, architecture)))
    (folder / "compare.json").write_text(json.dumps(make_compare()))
    (folder / "config.py").write_text("task = 'classification'\nmodel = dict(type='search.ImageClassifier')\n")
    (folder / "splits" / "splits.json").write_text(json.dumps(SPLITS))
    provenance = {"strategy": "pc_darts", "seed": 0, "score": 85.31, "commit": "0123abc"}
    save(folder / "architecture.json", {"backbone": (space, architecture)}, provenance)
    return folder
