"""DARTS-style genotypes, to and from architectures of `CellNet`.

A genotype lists, for each cell, two (operation, predecessor) pairs per intermediate node, and which states the cell
concatenates (quark0/darts, genotypes.py). It comes as a mapping with the keys ``normal``, ``normal_concat``, ``reduce`` and
``reduce_concat``, or as the text ``Genotype(normal=[('sep_conv_3x3', 0), ...], ...)`` that search logs print, which is parsed
and never evaluated.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping

from search.space import Architecture

CELLS = ("normal", "reduce")
INPUTS = 2
KEEP = 2


def from_genotype(genotype: Mapping | str) -> Architecture:
    """The architecture a genotype describes. Raises ValueError, naming the entry, for anything else."""
    if isinstance(genotype, str):
        genotype = _parse(genotype)
    choices: dict = {}
    for cell in CELLS:
        if cell not in genotype:
            raise ValueError(f"a genotype needs {cell!r}, and this one has {sorted(genotype)}")
        edges = [_edge(cell, entry) for entry in genotype[cell]]
        nodes = len(edges) // KEEP
        concat = list(genotype.get(f"{cell}_concat", range(INPUTS, INPUTS + nodes)))
        if len(edges) % KEEP or concat != list(range(INPUTS, INPUTS + nodes)):
            raise ValueError(
                f"{cell}: {len(edges)} edges with concat {concat} isn't {KEEP} edges a node, all nodes concatenated"
            )
        for position in range(nodes):
            node, pair = INPUTS + position, edges[KEEP * position : KEEP * (position + 1)]
            sources = tuple(sorted(source for _, source in pair))
            if len(set(sources)) < KEEP or not 0 <= sources[0] <= sources[-1] < node:
                raise ValueError(f"{cell}, node {node}: {pair} aren't {KEEP} different earlier states")
            choices[f"{cell}/n{node}/inputs"] = sources
            choices |= {f"{cell}/n{node}<-{source}": op for op, source in pair}
    return Architecture(choices)


def to_genotype(architecture: Mapping) -> dict[str, list]:
    """The genotype of an architecture; a node's edges come in the order of their predecessors."""
    genotype: dict[str, list] = {}
    for cell in CELLS:
        nodes = sorted(int(n.split("/")[1][1:]) for n in architecture if n.startswith(f"{cell}/") and n.endswith("/inputs"))
        genotype[cell] = [
            (architecture[f"{cell}/n{node}<-{source}"], source)
            for node in nodes
            for source in architecture[f"{cell}/n{node}/inputs"]
        ]
        genotype[f"{cell}_concat"] = nodes
    return genotype


def _edge(cell: str, entry: object) -> tuple[str, int]:
    match entry:
        case (str(op), int(source)) | [str(op), int(source)]:
            return op, source
    raise ValueError(f"{cell}: {entry!r} is no pair of an operation and a predecessor, such as ('sep_conv_3x3', 0)")


def _parse(text: str) -> dict:
    try:
        call = ast.parse(text.strip(), mode="eval").body
        if not isinstance(call, ast.Call) or not call.keywords:
            raise ValueError("not a call with keywords")
        return {k.arg: list(_literal(k.value)) for k in call.keywords if k.arg}
    except (SyntaxError, ValueError, TypeError) as error:
        raise ValueError(f"not a genotype, Genotype(normal=[...], normal_concat=[...], ...): {text[:80]!r}") from error


def _literal(node: ast.expr):
    # genotypes of some logs write range(2, 6) for the concatenation
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range":
        return range(*(ast.literal_eval(a) for a in node.args))
    return ast.literal_eval(node)
