"""The partial-channel node: kernels and plain PyTorch against the definition in float64, the definition against edges."""

import subprocess
import sys
from collections.abc import Callable, Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from search.cost import bytes_kept
from search.kernels.partial_node import (
    launch,
    max_pool_2x2,
    max_pool_2x2_torch,
    operator,
    partial_node,
    partial_node_reference,
    partial_node_torch,
)
from search.supernet import partial
from tests.devices import DEVICE
from tests.search.kernels.kernel_testing import ROOT, TYPES_AND_LAYOUTS, poisoned, relative_rms

# relative RMS error against float64, of outputs and of gradients: half types by their rounding (the interpreter cuts
# bfloat16 off, where GPUs round)
BOUNDS = {torch.float32: 1e-6, torch.bfloat16: 6e-3, torch.float16: 1e-3, torch.float64: 1e-12}
LAYOUTS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}


def partial_node_kernels(*args, **kwargs):
    return partial_node(*args, **kwargs, triton=True)


def max_pool_kernels(x):
    return max_pool_2x2(x, triton=True)


class Node:
    """Leaves of a node of T channels an edge: states, mixed tensors and weights. Edges of stride 2 read twice the size."""

    def __init__(self, k: int, strides: Sequence[int], t: int, size: tuple[int, int], dtype=torch.float32, layout="nchw"):
        def made(channels: int, stride: int) -> Tensor:
            h, w = size if stride == 2 or 2 not in strides else ((n + 1) // 2 for n in size)
            # a mean, so that no sum is a difference of large numbers
            x = (torch.randn(2, channels, h, w) + 0.5).to(DEVICE, dtype, memory_format=LAYOUTS[layout])
            return x.requires_grad_()

        self.k, self.t, self.strides = k, t, list(strides)
        self.states = [made(k * t, s) for s in strides]
        self.mixed = [made(t, 1) for _ in strides]
        self.weights = torch.softmax(torch.randn(len(strides), device=DEVICE), 0).requires_grad_()

    def double(self) -> "Node":
        other = Node.__new__(Node)
        other.k, other.t, other.strides = self.k, self.t, self.strides
        other.states, other.mixed = ([x.detach().double().requires_grad_() for x in xs] for xs in (self.states, self.mixed))
        other.weights = self.weights.detach().double().requires_grad_()
        return other

    def rests(self) -> list[Tensor]:
        return [x.split((self.t, x.shape[1] - self.t), dim=1)[1] for x in self.states] if self.k > 1 else []

    def run(self, function: Callable, weighted: str, **kwargs) -> Tensor:
        weights = {"both": (self.weights,) * 2, "rests": (None, self.weights), "mixed": (self.weights, None)}.get(weighted)
        weights = weights or {"fixed": (self.weights.detach(),) * 2, "none": (None, None)}[weighted]
        kwargs |= dict(zip(("mixed_weights", "rest_weights"), weights, strict=True))
        if self.k == 1:
            return function(self.mixed, [], 1, mixed_weights=weights[0])
        return function(self.mixed, self.rests(), self.k, strides=self.strides, **kwargs)

    def results(self, function: Callable, weighted: str = "both") -> dict[str, Tensor]:
        """y and every gradient, for a gradient of y that depends on its shape alone."""
        y = self.run(function, weighted)
        leaves = {f"d mixed[{e}]": x for e, x in enumerate(self.mixed)}
        if self.k > 1:
            leaves |= {f"d state[{e}]": x for e, x in enumerate(self.states)}
        if weighted in ("both", "mixed") or (weighted == "rests" and self.k > 1):
            leaves["d weights"] = self.weights
        # values that every type holds
        seed = (torch.randn(y.shape, generator=torch.Generator().manual_seed(1)) + 0.5).bfloat16().to(y)
        grads = torch.autograd.grad(y, list(leaves.values()), seed)
        return {"y": y} | dict(zip(leaves, grads, strict=True))


def check(actual: dict[str, Tensor], expected: dict[str, Tensor], bound: float) -> None:
    assert actual.keys() == expected.keys()
    errors = {name: relative_rms(actual[name], expected[name]) for name in expected}
    assert all(error <= bound for error in errors.values()), errors


# k, strides, t, size: one edge and mixed strides, odd sizes, several tiles of positions and of channels, single values
CASES = [
    (1, (1, 1), 3, (5, 6)),
    (2, (1, 1, 1), 3, (17, 31)),
    (4, (2, 1, 2), 3, (9, 12)),
    (3, (2,), 2, (37, 35)),
    (2, (2, 1), 35, (3, 1)),
    (8, (1, 1), 1, (1, 1)),
]
WEIGHTED = ["both", "rests", "mixed", "fixed", "none"]


@pytest.mark.parametrize("k", [1, 2, 4, 8])
@pytest.mark.parametrize("strides", [(1, 1), (2, 2, 1), (2,)], ids=str)
def test_definition_is_the_sum_of_the_supernets_edges(k, strides):
    torch.manual_seed(0)
    node = Node(k, strides, 2, (7, 8)).double()
    y = node.run(partial_node_reference, "both")
    edges = []
    for e, x in enumerate(node.states):
        _, rest = partial.split(x, k)
        joined = partial.join(node.mixed[e], rest, k, strides[e]) if k > 1 else node.mixed[e]
        edges.append(node.weights[e] * joined)
    assert relative_rms(y, sum(edges)) < 1e-14


@pytest.mark.parametrize(("dtype", "layout"), TYPES_AND_LAYOUTS, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_kernels_equal_the_definition(case, dtype, layout):
    torch.manual_seed(0)
    node = Node(*case, dtype=dtype, layout=layout)
    # the case of all weights for every case; of the others one each
    for weighted in ("both", WEIGHTED[1 + CASES.index(case) % 4]):
        with poisoned():
            actual = node.results(partial_node_kernels, weighted)
        check(actual, node.double().results(partial_node_reference, weighted), BOUNDS[dtype])
        assert actual["y"].dtype == actual["d mixed[0]"].dtype == dtype
        if case[2] > 1 and min(case[3]) > 3:
            for name in ("y", "d mixed[0]"):
                assert actual[name].is_contiguous(memory_format=LAYOUTS[layout])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_plain_pytorch_equals_the_definition(case, dtype, layout):
    torch.manual_seed(0)
    node = Node(*case, dtype=dtype, layout=layout)
    node = node.double() if dtype == torch.float64 else node
    for weighted in WEIGHTED:
        with poisoned():
            actual = node.results(partial_node_torch, weighted)
        check(actual, node.double().results(partial_node_reference, weighted), BOUNDS[dtype])
        if case[2] > 1 and min(case[3]) > 3:
            assert actual["y"].is_contiguous(memory_format=LAYOUTS[layout])


@pytest.mark.parametrize("function", [max_pool_kernels, max_pool_2x2_torch])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [(8, 10), (7, 9), (1, 5), (5, 1)], ids=str)
def test_pool_is_torchs_bit_for_bit(size, layout, dtype, function):
    torch.manual_seed(0)
    # few values: many ties; some windows of one value, some with NaN, some all -inf
    x = torch.randint(0, 3, (4, 5, *size)).float()
    x[0, 0] = 1.0
    x[1][torch.rand(5, *size) < 0.3] = float("nan")
    x[2][torch.rand(5, *size) < 0.6] = float("-inf")
    x[3, 0] = float("-inf")
    x = x.to(DEVICE, dtype, memory_format=LAYOUTS[layout]).requires_grad_()
    expected = F.max_pool2d(x, 2, 2, ceil_mode=True)
    seed = torch.randn(expected.shape).to(expected)
    (expected_grad,) = torch.autograd.grad(expected, x, seed)
    with poisoned():
        y = function(x)
        (grad,) = torch.autograd.grad(y, x, seed)
        unrecorded = function(x.detach())
    assert torch.equal(y.nan_to_num(9.0), expected.nan_to_num(9.0))
    assert torch.equal(unrecorded.nan_to_num(9.0), expected.nan_to_num(9.0))
    # torch on CUDA has an exception of its own: channels-last and all -inf
    compared = slice(None) if DEVICE == "cpu" or layout == "nchw" else slice(0, 2)
    assert torch.equal(grad[compared], expected_grad[compared])


def test_a_pooled_state_may_stand_for_an_edge_of_stride_2():
    torch.manual_seed(0)
    node = Node(4, (2, 2, 1), 2, (6, 9))
    expected = node.results(partial_node_torch)
    pooled = node.results(
        lambda mixed, rests, k, strides, **kw: partial_node_torch(
            mixed, [max_pool_2x2(r) if s == 2 else r for r, s in zip(rests, strides, strict=True)], k, **kw
        )
    )
    assert all(torch.equal(pooled[name], expected[name]) for name in expected)


@pytest.mark.parametrize("function", [partial_node_kernels, partial_node_torch])
def test_mixed_tensors_may_be_weighted_and_added_up_before(function):
    torch.manual_seed(0)
    node = Node(2, (1, 1, 1), 2, (3, 4))
    expected = node.run(function, "both")
    summed = torch.einsum("ebchw,e->bchw", torch.stack(node.mixed), node.weights)
    y = function([summed], node.rests(), 2, rest_weights=node.weights)
    assert relative_rms(y, expected) < 1e-6
    grads, expected = (torch.autograd.grad(out.sum(), [node.weights, *node.states, *node.mixed]) for out in (y, expected))
    assert max(map(relative_rms, grads, expected)) < 1e-6


@pytest.mark.parametrize("function", [partial_node_kernels, partial_node_torch])
def test_inputs_without_gradient(function):
    torch.manual_seed(0)
    node = Node(2, (2, 1), 2, (5, 4))
    frozen = [r.detach() for r in node.rests()]
    y = function(node.mixed, frozen, 2, strides=node.strides)
    (grad,) = torch.autograd.grad(y.sum(), node.mixed[1])
    assert torch.equal(grad, torch.ones_like(grad))
    mixed = [m.detach() for m in node.mixed]
    leaves = [node.weights, node.states[0]]
    grads = []
    for made in (function, partial_node_reference):
        y = made(mixed, node.rests(), 2, mixed_weights=node.weights.detach(), rest_weights=node.weights, strides=node.strides)
        grads.append(torch.autograd.grad(y.square().sum(), leaves))
    assert max(map(relative_rms, *grads)) < 1e-6
    with torch.no_grad():
        unrecorded = node.run(function, "both")
    assert torch.equal(unrecorded, node.run(function, "both")) and not unrecorded.requires_grad


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rests_are_read_where_they_lie(layout):
    states = [torch.randn(2, 8, 5, 6).to(memory_format=LAYOUTS[layout]) for _ in range(2)]
    rests = [x[:, 2:] for x in states]
    assert [r.data_ptr() for r in launch._even(rests)] == [r.data_ptr() for r in rests]


@pytest.mark.parametrize("function", [partial_node_kernels, partial_node_torch])
def test_inputs_may_lie_anyhow(function):
    torch.manual_seed(0)
    node = Node(2, (1, 1, 1), 2, (4, 4))
    node.mixed[0] = torch.randn(2, 2, 4, 8, device=DEVICE)[..., ::2].requires_grad_()
    node.mixed[1] = node.mixed[1].detach().transpose(2, 3).requires_grad_()
    node.states[2] = torch.randn(2, 4, 4, 4, device=DEVICE).to(memory_format=torch.channels_last).requires_grad_()
    node.weights = torch.rand(6, device=DEVICE)[::2].requires_grad_()
    check(node.results(function), node.double().results(partial_node_reference), 1e-6)


@pytest.mark.parametrize("function", [partial_node_kernels, partial_node_torch])
def test_equal_inputs_give_equal_bits(function):
    torch.manual_seed(0)
    node = Node(2, (2, 1), 3, (37, 35))
    first, second = (node.results(function) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("function", [partial_node_kernels, partial_node_torch])
def test_keeps_what_its_docstring_says(function):
    node = Node(4, (2, 1, 1), 2, (16, 16))
    inputs = [*node.states, *node.mixed, node.weights]

    def kept(weighted: str, exclude: list[Tensor]) -> int:
        return bytes_kept(lambda: node.run(function, weighted).sum(), exclude)

    windows = 2 * 6 * 8 * 8
    assert kept("none", inputs) == windows
    assert kept("fixed", inputs) == windows
    assert kept("fixed", []) == windows + node.weights.nbytes
    mixed = sum(m.nbytes for m in node.mixed)
    assert kept("mixed", [node.weights]) == mixed + windows
    # the kernels read the state again, which others keep too; plain PyTorch keeps the pooled rest
    states = sum(x.nbytes for x in node.states[1:])
    states += node.states[0].nbytes if function is partial_node_kernels else 4 * windows + windows
    assert kept("rests", [node.weights]) == states
    assert kept("both", [node.weights]) == states + mixed


@pytest.mark.parametrize("weighted", ["both", "rests", "mixed", "none"])
def test_plain_pytorch_is_exact_to_second_order(weighted):
    torch.manual_seed(0)
    node = Node(2, (2, 1), 1, (3, 4)).double()
    leaves = [*node.states, *node.mixed, node.weights]

    def y(*tensors: Tensor) -> Tensor:
        node.states, node.mixed, node.weights = tensors[:2], list(tensors[2:4]), tensors[4]
        # nonlinear, or the second derivatives by the inputs alone would vanish
        return node.run(partial_node_torch, weighted).square()

    assert torch.autograd.gradcheck(y, leaves)
    assert torch.autograd.gradgradcheck(y, leaves)


def test_kernels_refuse_a_second_derivative():
    node = Node(2, (1, 1), 1, (3, 4))
    (grad,) = torch.autograd.grad(node.run(partial_node_kernels, "both").square().sum(), node.weights, create_graph=True)
    with pytest.raises(RuntimeError, match="partial_node_backward"):
        torch.autograd.grad(grad.sum(), node.mixed[0])


@pytest.mark.parametrize("weighted", ["both", "none"])
def test_operators_pass_opcheck(weighted):
    node = Node(2, (2, 1), 2, (5, 4), layout="channels_last" if weighted == "both" else "nchw")
    weights = (node.weights,) * 2 if weighted == "both" else (None, None)
    rests = [r.detach().requires_grad_() for r in node.rests()]
    torch.library.opcheck(operator.forward_op, (node.mixed, rests, *weights, 2, [2, 1], weighted == "none"))
    mixed, rests = ([x.detach() for x in xs] for xs in (node.mixed, rests))
    y, positions = operator.forward_op(mixed, rests, None, None, 2, [2, 1], True)
    if weighted == "both":
        given, positions, count = (mixed, rests, *(w.detach() for w in weights)), positions[:0], 2
    else:
        given, count = ([], [], None, None), 1
    arguments = (y, *given, positions, 2, count, [2, 1], [5, 4, 3, 2], weighted == "both")
    torch.library.opcheck(operator.backward_op, arguments)


@pytest.mark.parametrize("weighted", ["both", "fixed", "none"])
@pytest.mark.parametrize("function", [partial_node_kernels, partial_node_torch])
def test_compiles_in_one_graph(function, weighted):
    torch.manual_seed(0)
    node = Node(2, (2, 1), 2, (5, 4))
    expected = node.results(function, weighted)
    torch.compiler.reset()
    check(node.results(torch.compile(function, fullgraph=True, backend="aot_eager"), weighted), expected, 1e-6)


@pytest.mark.parametrize("function", [partial_node_kernels, partial_node_torch])
def test_autocast_gives_the_type_that_edge_by_edge_gives(function):
    torch.manual_seed(0)
    node = Node(2, (1, 1), 2, (3, 4))
    halves = [m.detach().bfloat16() for m in node.mixed]
    with torch.autocast(DEVICE, torch.bfloat16):
        edges = [partial.join(m, r, 2, 1) for m, r in zip(halves, node.rests(), strict=True)]
        by_edge = sum(node.weights[e] * edge for e, edge in enumerate(edges))
        y = function(halves, node.rests(), 2, mixed_weights=node.weights, rest_weights=node.weights)
        low = function(halves, [r.bfloat16() for r in node.rests()], 2, rest_weights=node.weights)
    assert y.dtype == by_edge.dtype == torch.float32 and low.dtype == torch.bfloat16
    assert relative_rms(y, by_edge) < 1e-6


def test_counts_no_multiply_adds():
    node = Node(2, (2, 1), 2, (5, 4))
    for function in (partial_node_kernels, partial_node_torch, partial_node_reference):
        with FlopCounterMode(display=False) as counter:
            node.run(function, "both").sum().backward()
        assert counter.get_total_flops() == 0


X = torch.zeros(2, 3, 4, 4)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (([], [X], 2), {}, "at least one mixed tensor"),
        (([X, X[:1]], [X], 2), {}, "must have one shape"),
        (([X], [X], 1), {}, "k=1 leaves no rest"),
        (([X], [], 2), {}, "k > 1 needs at least one rest"),
        (([X], [X], 2), {"strides": [3]}, r"strides=\[3\] for 1 rests"),
        (([X], [X], 2), {"strides": [1, 1]}, "for 1 rests"),
        (([X], [X], 4), {}, "needed are 9 channels"),
        (([X], [X], 2), {"strides": [2]}, "after pooling, 4 by 4"),
        (([X], [X], 2), {"rest_weights": torch.ones(2)}, r"rest_weights of shape \(2,\)"),
        (([X, X], [X], 2), {"mixed_weights": torch.ones(1)}, r"mixed_weights of shape \(1,\)"),
    ],
)
def test_refuses_what_makes_no_node(arguments, options, message):
    for function in (partial_node, partial_node_torch):
        with pytest.raises(ValueError, match=message):
            function(*arguments, **options)


def test_refuses_kernels_that_cannot_run(monkeypatch):
    with pytest.raises(ValueError, match="float32, bfloat16 and float16"):
        partial_node_kernels([X.double()], [], 1)
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(ValueError, match="TRITON_INTERPRET"):
        partial_node_kernels([X], [], 1)


def test_works_without_triton():
    program = """
import sys
sys.modules["triton"] = None
import torch
from search.kernels.partial_node import partial_node
x = torch.randn(2, 3, 4, 4)
assert partial_node([x], [x], 2).shape == (2, 6, 4, 4)
try:
    partial_node([x], [x], 2, triton=True)
except ValueError as error:
    assert "needs the package triton" in str(error)
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


@pytest.mark.parametrize("function", [partial_node_kernels, partial_node_torch])
def test_an_empty_batch(function):
    node = Node(2, (2, 1), 2, (5, 4))
    node.states, node.mixed = ([x.detach()[:0].requires_grad_() for x in xs] for xs in (node.states, node.mixed))
    y = node.run(function, "both")
    assert y.shape == (0, 4, 3, 2)
    assert torch.equal(torch.autograd.grad(y.sum(), node.weights)[0].cpu(), torch.zeros(2))
