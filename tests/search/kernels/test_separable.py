from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from search.kernels.separable import (
    by_input,
    by_weight,
    norm_relu_separable,
    norm_relu_separable_reference,
    relu_convolution,
    relu_separable,
    relu_separable_reference,
)
from tests.devices import on_every_device

pytestmark = on_every_device
GEOMETRIES = [(3, 1), (5, 1), (7, 1), (3, 2), (5, 2), (3, 3), (3, 4)]
SIZES = [(8, 8), (7, 5), (2, 6)]


@pytest.fixture(autouse=True)
def on_the_device(device):
    with torch.device(device):
        yield


def gradients(y, inputs):
    torch.manual_seed(5)
    return torch.autograd.grad(y, inputs, torch.randn_like(y))


def close(a, b):
    assert a.shape == b.shape and (a - b).abs().max() <= 1e-10 * max(1.0, float(b.abs().max()))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("kernel", "dilation"), GEOMETRIES)
@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_gradients_are_the_library_s(kernel, dilation, size, stride):
    torch.manual_seed(0)
    padding = dilation * (kernel - 1) // 2
    x = torch.randn(3, 4, *size, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 1, kernel, kernel, dtype=torch.float64, requires_grad=True)
    y = F.conv2d(x, weight, None, stride, padding, dilation, groups=4)
    grad = torch.randn_like(y)
    expected = torch.autograd.grad(y, [x, weight], grad)
    close(by_input(grad, x.detach(), weight.detach(), stride, padding, dilation), expected[0])
    close(by_weight(grad, x.detach(), weight.detach(), stride, padding, dilation), expected[1])


@pytest.mark.parametrize(("kernel", "dilation"), GEOMETRIES)
@pytest.mark.parametrize("stride", [1, 2])
def test_gradient_by_an_input_that_targets_share(kernel, dilation, stride):
    torch.manual_seed(0)
    padding = dilation * (kernel - 1) // 2
    x = torch.randn(3, 4, 7, 6, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(12, 1, kernel, kernel, dtype=torch.float64)
    y = F.conv2d(x.repeat(1, 3, 1, 1), weight, None, stride, padding, dilation, groups=12)
    grad = torch.randn_like(y)
    close(by_input(grad, x.detach(), weight, stride, padding, dilation), torch.autograd.grad(y, x, grad)[0])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("kernel", "dilation"), GEOMETRIES)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("targets", [1, 3])
def test_relu_separable(kernel, dilation, size, stride, targets):
    torch.manual_seed(1)
    padding = dilation * (kernel - 1) // 2
    x = torch.randn(2, 4, *size, dtype=torch.float64, requires_grad=True)
    dw = torch.randn(targets, 4, kernel, kernel, dtype=torch.float64, requires_grad=True)
    pw = torch.randn(targets, 6, 4, dtype=torch.float64, requires_grad=True)
    y = relu_separable(x, dw, pw, stride, padding, dilation)
    expected = relu_separable_reference(x, dw, pw, stride, padding, dilation)
    close(y, expected)
    for a, b in zip(gradients(y, [x, dw, pw]), gradients(expected, [x, dw, pw]), strict=True):
        close(a, b)


