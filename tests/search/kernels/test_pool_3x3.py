"""The 3x3 pools equal the library's: the maximum and its gradient bit for bit, ties, infinities and NaN included."""

import pytest
import torch
import torch.nn.functional as F

from search.cost import bytes_kept
from search.kernels.pool_3x3 import avg_pool_3x3, function, max_pool_3x3
from tests.devices import on_every_device

SHAPES = [(2, 3, 5, 7), (1, 2, 1, 1), (2, 2, 1, 4), (2, 1, 6, 6)]


def both(ours, theirs, x):
    found = []
    for pool in (ours, theirs):
        leaf = x.clone().requires_grad_()
        y = pool(leaf)
        seed = torch.linspace(-1, 1, y.numel(), dtype=y.dtype, device=y.device).view(y.shape)
        found.append((y, *torch.autograd.grad(y, leaf, seed)))
    return zip(*found, strict=True)


@on_every_device
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_max_pool(shape, stride, dtype, device):
    torch.manual_seed(0)
    # few values, so that many windows have ties
    x = torch.randint(-2, 3, shape).to(device, dtype)
    if x.numel() > 60:
        x[0, 0, 2, 3], x[0, 0, 0], x[1, 0] = float("nan"), float("-inf"), float("-inf")
    for a, b in both(lambda x: max_pool_3x3(x, stride), lambda x: F.max_pool2d(x, 3, stride, 1), x):
        assert torch.equal(a.nan_to_num(7), b.nan_to_num(7)) and torch.equal(a.isnan(), b.isnan())
    assert torch.equal(max_pool_3x3(x, stride).nan_to_num(7), F.max_pool2d(x, 3, stride, 1).nan_to_num(7))


@on_every_device
def test_max_pool_of_rows_beyond_16_bits(device):
    x = torch.randn(1, 1, 2, 2**14 + 1).to(device)
    for a, b in both(lambda x: max_pool_3x3(x, 1), lambda x: F.max_pool2d(x, 3, 1, 1), x):
        assert torch.equal(a, b)


@on_every_device
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_avg_pool(shape, stride, device):
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=torch.float64).to(device)

    def library(x):
        return F.avg_pool2d(x, 3, stride, 1, count_include_pad=False)

    for a, b in both(lambda x: avg_pool_3x3(x, stride), library, x):
        assert (a - b).abs().max() < 1e-14


@on_every_device
def test_keeps_two_bytes_and_none(device):
    x = torch.randn(2, 3, 8, 8, device=device, requires_grad=True)
    assert bytes_kept(lambda: max_pool_3x3(x, 1).sum(), [x]) == 2 * x.numel()
    assert bytes_kept(lambda: avg_pool_3x3(x, 1).sum(), [x]) == 0


@on_every_device
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_places_are_the_library_s(shape, stride, device):
    # as they are kept where the library makes the maxima, which is on other devices than the CPU
    torch.manual_seed(0)
    x = torch.randint(-2, 3, shape).float().to(device)
    x[0, 0, 0] = float("-inf")
    for ours, library in zip(function._largest(x, stride, True), function._of_library(x, stride), strict=True):
        assert torch.equal(ours, library)
        assert ours.dtype == library.dtype


@pytest.mark.parametrize("pool", [max_pool_3x3, avg_pool_3x3])
@pytest.mark.parametrize("stride", [1, 2])
def test_other_devices_keep_as_little(pool, stride):
    x = torch.randn(2, 3, 5, 8, device="meta", requires_grad=True)
    y = pool(x, stride)
    kept = bytes_kept(lambda: pool(x, stride).sum())
    assert kept == (2 * y.numel() if pool is max_pool_3x3 else 0)
    assert torch.autograd.grad(y, x, torch.empty_like(y))[0].shape == x.shape
