"""The depthwise bank: kernels against the definition in float64."""

import subprocess
import sys
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from search.cost import bytes_kept
from search.kernels.depthwise_bank import depthwise_bank, depthwise_bank_reference, launch, operator
from tests.devices import DEVICE
from tests.search.kernels.kernel_testing import ROOT, poisoned, relative_rms

# relative RMS error against float64, of outputs and of gradients: half types by their rounding (the interpreter cuts
# bfloat16 off, where GPUs round)
BOUNDS = {torch.float32: 1e-6, torch.bfloat16: 6e-3, torch.float16: 1e-3}
LAYOUTS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}
BOTH = ("max", "avg")


def bank_kernels(*args, **kwargs):
    return depthwise_bank(*args, **kwargs, triton=True)


def inputs(shape, targets, sizes, dtype=torch.float32, layout="nchw") -> tuple[Tensor, list[Tensor]]:
    """x, some of it exactly zero, and weights."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator)
    x[..., ::3] *= x[..., ::3] > 0
    weights = [torch.randn(t * shape[1], 1, k, k, generator=generator) for t, k in zip(targets, sizes, strict=True)]
    return x.to(DEVICE, dtype, memory_format=LAYOUTS[layout]), [w.to(DEVICE, dtype) for w in weights]


def results(function, x: Tensor, weights: list[Tensor], *options, dtype=None, **kwargs) -> dict[str, Tensor]:
    """Outputs and all gradients, for gradients of the outputs that depend on their shapes alone."""
    leaves = [t.detach().to(dtype or t.dtype).requires_grad_() for t in (x, *weights)]
    convs, pooled = function(leaves[0], leaves[1:], *options, **kwargs)
    made = [*convs, *pooled]
    generator = torch.Generator().manual_seed(1)
    seeds = [torch.randn(y.shape, generator=generator).to(x.dtype).to(y) for y in made]
    grads = torch.autograd.grad(made, leaves, seeds)
    names = [f"conv{m}" for m in range(len(convs))] + [f"pool{m}" for m in range(len(pooled))]
    return dict(zip(names, made, strict=True)) | {f"d{n}": g for n, g in enumerate(grads)}


def check(actual: dict[str, Tensor], expected: dict[str, Tensor], bound: float) -> None:
    assert actual.keys() == expected.keys()
    assert all(actual[name].shape == expected[name].shape for name in expected)
    errors = {name: relative_rms(actual[name], expected[name]) for name in expected}
    assert max(errors.values()) <= bound, errors


# shape, targets, sizes, dilations, pools, relu
CASES = {
    "unlike targets": ((2, 3, 7, 5), (2, 1, 3), (3, 5, 3), (1, 2, 2), BOTH, True),
    "more than a tile, 7x7": ((1, 2, 13, 23), (1, 2), (7, 5), (1, 1), ("avg", "max"), True),
    "channels of several tiles": ((1, 35, 2, 3), (1,), (5,), (2,), ("max",), False),
    "a single pixel": ((2, 3, 1, 1), (2, 1), (3, 7), (1, 2), ("avg",), False),
    "pools alone": ((2, 3, 2, 9), (), (), (), BOTH, True),
    "no pools": ((2, 5, 6, 6), (2,), (3,), (1,), (), True),
}


def equal_the_definition(case, dtype, stride, layout) -> None:
    shape, targets, sizes, dilations, pools, relu = CASES[case]
    x, weights = inputs(shape, targets, sizes, dtype, layout)
    with poisoned():
        actual = results(bank_kernels, x, weights, dilations, stride, pools, relu)
    expected = results(depthwise_bank_reference, x, weights, dilations, stride, pools, relu, dtype=torch.float64)
    check(actual, expected, BOUNDS[dtype])
    for name, made in actual.items():
        assert made.dtype == dtype
        weights_gradient = name.startswith("d") and name != "d0"
        assert made.is_contiguous(memory_format=LAYOUTS["nchw" if weights_gradient else layout])


@pytest.mark.parametrize(
    ("stride", "layout"),
    [
        *((1, "nchw"), (2, "channels_last")),
        *(pytest.param(*both, marks=pytest.mark.slow) for both in ((1, "channels_last"), (2, "nchw"))),
    ],
)
@pytest.mark.parametrize("case", CASES)
def test_kernels_equal_the_definition(case, stride, layout):
    equal_the_definition(case, torch.float32, stride, layout)


@pytest.mark.parametrize(
    ("dtype", "stride", "layout"),
    [
        *((torch.bfloat16, 1, "channels_last"), (torch.float16, 2, "nchw")),
        pytest.param(torch.bfloat16, 2, "nchw", marks=pytest.mark.slow),
        pytest.param(torch.float16, 1, "channels_last", marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_kernels_equal_the_definition_in_half_types(dtype, stride, layout):
    equal_the_definition("unlike targets", dtype, stride, layout)


@pytest.mark.parametrize("function", [bank_kernels, depthwise_bank_reference])
def test_channels_are_targets_then_inputs(function):
    x, (weight, _) = inputs((1, 3, 5, 4), (2, 2), (3, 3))
    (y, dilated), _ = function(x, [weight, weight], (1, 2), 1, (), False)
    for t in range(2):
        for c in range(3):
            row = weight[t * 3 + c : t * 3 + c + 1]
            assert relative_rms(y[:, t * 3 + c], F.conv2d(x[:, c : c + 1], row, padding=1)[:, 0]) < 1e-6
            expected = F.conv2d(x[:, c : c + 1], row, padding=2, dilation=2)[:, 0]
            assert relative_rms(dilated[:, t * 3 + c], expected) < 1e-6


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("stride", [1, 2])
def test_max_pool_keeps_torch_s_maxima_bit_for_bit(stride, layout):
    # ties everywhere, NaN and windows of nothing but -inf
    x = torch.randint(0, 3, (3, 2, 9, 8), generator=torch.Generator().manual_seed(0)).float()
    x[0, 0, 2:4, 3] = float("nan")
    x[1, 1, :5, :6] = float("-inf")
    x[2, 0] = 1.0
    x = x.to(DEVICE, memory_format=LAYOUTS[layout]).requires_grad_()
    _, (y,) = bank_kernels(x, [], [], stride, ("max",))
    expected = F.max_pool2d(x, 3, stride, 1)
    assert torch.equal(y.isnan(), expected.isnan())
    assert torch.equal(y.nan_to_num(9.0), expected.nan_to_num(9.0))
    seed = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(DEVICE, memory_format=LAYOUTS[layout])
    (grad,), (other,) = torch.autograd.grad(y, x, seed), torch.autograd.grad(expected, x, seed)
    if DEVICE == "cuda" and layout == "channels_last":
        # CUDA gives a window of nothing but -inf to its first pixel, inside the image or not
        grad, other = grad[[0, 2]], other[[0, 2]]
    assert torch.equal(grad, other)


def test_relu_passes_nan_and_stops_at_zero():
    x = torch.tensor([float("nan"), 0.0, -0.0, -1.0, 2.0]).view(1, 5, 1, 1).to(DEVICE).requires_grad_()
    weight = torch.ones(5, 1, 3, 3, device=DEVICE)
    ys = [function(x, [weight], [1], 1, ())[0][0] for function in (bank_kernels, depthwise_bank_reference)]
    assert all(torch.equal(y.nan_to_num(9.0).flatten().cpu(), torch.tensor([9.0, 0, 0, 0, 2])) for y in ys)
    for y in ys:
        assert torch.autograd.grad(y.sum(), x)[0].flatten().tolist() == [1, 0, 0, 0, 1]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_channel_slices_are_read_where_they_lie(layout):
    whole, weights = inputs((2, 8, 5, 7), (1,), (3,), layout=layout)
    x, weights = whole[:, 2:6], [weights[0][2:6]]
    last = layout == "channels_last"
    assert launch.even(x, last).data_ptr() == x.data_ptr()
    actual = results(bank_kernels, x, weights, [1], 1)
    check(actual, results(depthwise_bank_reference, x, weights, [1], 1, dtype=torch.float64), 1e-6)
    assert actual["conv0"].is_contiguous(memory_format=LAYOUTS[layout])


@pytest.mark.parametrize(
    "stretch", [lambda x: x[..., ::2], lambda x: x.transpose(2, 3)], ids=["every other column", "transposed"]
)
def test_any_strides_and_expanded_gradients(stretch):
    x, weights = inputs((2, 3, 6, 8), (2,), (3,))
    leaves = [stretch(x).detach().requires_grad_(), weights[0].requires_grad_()]
    grads = {}
    for function in (bank_kernels, depthwise_bank_reference):
        (conv,), (top, mean) = function(leaves[0], leaves[1:], [1], 1)
        grads[function] = torch.autograd.grad(conv.mean() + top.sum() - mean.mean((2, 3)).sum(), leaves)
    assert max(map(relative_rms, *grads.values())) < 1e-6


def test_outputs_that_nothing_uses_count_as_zero():
    x, weights = inputs((2, 3, 5, 4), (2, 1), (3, 5))
    leaves = [t.requires_grad_() for t in (x, *weights)]
    for used in range(3):
        grads = {}
        for triton in (True, False):
            convs, pooled = depthwise_bank(leaves[0], leaves[1:], (1, 2), 1, triton=triton)
            grads[triton] = torch.autograd.grad([*convs, *pooled][used].square().sum(), leaves, materialize_grads=True)
        for actual, expected in zip(grads[True], grads[False], strict=True):
            assert torch.allclose(actual, expected, rtol=1e-5, atol=1e-4)


def test_empty_batches_give_empty_outputs_and_zero_gradients():
    x, weights = inputs((0, 3, 5, 4), (2,), (3,))
    actual = results(bank_kernels, x, weights, [1], 2)
    assert actual["conv0"].shape == (0, 6, 3, 2)
    assert actual["d1"].count_nonzero() == 0


def test_equal_inputs_give_equal_bits():
    x, weights = inputs((1, 2, 17, 16), (2,), (3,))
    first, second = (results(bank_kernels, x, weights, [1], 1) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_keeps_x_and_a_byte_for_each_maximum():
    x, weights = inputs((2, 4, 8, 8), (2, 2), (3, 5))
    x.requires_grad_()
    weights = [w.requires_grad_() for w in weights]

    def loss():
        convs, pooled = bank_kernels(x, weights, (1, 1), 1)
        return sum(y.sum() for y in (*convs, *pooled))

    assert bytes_kept(loss, weights) == x.nbytes + x.numel()


def test_kernels_refuse_a_second_derivative():
    x, weights = inputs((2, 3, 4, 4), (1,), (3,))
    (y,), _ = bank_kernels(x.requires_grad_(), weights, [1], 1)
    (grad,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="depthwise_bank_backward"):
        torch.autograd.grad(grad.sum(), x)


@pytest.mark.parametrize("stacked", [False, True])
def test_weights_gradients_cost_nothing_where_none_is_asked_for(stacked):
    x, weights = inputs((1, 3, 5, 4), (1, 1), (3, 3))
    leaves = [t.requires_grad_() for t in (x, *weights)]
    given = [torch.cat([w, w]) for w in weights] if stacked else weights
    (expected,) = torch.autograd.grad(depthwise_bank(x, given, [1, 1], 1, triton=False)[0][0].sum(), x, retain_graph=True)
    with mock.patch.object(launch, "backward", wraps=launch.backward) as backward:
        for wanted in ([x], leaves, None):
            (conv, _), _ = bank_kernels(x, given, [1, 1], 1)
            total = conv.sum()
            if wanted is None:
                total.backward()
            else:
                grads = torch.autograd.grad(total, wanted, allow_unused=True)
                assert wanted[0] is not x or relative_rms(grads[0], expected) < 1e-6
    # how many weights' gradients each pass made; of the second candidate, whose output isn't used, none
    assert [len(call.args[-1]) for call in backward.call_args_list] == [0, 1, 1]


@pytest.mark.parametrize("layout", ["nchw", pytest.param("channels_last", marks=pytest.mark.slow)])
def test_forward_operator_passes_opcheck(layout):
    x, weights = inputs((1, 2, 3, 2), (1, 1), (3, 3), layout=layout)
    leaves = (x.requires_grad_(), [w.requires_grad_() for w in weights])
    torch.library.opcheck(operator.forward_op, (*leaves, [1, 2], 2, True, True, True))


@pytest.mark.parametrize("layout", [pytest.param("nchw", marks=pytest.mark.slow), "channels_last"])
def test_backward_operator_passes_opcheck(layout):
    x, weights = inputs((1, 2, 3, 2), (1, 1), (3, 3), layout=layout)
    convs, pooled = depthwise_bank_reference(x, weights, [1, 2], 2)
    torch.library.opcheck(operator.backward_op, (x, weights, [1, 2], 2, True, convs, None, None, pooled[1], True))


@pytest.mark.slow
def test_compiles_in_one_graph():
    x, weights = inputs((2, 3, 5, 4), (2, 1), (3, 5))
    expected = results(bank_kernels, x, weights, (1, 2), 2)
    torch.compiler.reset()
    compiled = torch.compile(bank_kernels, fullgraph=True, backend="aot_eager")
    check(results(compiled, x, weights, (1, 2), 2), expected, 1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("triton", [True, False])
def test_autocast_casts_x_and_weights(dtype, triton):
    x, weights = inputs((2, 3, 5, 4), (2,), (3,))
    leaves = [t.requires_grad_() for t in (x, *weights)]
    halves = [t.detach().to(dtype) for t in leaves]
    expected = depthwise_bank(halves[0], halves[1:], [1], 1, triton=triton)
    with torch.autocast(DEVICE, dtype):
        actual = depthwise_bank(leaves[0], leaves[1:], [1], 1, triton=triton)
    for a, b in zip((*actual[0], *actual[1]), (*expected[0], *expected[1]), strict=True):
        assert a.dtype == dtype and torch.equal(a, b)
    grads = torch.autograd.grad(actual[0][0].sum(), leaves)
    assert all(grad.dtype == torch.float32 for grad in grads)


def test_operator_has_the_same_autocast_rule():
    x, weights = inputs((2, 3, 5, 4), (2,), (3,))
    options = ([1], 1, True, True, False)
    with torch.autocast(DEVICE, torch.bfloat16):
        actual = operator.forward_op(x, weights, *options)
    expected = operator.forward_op(x.bfloat16(), [w.bfloat16() for w in weights], *options)
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))


def test_counts_the_multiply_adds_of_the_convolutions():
    x, weights = inputs((2, 3, 5, 4), (2, 1), (3, 5))
    leaves = [t.requires_grad_() for t in (x, *weights)]
    for function in (bank_kernels, depthwise_bank_reference):
        with FlopCounterMode(display=False) as counter:
            convs, pooled = function(leaves[0], leaves[1:], (1, 2), 2)
        # outputs of 3 by 2 for two images: 9 taps for 6 channels and 25 for 3
        assert counter.get_total_flops() == 2 * 12 * (9 * 6 + 25 * 3)
        with FlopCounterMode(display=False) as counter:
            torch.autograd.grad(convs[0].sum(), leaves[0])
        assert counter.get_total_flops() == 2 * 12 * 9 * 6
    # of the weights as many again; not compared, because torch counts a grouped convolution's weights once for each group
    convs, pooled = bank_kernels(leaves[0], leaves[1:], (1, 2), 2)
    with FlopCounterMode(display=False) as counter:
        sum(y.sum() for y in (*convs, *pooled)).backward()
    assert counter.get_total_flops() == 2 * 2 * 12 * (9 * 6 + 25 * 3)


X, W = torch.zeros(2, 3, 4, 4), torch.zeros(6, 1, 3, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((X[0], [W], [1], 1), "x must have shape"),
        ((X[:, :, :0], [W], [1], 1), "above zero"),
        ((X, [W], [1], 3), "stride=3"),
        ((X, [W], [1, 1], 1), "for 1 weights"),
        ((X, [W], [3], 1), r"dilations=\[3\]"),
        ((X, [W], [1], 1, ("min",)), r"pools=\['min'\]"),
        ((X, [W], [1], 1, ("max", "max")), "at most once"),
        ((X, [], [], 1, ()), "neither weights nor pools"),
        ((X, [W[:4]], [1], 1), r"\[T \* 3, 1, k, k\]"),
        ((X, [W[..., :1]], [1], 1), r"\[T \* 3, 1, k, k\]"),
        ((X, [W.double()], [1], 1), "must be alike"),
    ],
)
def test_refuses_what_does_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        depthwise_bank(*arguments)


def test_refuses_kernels_that_cannot_run():
    with pytest.raises(ValueError, match="float32, bfloat16 and float16"):
        bank_kernels(X.double(), [W.double()], [1], 1)
    with (
        mock.patch.dict("os.environ", TRITON_INTERPRET="0"),
        pytest.raises(ValueError, match="TRITON_INTERPRET"),
    ):
        bank_kernels(X, [W], [1], 1)


def test_works_without_triton():
    program = """
import sys
sys.modules["triton"] = None
import torch
from search.kernels.depthwise_bank import depthwise_bank
x, weight = torch.randn(2, 3, 4, 4), torch.randn(6, 1, 3, 3)
assert depthwise_bank(x, [weight], [1], 2)[0][0].shape == (2, 6, 2, 2)
try:
    depthwise_bank(x, [weight], [1], 2, triton=True)
except ValueError as error:
    assert "install it" in str(error)
else:
    raise SystemExit("no error")
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
