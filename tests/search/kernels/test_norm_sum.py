"""The normalised weighted sum: kernels and plain PyTorch against the definition in float64."""

import subprocess
import sys
from collections.abc import Callable
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from search.cost import bytes_kept
from search.kernels.norm_sum import launch, norm_sum, norm_sum_reference, norm_sum_torch, operator
from tests.devices import DEVICE
from tests.search.kernels.kernel_testing import ROOT, TYPES_AND_LAYOUTS, poisoned, relative_rms

# relative RMS error against float64, of outputs and of gradients: half types by their rounding (the interpreter cuts
# bfloat16 off, where GPUs round)
BOUNDS = {torch.float32: 2e-6, torch.bfloat16: 6e-3, torch.float16: 1e-3, torch.float64: 1e-12}
LAYOUTS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}
NORMALISE = [True, True, False]


def norm_sum_kernels(*args, **kwargs):
    return norm_sum(*args, **kwargs, triton=True)


def maps(shape: tuple[int, ...], count: int = 3, dtype: torch.dtype = torch.float32, layout: str = "nchw") -> list[Tensor]:
    """Candidates of unlike means and scales."""
    zs = [torch.randn(shape) * (1 + n) + 10 * n for n in range(count)]
    return [z.to(DEVICE, dtype, memory_format=LAYOUTS[layout]).requires_grad_() for z in zs]


def vectors(count: int, channels: int, affine: bool) -> tuple[Tensor, list | None, list | None]:
    """weight; gammas and betas, one of each missing."""
    weight = torch.randn(count, device=DEVICE).requires_grad_()
    gammas, betas = ([torch.randn(channels, device=DEVICE).requires_grad_() for _ in range(count)] for _ in range(2))
    return (weight, [*gammas[:-1], None], [None, *betas[1:]]) if affine else (weight, None, None)


def statistics(count: int, channels: int) -> tuple[list, list]:
    """Running means and variances, none for the last candidate."""
    means = [torch.randn(channels, device=DEVICE) for _ in range(count - 1)]
    return [*means, None], [*(torch.rand(channels, device=DEVICE) + 0.5 for _ in means), None]


def results(function: Callable, zs, weight, gammas, betas, running=None, dtype=None, **kwargs) -> dict[str, Tensor]:
    """Outputs and every gradient, for a gradient of y that depends on its shape alone."""

    def leaf(tensor):
        return None if tensor is None else tensor.detach().to(dtype or tensor.dtype).requires_grad_()

    given = {"zs": list(map(leaf, zs)), "weight": [leaf(weight)]}
    given |= {name: list(map(leaf, rows)) for name, rows in (("gammas", gammas), ("betas", betas)) if rows}
    if dtype is not None and running is not None:
        running = tuple([None if row is None else row.to(dtype) for row in rows] for rows in running)
    y, mean, var = function(given["zs"], given["weight"][0], given.get("gammas"), given.get("betas"), running=running, **kwargs)
    leaves = {f"{name}[{n}]": t for name, group in given.items() for n, t in enumerate(group) if t is not None}
    seed = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(zs[0].dtype).to(y)
    grads = torch.autograd.grad(y, list(leaves.values()), seed)
    out = {"y": y} if running else {"y": y, "mean": mean, "var": var}
    return out | {f"d {name}": grad for name, grad in zip(leaves, grads, strict=True)}


def check(actual: dict[str, Tensor], expected: dict[str, Tensor], bound: float) -> None:
    assert actual.keys() == expected.keys()
    errors = {name: relative_rms(actual[name], expected[name]) for name in expected}
    assert max(errors.values()) <= bound, errors


# (shape, affine, batch statistics): several tiles of positions, of images, of channels; single values
CASES = [
    ((2, 5, 37, 29), True, True),
    ((35, 2, 9, 7), False, True),
    ((3, 66, 1, 1), True, True),
    ((2, 5, 37, 29), True, False),
    ((1, 3, 1, 1), False, False),
]


@pytest.mark.parametrize(("dtype", "layout"), TYPES_AND_LAYOUTS, ids=str)
@pytest.mark.parametrize(("shape", "affine", "batch"), CASES, ids=str)
def test_kernels_equal_the_definition(shape, affine, batch, dtype, layout):
    torch.manual_seed(0)
    zs, vs = maps(shape, dtype=dtype, layout=layout), vectors(3, shape[1], affine)
    running = None if batch else statistics(3, shape[1])
    with poisoned():
        actual = results(norm_sum_kernels, zs, *vs, running, normalise=NORMALISE)
    expected = results(norm_sum_reference, zs, *vs, running, dtype=torch.float64, normalise=NORMALISE)
    check(actual, expected, BOUNDS[dtype])
    for name in ("y", "d zs[0]"):
        assert actual[name].dtype == dtype
        assert actual[name].is_contiguous(memory_format=LAYOUTS[layout])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize(("shape", "affine", "batch"), CASES, ids=str)
