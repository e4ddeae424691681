"""A network as a program of `torch.export`: a file that `torch.export.load` reads without this project's code."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

# the file inside the program that holds the notes
NOTES = "notes.json"


def exported_program(model: nn.Module, input_size: tuple[int, ...], dynamic_batch: bool) -> ExportedProgram:
    """The program of `model`, in evaluation mode, for images [1, C, H, W], or [B, C, H, W] of any B."""
    # a batch of one would be taken for the only one possible
    images = torch.zeros(2 if dynamic_batch else 1, *input_size)
    shapes = ({0: Dim("batch", min=1)},) if dynamic_batch else None
    with torch.no_grad():
        return torch.export.export(model, (images,), dynamic_shapes=shapes)


def program_bytes(program: ExportedProgram, notes: Mapping[str, str]) -> bytes:
    """The content of its file; `torch.export.load(file, extra_files={"notes.json": ""})` fills in the notes, as JSON."""
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={NOTES: json.dumps(dict(notes), indent=1)})
    return buffer.getvalue()


def program_of(data: bytes) -> Callable[[Tensor], Any]:
    """The network that a file's content makes."""
    return torch.export.load(io.BytesIO(data)).module()
