"""Trained networks for use without this project: ONNX, programs of `torch.export`, and Python files that need torch only."""

from search.export.module_file import ModuleFile, module_file
from search.export.onnx_file import onnx_bytes, onnx_network, require_packages
from search.export.program import exported_program, program_bytes, program_of
from search.export.verify import TOLERANCE, also_at, difference, random_images, require_equal
from search.export.weights import fill, load_weights

__all__ = [
    "TOLERANCE",
    "ModuleFile",
    "also_at",
    "difference",
    "exported_program",
    "fill",
    "load_weights",
    "module_file",
    "onnx_bytes",
    "onnx_network",
    "program_bytes",
    "program_of",
    "random_images",
    "require_equal",
    "require_packages",
]
