"""A network as an ONNX file; needs the packages of the extra `export`."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.export import ExportedProgram

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
INPUT = "images"


def require_packages() -> None:
    """Raises ValueError naming the first package that isn't there."""
    for name in PACKAGES:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ValueError(f"ONNX needs the package {name}, which isn't installed: pip install 'visnas[export]'") from error


def onnx_bytes(program: ExportedProgram, notes: Mapping[str, str]) -> bytes:
    """The content of one ONNX file with its weights inside; `notes` are its metadata properties.

    The input is called `images`; the outputs, in the network's order, `output` or `output0`, `output1` and so on.
    """
    count = len(program.graph_signature.user_outputs)
    outputs = ["output"] if count == 1 else [f"output{i}" for i in range(count)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = torch.onnx.export(
            program, dynamo=True, external_data=False, verbose=False, input_names=[INPUT], output_names=outputs
        )
    assert made is not None
    made.model.metadata_props.update(notes)
    return made.model_proto.SerializeToString()


def onnx_network(data: bytes) -> Callable[[Tensor], list[Tensor]]:
    """The network that a file's content makes, run by onnxruntime on the CPU: images -> all its outputs."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # errors only
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return lambda images: [torch.from_numpy(output) for output in session.run(None, {INPUT: images.numpy()})]
