"""What the tests of all kernels share: an error measure, poisoned memory, compilation for GPUs that aren't there."""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from unittest import mock

import pytest
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[3]
# of a test file the functions that launch, and the architecture they are compiled for: compiling takes longer than all else
# here, so `make test` does some launches for one of them
COMPILED = [("launches", 90), *(pytest.param("launches_of_all", n, marks=pytest.mark.slow) for n in (80, 90, 100))]
TYPES = (torch.float32, torch.bfloat16, torch.float16)
# half types in one layout each, and slow in the other
TYPES_AND_LAYOUTS = [
    *((torch.float32, "nchw"), (torch.float32, "channels_last"), (torch.bfloat16, "nchw"), (torch.float16, "channels_last")),
    pytest.param(torch.bfloat16, "channels_last", marks=pytest.mark.slow),
    pytest.param(torch.float16, "nchw", marks=pytest.mark.slow),
]


def relative_rms(actual: Tensor, expected: Tensor) -> float:
    """Root mean square of the difference over that of what is expected, in float64; infinite for NaN, also of zero by zero."""
    actual, expected = actual.detach().double().cpu(), expected.detach().double().cpu()
    error = float((actual - expected).square().mean().sqrt() / expected.square().mean().sqrt())
    # max() of errors passes over a NaN
    return error if error == error else float("inf")


@contextmanager
def poisoned() -> Iterator[None]:
    """Memory from torch.empty, empty_like, empty_strided and their methods is NaN while the block runs (integers: -1)."""

    def poison(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def made(*args, **kwargs) -> Tensor:
            tensor = make(*args, **kwargs)
            return tensor.fill_(float("nan") if tensor.is_floating_point() else -1)

        return made

    names = [(torch, "empty"), (torch, "empty_like"), (torch, "empty_strided")]
    names += [(Tensor, "new_empty"), (Tensor, "new_empty_strided")]
    patches = [mock.patch.object(owner, name, poison(getattr(owner, name))) for owner, name in names]
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in patches:
            patch.stop()


@cache
def compile_launches(function: str, architecture: int) -> list[dict]:
    """Compiles every launch that `function` ("tests.module:name") makes, for a GPU that needn't be there.

    Done once for all tests of a process. The function runs in one of its own, without the interpreter, on CPU tensors; its
    launches run nothing, so what it computes is meaningless. Rows: kernel, registers, shared and stack (bytes; spilled
    registers lie in the stack). The arguments are specialised as on a GPU (alignment, ones), by the same code of triton.
    """
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | {"CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "tests.search.kernels.kernel_testing", function, str(architecture)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def check_resources(rows: Sequence[Mapping], bounds: Mapping[str, tuple[int, int]]) -> None:
    """Every kernel of `bounds` was launched and no other, each within its registers a thread and bytes of shared memory, and
    none spills. The bounds of shared memory are far below what a block may have: 163 KiB on sm_80, 227 KiB on the others."""
    assert {row["kernel"] for row in rows} == set(bounds)
    for row in rows:
        registers, shared = bounds[row["kernel"]]
        assert row["registers"] <= registers and row["shared"] <= shared and row["stack"] == 0, row


@contextmanager
def _compiled_instead(architecture: int, rows: list[dict]) -> Iterator[None]:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, make_backend
    from triton.runtime.jit import JITFunction, create_function_from_signature

    target = GPUTarget("cuda", architecture, 32)
    backend = make_backend(target)

    def run(self, *args, grid, warmup, **kwargs):
        kwargs |= {"debug": False, "instrumentation_mode": ""}
        binder = create_function_from_signature(self.signature, self.params, backend)
        bound, specialization, options = binder(*args, **kwargs)
        options, signature, constants, attributes = self._pack_args(backend, kwargs, bound, specialization, options)
        source = ASTSource(self, signature, constants, attributes)
        compiled = triton.compile(source, target=target, options=options.__dict__)
        # shared memory is asked for at launch: the cubin doesn't know it
        rows.append({"kernel": self.__name__, "shared": compiled.metadata.shared})
        rows[-1] |= resources(compiled.asm["cubin"])
        return compiled

    with mock.patch.object(JITFunction, "run", run):
        yield


def resources(cubin: bytes) -> dict[str, int]:
    """Registers and stack (bytes) of a thread, for the one kernel of a cubin, read by cuobjdump."""
    import triton

    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        tool = triton.knobs.nvidia.cuobjdump.path
        text = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    (found,) = re.findall(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", text)
    registers, stack, local = map(int, found)
    return {"registers": registers, "stack": stack + local}


def _main(function: str, architecture: int) -> None:
    from importlib import import_module

    module, name = function.split(":")
    rows: list[dict] = []
    with _compiled_instead(architecture, rows):
        getattr(import_module(module), name)()
    print(json.dumps(rows))


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]))
