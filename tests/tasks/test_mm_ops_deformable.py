"""Deformable convolutions and attention under mmcv's names: equal to references, gradients included."""

import sys

import pytest
import torch
from torch.autograd import gradcheck

from tasks import mm_ops
from tests.devices import on_every_device

mm_ops.install()
mmcv_ops = pytest.importorskip("mmcv.ops")
stands_in = sys.modules["mmcv._ext"].__spec__.origin == mm_ops.__name__
pytestmark = [pytest.mark.upstream, pytest.mark.skipif(not stands_in, reason="mmcv is compiled here")]
# stride, padding and dilation, high then wide, groups, groups of offsets
GEOMETRY = ((2, 1), (1, 2), (1, 2), 2, 2)


def double(*shape: int, device: str = "cpu") -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64).to(device).requires_grad_()


def sampled(planes: torch.Tensor, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Planes [B, C, H, W], bilinear at rows and columns [B, H', W'], zeros around the planes: [B, C, H', W']."""
    batch, channels, height, width = planes.shape
    total = torch.zeros_like(planes[..., :1, :1])
    for down in (0, 1):
        for right in (0, 1):
            row, column = y.floor() + down, x.floor() + right
            share = (1 - (y - row).abs()) * (1 - (x - column).abs())
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            at = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).long()
            value = planes.flatten(2).gather(2, at.flatten(1)[:, None].expand(-1, channels, -1))
            total = total + value.view(batch, channels, *y.shape[1:]) * (share * inside)[:, None]
    return total


def reference(x, offset, mask, weight, bias, stride, padding, dilation, groups, offset_groups):
    """Modulated deformable convolution (arXiv 1811.11168, eq. 1), tap by tap; an offset is down, then right."""
    (rows, columns), kernel = offset.shape[2:], weight.shape[2:]
    top, left = (
        torch.arange(n, dtype=x.dtype, device=x.device) * s - p
        for n, s, p in zip((rows, columns), stride, padding, strict=True)
    )
    taken = []
    for g, planes in enumerate(x.chunk(offset_groups, dim=1)):
        for tap in range(kernel.numel()):
            at = g * kernel.numel() + tap
            y = top[:, None] + tap // kernel[1] * dilation[0] + offset[:, 2 * at]
            z = left + tap % kernel[1] * dilation[1] + offset[:, 2 * at + 1]
            taken.append(sampled(planes, y, z) * mask[:, at, None])
    # [B, C, taps, H', W']
    parts = [torch.stack(taken[i : i + kernel.numel()], dim=2) for i in range(0, len(taken), kernel.numel())]
    of_groups = torch.cat(parts, dim=1).chunk(groups, dim=1)
    summed = [
        torch.einsum("bcthw,oct->bohw", own, of_group.flatten(2))
        for own, of_group in zip(of_groups, weight.chunk(groups), strict=True)
    ]
    return torch.cat(summed, dim=1) + bias[:, None, None]


@on_every_device
@pytest.mark.parametrize("modulated", [False, True])
def test_deformable_convolutions_equal_their_definition(modulated, device):
    torch.manual_seed(0)
    x, weight, bias = double(2, 4, 7, 6, device=device), double(6, 2, 3, 3, device=device), double(6, device=device)
    rows, columns = torch.nn.functional.conv2d(x, weight, None, *GEOMETRY[:4]).shape[2:]
    # fractions of pixels, some of them beyond the padding
    offset = (2 * double(2, 36, rows, columns, device=device)).detach().requires_grad_()
    mask = double(2, 18, rows, columns, device=device)
    if modulated:
        leaves = [x, offset, mask, weight, bias]
        actual, expected = mmcv_ops.modulated_deform_conv2d(*leaves, *GEOMETRY), reference(*leaves, *GEOMETRY)
    else:
        leaves = [x, offset, weight]
        actual = mmcv_ops.deform_conv2d(*leaves, *GEOMETRY)
        expected = reference(x, offset, torch.ones_like(mask), weight, torch.zeros_like(bias), *GEOMETRY)
    torch.testing.assert_close(actual, expected)
    seed = torch.randn_like(expected)
    for a, e in zip(*(torch.autograd.grad(y, leaves, seed) for y in (actual, expected)), strict=True):
        torch.testing.assert_close(a, e)


@on_every_device
def test_deformable_convolutions_without_offsets_are_convolutions(device):
    torch.manual_seed(0)
    x, weight, bias = (torch.randn(*shape).to(device) for shape in ((2, 4, 7, 6), (6, 2, 3, 3), (6,)))
    geometry = dict(stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2)
    # in float64: on CUDA a convolution may be rounded as TF32 is
    expected = torch.nn.functional.conv2d(x.double(), weight.double(), **geometry).float()
    offset = torch.zeros(2, 18, *expected.shape[2:], device=device)
    half = torch.full((2, 9, *expected.shape[2:]), 0.5, device=device)
    torch.testing.assert_close(mmcv_ops.deform_conv2d(x, offset, weight, *geometry.values(), 1), expected)
    modulated = mmcv_ops.modulated_deform_conv2d(x, offset, half, weight, bias, *geometry.values(), 1)
    torch.testing.assert_close(modulated, 0.5 * expected + bias[:, None, None])


def test_an_offset_of_one_pixel_shifts_what_a_deformable_convolution_reads():
    x = torch.randn(1, 1, 5, 5)
    # per position of the kernel: down, then right
    offset = torch.tensor([1.0, 0.0])[None, :, None, None].expand(1, 2, 5, 5).contiguous()
    shifted = mmcv_ops.deform_conv2d(x, offset, torch.ones(1, 1, 1, 1))
    torch.testing.assert_close(shifted[..., :4, :], x[..., 1:, :])


@on_every_device
def test_deformable_convolutions_have_their_gradients(device):
    torch.manual_seed(0)
    x, offset, mask = double(2, 4, 4, 3, device=device), double(2, 8, 4, 2, device=device), double(2, 4, 4, 2, device=device)
    weight, bias = double(6, 2, 1, 2, device=device), double(6, device=device)
    geometry = (1, (0, 0), 1, 2, 2)
    # CUDA adds gradients in any order
    options = dict(nondet_tol=0.0 if device == "cpu" else 1e-10)
    assert gradcheck(lambda *given: mmcv_ops.deform_conv2d(*given, *geometry), (x, offset, weight), **options)
    given = (x, offset, mask, weight)
    assert gradcheck(lambda *given: mmcv_ops.modulated_deform_conv2d(*given, *geometry), (*given, bias), **options)
    assert gradcheck(lambda *given: mmcv_ops.modulated_deform_conv2d(*given, None, *geometry), given, **options)


@on_every_device
def test_deformable_attention_has_its_gradients(device):
    from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction

    torch.manual_seed(0)
    shapes, starts = torch.tensor([[3, 2], [2, 2]], device=device), torch.tensor([0, 6], device=device)
    value = double(1, 10, 2, 3, device=device)
    locations = torch.rand(1, 2, 2, 2, 2, 2, dtype=torch.float64).to(device).requires_grad_()
    weights = double(1, 2, 2, 2, 2, device=device)

    def attend(value, locations, weights):
        return MultiScaleDeformableAttnFunction.apply(value, shapes, starts, locations, weights, 64)

    assert gradcheck(attend, (value, locations, weights), nondet_tol=0.0 if device == "cpu" else 1e-10)
