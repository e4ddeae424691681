"""Does gradient search find an architecture that was planted? A test of the search, not of an architecture.

A 2-node cell with 4 operations on each of its 5 edges. For each planted choice of operations, a teacher is the supernet with
gates of 0 and 1; a supernet is fitted to the teacher's outputs on scikit-learn's digits (regression). Found is the operation
with the largest logit on each edge. Two settings:
- shared: teacher and supernet share their weights, so only the logits are unknown;
- learned: the supernet has weights of its own, trained by DARTS (first order, halves of the images for weights and logits).

The p-value is of a permutation test: how often planted and found cells, paired at random, agree on at least as many edges.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

if __name__ == "__main__":
    # the folder of this script comes first on the path, where search.py would hide the package of that name
    sys.path[0] = str(Path(__file__).resolve().parents[1])

OPERATIONS = ("max_pool_3x3", "skip_connect", "sep_conv_3x3", "dil_conv_5x5")


def build_parser() -> argparse.ArgumentParser:
    """The command line; nothing slow is imported before it has been read."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architectures", type=int, default=10, help="how many cells to plant (default 10)")
    parser.add_argument("--steps", type=int, default=150, help="steps of each fit (default 150)")
    parser.add_argument("--setting", choices=("shared", "learned", "both"), default="both")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool and return its exit code."""
    args = build_parser().parse_args(argv)
    from search.engine import command

    return command.guarded(lambda: plant(args))


def plant(args: argparse.Namespace) -> int:
    """Run the settings and print one line per planted cell, the shares and the p-values."""
    from search.engine.data import require_seed
    from search.engine.errors import whole_number

    # a single cell can't be paired with another
    whole_number("--architectures", args.architectures, least=2)
    whole_number("--steps", args.steps)
    require_seed("--seed", args.seed)
    settings = ("shared", "learned") if args.setting == "both" else (args.setting,)
    report = {name: run(name, args.architectures, args.steps, args.seed) for name in settings}
    if args.json:
        print(json.dumps(report, indent=1))
        return 0
    for name, result in report.items():
        print(f"\n{name} weights: planted -> found, edge by edge")
        for planted, found in zip(result["planted"], result["found"], strict=True):
            print("  " + "  ".join(f"{p}{'=' if p == f else ' -> ' + f}" for p, f in zip(planted, found, strict=True)))
        print(f"  {result['matches']} of {result['edges']} edges found; permuted pairings: p = {result['p']:.5f}")
    return 0


def run(setting: str, architectures: int, steps: int, seed: int) -> dict:
    """Plant, fit, compare. Returns planted and found operations per cell, matches, edges and p."""
    import torch

    rng = random.Random(seed)
    planted, found = [], []
    for index in range(architectures):
        torch.manual_seed(1000 * seed + index)
        cell, answer = plant_and_search(rng, setting, steps, seed=1000 * seed + index)
        planted.append(cell)
        found.append(answer)
    matches = agreement(planted, found)
    return {
        "planted": planted,
        "found": found,
        "matches": matches,
        "edges": sum(map(len, planted)),
        "p": permutation_p(planted, found, rng),
        "steps": steps,
        "seed": seed,
    }


def plant_and_search(rng: random.Random, setting: str, steps: int, seed: int) -> tuple[list[str], list[str]]:
    """One planted cell: the operations of its edges, and those found."""
    import torch
    from torch import nn
    from torch.func import functional_call

    from backbones import CellNet
    from search.strategies import Bilevel, FirstOrder
    from search.supernet import ArchParams, Relax, Softmax, building, record, suspended_statistics

    def build() -> nn.Module:
        return CellNet(channels=8, layers=1, nodes=2, reductions=(), affine=False)

    space = record(build).space
    edges = [choice.name for choice in space if "<-" in choice.name]
    space = space.restrict({edge: OPERATIONS for edge in edges})
    planted = {edge: rng.choice(OPERATIONS) for edge in edges}
    params = ArchParams(space, seed=seed)
    with building(Relax(params)):
        teacher = nn.Sequential(build(), head(16))
        student = teacher if setting == "shared" else nn.Sequential(build(), head(16))

    mask = {c.name: (None, tuple(range(len(c.options)))) for c in space}
    mask |= {edge: (None, (space[edge].options.index(op),)) for edge, op in planted.items()}
    images = digits()
    halves = images[::2], images[1::2]
    generator = torch.Generator().manual_seed(seed)
    weights = dict(student.named_parameters())
    adam = torch.optim.Adam(params.parameters(), lr=0.05)
    sgd = torch.optim.SGD(weights.values(), lr=0.1, momentum=0.9)

    def loss_on(x: Tensor, moved: dict | None) -> Tensor:
        with torch.no_grad(), params.gates.opened(mask):
            target = teacher(x)
        with params.gated(Softmax()):
            out = student(x) if moved is None else functional_call(student, moved, (x,))
        return nn.functional.mse_loss(out, target)

    with suspended_statistics(teacher), suspended_statistics(student):
        for _ in range(steps):
            train, held = (half[torch.randint(len(half), (64,), generator=generator)] for half in halves)
            problem = Bilevel(
                train_loss=lambda w, x=train: loss_on(x, w),
                val_loss=lambda w, x=held: loss_on(x, w),
                weights=weights,
                logits=params.logits,
                virtual_step=dict,
                lr=0.0,
            )
            for name, grad in FirstOrder()(problem).items():
                params.logits[name].grad = grad
            adam.step()
            if setting == "learned":
                sgd.zero_grad()
                loss_on(train, None).backward()
                sgd.step()
    probabilities = params.probabilities()
    found = {e: space[e].options[max(range(len(OPERATIONS)), key=probabilities[e].__getitem__)] for e in edges}
    return [planted[e] for e in edges], [found[e] for e in edges]


def head(channels: int) -> nn.Module:
    """Global average pooling and ten outputs: feature maps, the last of them [B, C, H, W] -> [B, 10]."""
    from torch import nn

    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(channels, 10)

        def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
            return self.linear(maps[-1].mean((2, 3)))

    return Head()


def digits() -> Tensor:
    """scikit-learn's 1,797 digits as [N, 3, 8, 8], zero mean and unit scale."""
    import torch
    from sklearn.datasets import load_digits

    x = torch.from_numpy(load_digits().images).float()[:, None]
    return ((x - x.mean()) / x.std()).expand(-1, 3, -1, -1)


def agreement(planted: list[list[str]], found: list[list[str]]) -> int:
    """Edges on which the pairs agree."""
    return sum(p == f for a, b in zip(planted, found, strict=True) for p, f in zip(a, b, strict=True))


def permutation_p(planted: list[list[str]], found: list[list[str]], rng: random.Random, draws: int = 99_999) -> float:
    """Share of random pairings, the true one included, that agree at least as often."""
    observed = agreement(planted, found)
    table = [[agreement([p], [f]) for f in found] for p in planted]
    order = list(range(len(found)))
    as_good = 0
    for _ in range(draws):
        rng.shuffle(order)
        as_good += sum(row[j] for row, j in zip(table, order, strict=True)) >= observed
    return (1 + as_good) / (1 + draws)


if __name__ == "__main__":
    sys.exit(main())