def test_plain_pytorch_equals_the_definition(shape, affine, batch, dtype, layout):
    torch.manual_seed(0)
    zs, vs = maps(shape, dtype=dtype, layout=layout), vectors(3, shape[1], affine)
    running = None if batch else statistics(3, shape[1])
    # vectors are float32 beside half types and float64 beside float64
    wide = torch.float64 if dtype == torch.float64 else None
    with poisoned():
        actual = results(norm_sum_torch, zs, *vs, running, dtype=wide, normalise=NORMALISE)
    expected = results(norm_sum_reference, zs, *vs, running, dtype=torch.float64, normalise=NORMALISE)
    check(actual, expected, BOUNDS[dtype])


@pytest.mark.parametrize("function", [norm_sum_kernels, norm_sum_torch, norm_sum_reference])
def test_stands_for_norms_in_train_mode_and_their_running_statistics(function):
    torch.manual_seed(0)
    norms = [nn.BatchNorm2d(4).to(DEVICE) for _ in range(3)]
    zs, weight = maps((3, 4, 5, 6)), torch.randn(3, device=DEVICE)
    y, mean, var = function(zs, weight, [n.weight for n in norms], [n.bias for n in norms], eps=norms[0].eps)
    moved = [n.running_mean.lerp(m, n.momentum) for n, m in zip(norms, mean, strict=True)]
    expected = sum(w * n(z) for w, n, z in zip(weight, norms, zs, strict=True))
    assert relative_rms(y, expected) < 1e-6
    assert relative_rms(torch.stack(moved), torch.stack([n.running_mean for n in norms])) < 1e-6
    moved = torch.stack([torch.ones_like(v).lerp(v, n.momentum) for n, v in zip(norms, var, strict=True)])
    assert relative_rms(moved, torch.stack([n.running_var for n in norms])) < 1e-6


@pytest.mark.parametrize("function", [norm_sum_kernels, norm_sum_torch])
def test_statistics_hold_for_a_mean_ten_thousand_times_the_deviation(function):
    torch.manual_seed(0)
    z = (torch.randn(3, 2, 40, 40) * 0.1 + torch.tensor([1e3, -1e3])[:, None, None]).to(DEVICE).requires_grad_()
    weight = torch.ones(1, device=DEVICE)
    y, _, var = function([z], weight)
    expected, mean, exact = norm_sum_reference([z.double()], weight)
    # E[x^2] - E[x]^2 in float32 is off by more than the variance itself here
    naive = z.square().mean((0, 2, 3)) - z.mean((0, 2, 3)).square()
    assert relative_rms(naive, exact[0]) > 1
    assert relative_rms(var, exact) < 1e-5
    # a mean is rounded to 2^-25 of itself at most, relative to the deviation
    assert relative_rms(y, expected) < 1e4 * 2**-24
    assert torch.equal(torch.sign(mean[0]).cpu(), torch.tensor([1.0, -1.0], dtype=torch.float64))


@pytest.mark.parametrize("function", [norm_sum_kernels, norm_sum_torch])
def test_constant_channels_give_zeros(function):
    z = torch.full((2, 1, 7, 9), 1234.567, device=DEVICE)
    y, mean, var = function([z], torch.ones(1, device=DEVICE))
    assert torch.allclose(mean, z.mean(), rtol=1e-6)
    assert var.item() == pytest.approx(0, abs=1e-6)
    # the rounding of the mean, times 1 / sqrt(eps)
    assert y.abs().max() <= 1234.567 * 2**-24 / 1e-5**0.5


@pytest.mark.parametrize("layout", LAYOUTS)
def test_channel_slices_are_read_where_they_lie(layout):
    torch.manual_seed(0)
    whole = maps((2, 9, 5, 7), count=1, layout=layout)[0].detach()
    zs = [whole[:, 3 * n : 3 * n + 3] for n in range(3)]
    views = launch.Views.of(zs, LAYOUTS[layout])
    assert [t.data_ptr() for t in views.tensors] == [z.data_ptr() for z in zs]
    vs = vectors(3, 3, affine=False)
    y, mean, _ = norm_sum_kernels(zs, *vs)
    expected, exact, _ = norm_sum_reference([z.double() for z in zs], *vs)
    assert relative_rms(y, expected) < 1e-6
    assert relative_rms(mean, exact) < 1e-6
    assert y.is_contiguous(memory_format=LAYOUTS[layout])


