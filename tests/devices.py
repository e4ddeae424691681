"""The devices that tests run on."""

import pytest
import torch

without_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
# `device` is the CPU and, where there is one, a CUDA device
on_every_device = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, without_cuda])])