@pytest.mark.parametrize("asked", [(0, 1), (0,), (1,)])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 2), (2, 1)])
def test_relu_convolution(stride, dilation, asked):
    torch.manual_seed(4)
    x = torch.randn(2, 3, 7, 6, dtype=torch.float64, requires_grad=0 in asked)
    weight = torch.randn(5, 3, 3, 3, dtype=torch.float64, requires_grad=1 in asked)
    y = relu_convolution(x, weight, stride, dilation, dilation)
    expected = F.conv2d(F.relu(x), weight, None, stride, dilation, dilation)
    close(y, expected)
    inputs = [t for t in (x, weight) if t.requires_grad]
    for a, b in zip(gradients(y, inputs), gradients(expected, inputs), strict=True):
        close(a, b)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("kernel", "dilation"), GEOMETRIES)
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_norm_relu_separable(kernel, dilation, size, affine, training):
    torch.manual_seed(2)
    padding, targets = dilation * (kernel - 1) // 2, 3
    z = torch.randn(2, 12, *size, dtype=torch.float64, requires_grad=True)
    dw = torch.randn(targets, 4, kernel, kernel, dtype=torch.float64, requires_grad=True)
    pw = torch.randn(targets, 6, 4, dtype=torch.float64, requires_grad=True)
    norm = [torch.randn(12, dtype=torch.float64, requires_grad=True) for _ in range(2)] if affine else [None, None]
    moved = []
    results = []
    for function in (norm_relu_separable, norm_relu_separable_reference):
        running = torch.zeros(12, dtype=torch.float64) + 0.25, torch.ones(12, dtype=torch.float64) * 2
        y = function(z, dw, pw, padding, dilation, *norm, running, training, 0.1, 1e-5)
        inputs = [z, dw, pw, *(norm if affine else [])]
        results.append([y, *gradients(y, inputs)])
        moved.append(running)
    for a, b in zip(*results, strict=True):
        close(a, b)
    for a, b in zip(*moved, strict=True):
        close(a, b)
    assert bool((moved[0][0] != 0.25).all()) == training


@pytest.mark.parametrize("asked", [(0,), (1,), (2,), (0, 2), (0, 1, 2)])
def test_weights_that_nobody_asks_for_cost_no_convolution(asked):
    def of_leaves():
        torch.manual_seed(3)
        x = torch.randn(2, 4, 6, 6, dtype=torch.float64, requires_grad=True)
        shapes = (4, 3, 3), (4, 4)
        parts = [[torch.randn(*shape, dtype=torch.float64, requires_grad=True) for _ in range(3)] for shape in shapes]
        y = relu_separable(x, *(torch.stack(part) for part in parts), 1, 1, 1)
        y = norm_relu_separable(y, *(torch.stack(part) for part in parts), 1, 1, None, None, None, True, 0.1, 1e-5)
        return y, [[x], *parts]

    # the CPU's way of it
    with torch.device("cpu"):
        y, leaves = of_leaves()
    with count_convolutions() as alone:
        some = torch.autograd.grad(y.square().sum(), [t for i in asked for t in leaves[i]], retain_graph=True)
    with count_convolutions() as together:
        every = torch.autograd.grad(y.square().sum(), [t for part in leaves for t in part])
    sizes = [1, 3, 3]
    first = [sum(sizes[:i]) for i in range(3)]
    expected = [every[j] for i in asked for j in range(first[i], first[i] + sizes[i])]
    for a, b in zip(some, expected, strict=True):
        assert torch.equal(a, b)
    # by the input: a turned convolution for each; by weights: what comes before the matrices again, and the gradient itself
    assert alone[0] == (2 if asked == (0,) else together[0]) and together[0] == 6


@contextmanager
def count_convolutions():
    counted = [0]

    class Mode(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            counted[0] += func.overloadpacket in (torch.ops.aten.convolution, torch.ops.aten.convolution_backward)
            return func(*args, **(kwargs or {}))

    with Mode():
        yield counted


def test_only_the_inputs_are_kept():
    x = torch.randn(2, 4, 8, 8, requires_grad=True)
    dw, pw = torch.randn(3, 4, 5, 5, requires_grad=True), torch.randn(3, 4, 4, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        z = relu_separable(x, dw, pw, 1, 2, 1)
        norm_relu_separable(z, dw, pw, 2, 1, None, None, None, True, 0.1, 1e-5)
    large = {t.untyped_storage()._cdata for t in kept if t.numel() >= x.numel()}
    assert large == {x.untyped_storage()._cdata, z.untyped_storage()._cdata}


def test_a_second_derivative_is_refused():
    x = torch.randn(1, 2, 4, 4, requires_grad=True)
    dw, pw = torch.randn(1, 2, 3, 3), torch.randn(1, 2, 2)
    (grad,) = torch.autograd.grad(relu_separable(x, dw, pw, 1, 1, 1).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()
