"""A network as one Python file that needs torch and torchvision only.

The file holds a class `Network` with the layers under their original names, so that a state_dict of the original loads by
name, and a `forward` that lists the operations; `load()` reads the weights that lie beside it.
"""

from __future__ import annotations

import re
import textwrap
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import fx, nn

from search.export.forward import body
from search.export.layers import statements
from search.export.trace import VALUE, tensors, trace

_WIDTH = 120
_TEMPLATE = '''"""{title}

{notes}

This file needs {packages} only. `load()` makes the network with the weights of the .pth file beside this one, in evaluation
mode; `Network()` has new ones. Layers have the names that they had in the network this was made from, so its state_dict
loads by name. Dropout and stochastic depth are layers here and work in training; what the original did in training only by
other means (a drop path that grows with time, an auxiliary classifier) is not here.
{left_out}"""

from pathlib import Path

{imports}


class Network(nn.Module):
    """{shapes}"""

    def __init__(self):
        super().__init__()
{layers}

    def forward(self, x):
{forward}


def load(weights=None):
    """The network with the weights of a state_dict's file, by default the one beside this file, in evaluation mode."""
    network = Network()
    file = Path(__file__).with_suffix(".pth") if weights is None else weights
    network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    return network.eval()
'''


@dataclass(frozen=True)
class ModuleFile:
    """What a file is made of.

    Attributes:
        layers, forward: statements of the constructor and of `forward`, without their indentation.
        shapes: of images and outputs, for one input size.
        left_out: parts of the original that don't take part in evaluation, by the beginning of their names.
    """

    layers: Sequence[str]
    forward: Sequence[str]
    shapes: str
    left_out: Sequence[str] = ()

    def source(self, title: str, notes: Mapping[str, str]) -> str:
        """The file, opening with `title` and `notes`, one a paragraph."""
        code = "\n".join([*self.layers, *self.forward])
        torchvision = "torchvision." in code
        imports = ["import torch"]
        imports += ["import torch.nn.functional as F"] if re.search(r"\bF\.", code) else []
        imports += ["import torchvision"] if torchvision else []
        left_out = f"Left out for that reason: {', '.join(self.left_out)}."
        return _TEMPLATE.format(
            title=_quoted(title),
            notes="\n".join(textwrap.fill(_quoted(f"{key}: {value}"), _WIDTH) for key, value in notes.items()),
            packages="torch and torchvision" if torchvision else "torch",
            left_out=textwrap.fill(left_out, _WIDTH) + "\n" if self.left_out else "",
            imports="\n".join([*imports, "from torch import nn"]),
            shapes=textwrap.fill(self.shapes, _WIDTH, subsequent_indent="    "),
            layers=_indented(self.layers),
            forward=_indented(self.forward),
        )

    def network(self) -> nn.Module:
        """The `Network` that the file makes, in training mode and with fresh weights."""
        module = types.ModuleType("exported")
        exec(compile(self.source("", {}), "<exported network>", "exec"), vars(module))
        return module.Network()


def module_file(model: nn.Module, input_size: tuple[int, ...]) -> ModuleFile:
    """The file for `model`, in evaluation mode, as it runs on images of `input_size` (C, H, W).

    Raises ValueError for an operation or a layer that can't be written down.
    """
    graph = trace(model, input_size)
    names = [node.target for node in graph.nodes if node.op in ("call_module", "get_attr")]
    output = next(node for node in graph.nodes if node.op == "output")
    returned = tensors(fx.map_arg(output.args[0], lambda node: node.meta[VALUE]))
    shapes = f"Images {_shape(input_size)} -> {', '.join(_shape(tensor.shape[1:]) for tensor in returned)}."
    file = ModuleFile(statements(model, names), body(graph, model), shapes)
    with torch.device("meta"):
        made = file.network().state_dict()
    absent = {_highest(name, made) for name in model.state_dict() if name not in made}
    return ModuleFile(file.layers, file.forward, shapes, tuple(sorted(absent)))


def _indented(lines: Iterable[str]) -> str:
    return "\n".join(f"        {line}" for text in lines for line in text.split("\n"))


def _shape(size: Iterable[int]) -> str:
    return f"[{', '.join(map(str, ('B', *size)))}]"


def _quoted(text: str) -> str:
    """Text that can stand in a docstring."""
    return " ".join(text.split()).replace("\\", "\\\\").replace('"', "'")


def _highest(name: str, made: Iterable[str]) -> str:
    """The shortest beginning of a dotted name that nothing made shares."""
    parts = name.split(".")
    for end in range(1, len(parts)):
        beginning = ".".join(parts[:end]) + "."
        if not any(other.startswith(beginning) for other in made):
            return beginning[:-1]
    return name