@pytest.mark.parametrize("function", [norm_sum_kernels, norm_sum_torch])
def test_layouts_may_be_mixed_and_gradients_expanded(function):
    torch.manual_seed(0)
    zs = [z.detach() for z in [*maps((2, 3, 5, 4)), *maps((2, 3, 5, 4), layout="channels_last")]]
    # positions that don't follow each other: transposed, and every other column
    zs[1] = maps((2, 3, 4, 5), count=1)[0].detach().transpose(2, 3)
    zs[2] = maps((2, 3, 5, 8), count=1)[0].detach()[..., ::2]
    zs = [z.requires_grad_() for z in zs]
    weight = torch.randn(6, device=DEVICE, requires_grad=True)
    grads = torch.autograd.grad(function(zs, weight)[0].square().mean((1, 2, 3)).sum(), [weight, *zs])
    doubles = [z.detach().double().requires_grad_() for z in zs]
    y = norm_sum_reference(doubles, weight)[0]
    expected = torch.autograd.grad(y.square().mean((1, 2, 3)).sum(), [weight, *doubles])
    assert max(map(relative_rms, grads, expected)) < 1e-4
    (grad,) = torch.autograd.grad(function(zs, weight)[0].sum(), zs[:1])
    # a batch norm's outputs sum to zero whatever its input
    assert grad.abs().max() < 1e-5


