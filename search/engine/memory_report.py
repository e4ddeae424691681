"""A memory plan as tables on the terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.table import Table

from search.cost.planner import ORDER, Setting, say_bytes

from . import distributed
from .memory_plan import MemoryPlan

_WORDS = {
    "execution": ("execution", "the same results, in another time"),
    "precision": ("precision", "activations are rounded"),
    "parts": ("parts of a batch", "batch norms see a part; steps and learning rates stay"),
    "crop": ("image side", "searched on smaller images than the config's"),
    "partial": ("K of partial channels", "another method than the config's"),
}


@contextmanager
def measuring() -> Iterator[Callable[[Setting], None]]:
    """A function that says which setting is being measured, while the block runs; the first process speaks for all."""
    with Console(stderr=True, quiet=distributed.rank() > 0).status("planning memory") as status:
        yield lambda setting: status.update(f"planning memory: {setting}")


def show(plan: MemoryPlan) -> None:
    """Print what was chosen, what it costs, and what it needs."""
    console = Console(highlight=False, soft_wrap=True)
    table = Table(title=f"Memory plan for {say_bytes(plan.limit)}: {say_bytes(plan.total)} predicted", title_justify="left")
    for column in ("", "config", "plan", "what the change means"):
        table.add_column(column)
    for name in ORDER:
        own, chosen = getattr(plan.own, name), getattr(plan.setting, name)
        if own is not None:
            words, meaning = _WORDS[name]
            table.add_row(words, str(own), str(chosen), meaning if own != chosen else "")
    console.print(table)
    processes = distributed.world_size()
    each = f" of each of {processes} processes, all of them" if processes > 1 else ""
    console.print(f"batch {plan.setting.batch}{each} as in the config")
    console.print(", ".join(f"{words} {say_bytes(size)}" for words, size in parts(plan)))
    if plan.options:
        console.print("the same by hand: --cfg-options " + " ".join(f"{k}={v}" for k, v in plan.options.items()))


def parts(plan: MemoryPlan) -> list[tuple[str, int]]:
    """The predicted bytes in parts, which sum up to all of them."""
    need = plan.need
    rows = [
        ("parameters and logits", need.parameters),
        ("buffers", need.buffers),
        ("optimiser states", need.optimizer),
        ("kept for backward", need.most_kept),
        ("inputs, gradients, temporaries", need.peak - need.parameters - need.buffers - need.optimizer - need.most_kept),
    ]
    return [*rows, ("beside the step (assumed)", plan.total - need.peak)]
