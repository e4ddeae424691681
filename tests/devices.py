"""The devices that tests run on, and what they need there."""

from importlib.util import find_spec

import pytest
import torch

# where kernels run: in Triton's interpreter without a GPU
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
without_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
# `device` is the CPU and, where there is one, a CUDA device
on_every_device = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, without_cuda])])
needs_triton = pytest.mark.skipif(not find_spec("triton"), reason="needs triton")