@pytest.mark.parametrize("function", [norm_sum_kernels, norm_sum_torch])
def test_equal_inputs_give_equal_bits(function):
    torch.manual_seed(0)
    zs, vs = maps((9, 3, 21, 19)), vectors(3, 3, affine=True)
    first, second = (results(function, zs, *vs, normalise=NORMALISE) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("function", [norm_sum_kernels, norm_sum_torch])
def test_keeps_the_inputs_and_vectors_alone(function):
    zs, (weight, *_) = maps((4, 8, 16, 16)), vectors(3, 8, affine=False)
    kept = bytes_kept(lambda: function(zs, weight)[0].sum(), [weight])
    # besides the maps: mean and inverse deviation, [N, C] in float32 each
    assert kept == 3 * zs[0].nbytes + 2 * 3 * 8 * 4


def test_weights_gradient_needs_no_gradient_of_the_maps():
    zs, (weight, *_) = maps((2, 3, 5, 5)), vectors(3, 3, affine=False)
    frozen = [z.detach() for z in zs]
    for function in (norm_sum_kernels, norm_sum_torch):
        (grad,) = torch.autograd.grad(function(frozen, weight)[0].square().sum(), weight)
        (expected,) = torch.autograd.grad(norm_sum_reference(frozen, weight)[0].square().sum(), weight)
        assert relative_rms(grad, expected) < 1e-5


@pytest.mark.parametrize("batch", [True, False])
def test_plain_pytorch_is_exact_to_second_order(batch):
    torch.manual_seed(0)
    zs = [torch.randn(2, 2, 3, 1, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    weight, gamma, beta = (torch.randn(*s, dtype=torch.float64, requires_grad=True) for s in ((3,), (3, 2), (3, 2)))
    running = None if batch else (torch.randn(3, 2).double(), torch.rand(3, 2).double() + 0.5)

    def y(weight, gamma, beta, *zs):
        return norm_sum_torch(zs, weight, gamma, beta, running, normalise=NORMALISE)[0]

    assert torch.autograd.gradcheck(y, (weight, gamma, beta, *zs))
    assert torch.autograd.gradgradcheck(y, (weight, gamma, beta, *zs))


def test_kernels_refuse_a_second_derivative():
    zs, (weight, *_) = maps((2, 3, 4, 4)), vectors(3, 3, affine=False)
    (grad,) = torch.autograd.grad(norm_sum_kernels(zs, weight)[0].square().sum(), weight, create_graph=True)
    with pytest.raises(RuntimeError, match="norm_sum_backward"):
        torch.autograd.grad(grad.sum(), zs[0])


@pytest.mark.parametrize("affine", [True, False])
def test_operators_pass_opcheck(affine):
    zs, weight = maps((2, 3, 5, 4)), torch.randn(3, device=DEVICE, requires_grad=True)
    gamma = beta = None
    if affine:
        gamma, beta = (torch.randn(3, 3, device=DEVICE, requires_grad=True) for _ in range(2))
    running = (None, None) if affine else (torch.zeros(3, 3, device=DEVICE), torch.ones(3, 3, device=DEVICE))
    torch.library.opcheck(operator.forward_op, (zs, weight, gamma, beta, *running, 1e-5, NORMALISE))
    inputs = [t if t is None else t.detach() for t in (weight, gamma, beta)]
    mean, invstd = torch.zeros(3, 3, device=DEVICE), torch.ones(3, 3, device=DEVICE)
    zs = [z.detach() for z in zs]
    torch.library.opcheck(operator.backward_op, (torch.ones_like(zs[0]), zs, *inputs, mean, invstd, affine, NORMALISE))


@pytest.mark.parametrize("function", [norm_sum_kernels, norm_sum_torch])
def test_compiles_in_one_graph(function):
    zs, vs = maps((2, 3, 5, 4)), vectors(3, 3, affine=True)
    expected = results(function, zs, *vs)
    torch.compiler.reset()
    check(results(torch.compile(function, fullgraph=True, backend="aot_eager"), zs, *vs), expected, 1e-6)


@pytest.mark.parametrize("function", [norm_sum_kernels, norm_sum_torch])
def test_autocast_casts_the_maps_and_leaves_the_vectors(function):
    zs, (weight, gammas, betas) = maps((2, 3, 5, 4)), vectors(3, 3, affine=True)
    zs[0] = zs[0].detach().bfloat16()
    with torch.autocast(DEVICE, torch.bfloat16):
        y, mean, _ = function(zs, weight, gammas, betas)
    expected, exact, _ = function([z.bfloat16() for z in zs], weight, gammas, betas)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, expected)
    assert torch.equal(mean, exact)


def test_operator_has_the_same_autocast_rule():
    zs, weight = maps((2, 3, 5, 4)), torch.randn(3, device=DEVICE)
    arguments = (weight, None, None, None, None, 1e-5, NORMALISE)
    with torch.autocast(DEVICE, torch.bfloat16):
        y = operator.forward_op(zs, *arguments)[0]
    assert torch.equal(y, operator.forward_op([z.bfloat16() for z in zs], *arguments)[0])


def test_counts_no_multiply_adds_like_the_norms_it_stands_for():
    zs, (weight, *_) = maps((2, 3, 5, 4)), vectors(3, 3, affine=False)
    for function in (
        norm_sum_kernels,
        lambda zs, w: [sum(a * F.batch_norm(z, None, None, training=True) for a, z in zip(w, zs, strict=True))],
    ):
        with FlopCounterMode(display=False) as counter:
            function(zs, weight)[0].sum().backward()
        assert counter.get_total_flops() == 0


Z = torch.zeros(2, 3, 4, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], torch.ones(0)), "at least one tensor"),
        (([Z[0]], torch.ones(1)), "at least one tensor"),
        (([Z, Z[:1]], torch.ones(2)), "one shape, dtype and device"),
        (([Z, Z.double()], torch.ones(2)), "one shape, dtype and device"),
        (([Z, Z], torch.ones(3)), r"weight must have shape \[2\]"),
        (([Z], torch.ones(1), [torch.ones(2)]), r"gammas must be vectors \[3\]"),
        (([Z], torch.ones(1), None, torch.ones(2, 3)), r"betas must have shape \[1, 3\]"),
        (([Z], torch.ones(1), None, None, ([None], [None])), r"no mean or no variance for zs\[0\]"),
        (([Z, Z], torch.ones(2), None, None, (torch.ones(1, 3),) * 2), r"no mean or no variance for zs\[1\]"),
        (([Z], torch.ones(1), None, None, None, -1.0), "must not be negative"),
        (([Z], torch.ones(1), None, None, None, 1e-5, [True, False]), "must have 1 flags"),
        (([Z[:1, :, :1, :1]], torch.ones(1)), "pass running="),
    ],
)
def test_refuses_what_does_not_fit(arguments, message):
    for function in (norm_sum, norm_sum_torch, norm_sum_reference):
        with pytest.raises(ValueError, match=message):
            function(*arguments)


def test_refuses_kernels_that_cannot_run():
    with pytest.raises(ValueError, match="float32, bfloat16 and float16"):
        norm_sum_kernels([Z.double()], torch.ones(1))
    with (
        mock.patch.dict("os.environ", TRITON_INTERPRET="0"),
        pytest.raises(ValueError, match="TRITON_INTERPRET"),
    ):
        norm_sum_kernels([Z], torch.ones(1))


def test_works_without_triton():
    program = """
import sys
sys.modules["triton"] = None
import torch
from search.kernels.norm_sum import norm_sum
zs = [torch.randn(2, 3, 4, 4)]
assert norm_sum(zs, torch.ones(1))[0].shape == (2, 3, 4, 4)
try:
    norm_sum(zs, torch.ones(1), triton=True)
except ValueError as error:
    assert "install it" in str(error)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
