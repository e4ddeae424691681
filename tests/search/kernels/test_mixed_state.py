"""All mixed operations of a state: the kernels against the definition in float64, and what the operator promises."""

from unittest import mock

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from search.cost import bytes_kept
from search.kernels.mixed_state import Structure, mixed_state, mixed_state_reference, operator
from tests.devices import DEVICE
from tests.search.kernels.kernel_testing import poisoned, relative_rms

pytest.importorskip("triton")

# the candidates of DARTS
DARTS = Structure(2, (2, 2, 1, 1), (3, 5, 3, 5, 3, 5), (1, 1, 2, 2, 1, 1), 1, True, True, True, True, 0)
SMALL = Structure(2, (2, 1), (3, 3, 5), (1, 2, 1), 1, True, True, True, True, 0)
TILES = "several tiles of positions"
CASES = {
    "DARTS": (DARTS, 2, (5, 4), False),
    "DARTS at stride 2, odd": (Structure(2, (2, 1), (3, 5, 3), (1, 2, 1), 2, True, True, False, True, 1), 3, (7, 5), False),
    "7x7, pools not normalised, affine": (Structure(1, (2,), (7, 3), (1, 2), 1, True, False, True, False, 0), 4, (5, 5), True),
    "three steps, affine": (Structure(3, (3, 1), (3, 5, 3, 7), (1, 1, 2, 1), 1, False, True, True, True, 1), 2, (6, 6), True),
    "pools alone": (Structure(2, (), (), (), 2, True, True, False, True, 0), 3, (5, 4), False),
    "the state alone": (Structure(2, (), (), (), 1, False, False, True, True, 0), 2, (4, 4), False),
    # 667 positions, of which a tile forward has 512, one backward 256
    TILES: (SMALL, 2, (23, 29), False),
}


def inputs(structure, channels, size, affine, gated=True, dtype=torch.float32, batch=2):
    """x, a slice of the channels; weights; gates; gamma, beta, inner gamma, inner beta; other maps."""
    torch.manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, device=DEVICE)

    rows = structure.targets * channels
    count = len(structure.normalise())
    out = [(n + structure.stride - 1) // structure.stride for n in size]
    inner = sum(len(step.sizes) * rows for step in list(structure.steps(channels))[1:])
    vectors = [draw(count, rows), draw(count, rows), *([draw(inner), draw(inner)] if inner else [None, None])]
    x = draw(batch, 2 * channels, *size)[:, :channels]
    gates = draw(count, structure.targets) if gated else None
    given = [x.to(dtype), draw(structure.weights(channels)).to(dtype), gates, *(vectors if affine else [None] * 4)]
    return given, [(draw(batch, rows, *out) + 3).to(dtype) for _ in range(structure.others)]


def results(function, structure, given, others, dtype=None, layout=torch.contiguous_format):
    """y and the gradients of everything given; layout: of y's gradient."""

    def leaf(tensor):
        return None if tensor is None else tensor.detach().to(dtype or tensor.dtype).requires_grad_()

    (x, weights, *vectors), others = list(map(leaf, given)), list(map(leaf, others))
    y = function(x, weights, structure, *vectors, others)
    y = y[0] if isinstance(y, tuple) else y
    leaves = [t for t in (x, weights, *vectors, *others) if t is not None and t.numel()]
    seed = torch.linspace(-1, 1, y.numel(), device=DEVICE).view(y.shape).to(y).contiguous(memory_format=layout)
    return [y, *torch.autograd.grad(y, leaves, seed)]


def check(actual, expected, bounds):
    for n, (a, e, bound) in enumerate(zip(actual, expected, bounds, strict=True)):
        assert relative_rms(a, e) <= bound, (n, relative_rms(a, e), bound)


@pytest.mark.parametrize(
    ("case", "gated"),
    [
        *((case, True) for case in CASES if case != TILES),
        *((case, False) for case in ("pools alone", "the state alone")),
        pytest.param(TILES, True, marks=pytest.mark.slow),
    ],
)
def test_equals_the_definition(case, gated):
    structure, channels, size, affine = CASES[case]
    given, others = inputs(structure, channels, size, affine, gated)
    if not structure.lengths:
        # nothing but x and gates takes part
        given[1] = given[1].new_empty(0)
    with poisoned():
        actual = results(mixed_state, structure, given, others)
    exact = results(mixed_state_reference, structure, given, others, torch.float64)
    single = results(mixed_state_reference, structure, given, others)
    check(actual, exact, [max(1e-5, 2 * relative_rms(s, e)) for s, e in zip(single, exact, strict=True)])


@pytest.mark.parametrize("dtype", [torch.bfloat16, pytest.param(torch.float16, marks=pytest.mark.slow)], ids=str)
def test_half_types(dtype):
    given, others = inputs(SMALL, 2, (9, 7), False, dtype=dtype)
    with poisoned():
        actual = results(mixed_state, SMALL, given, others)
    exact = results(mixed_state_reference, SMALL, given, others, torch.float64)
    assert [t.dtype for t in actual] == [dtype, dtype, dtype, torch.float32]
    # maps and gradients are rounded between steps, so in bfloat16 the definition itself errs by 0.004 to 0.024
    own = results(mixed_state_reference, SMALL, given, others)
    check(actual, exact, [2 * relative_rms(o, e) for o, e in zip(own, exact, strict=True)])


def test_channels_last_gives_the_same():
    given, others = inputs(SMALL, 2, (4, 3), False)
    expected = results(mixed_state, SMALL, given, others)
    given[0] = given[0].contiguous(memory_format=torch.channels_last)
    assert all(torch.equal(a, e) for a, e in zip(results(mixed_state, SMALL, given, others), expected, strict=True))


def test_the_gradient_may_lie_channels_last():
    # as a partial-channel node's does whose rests do
    given, others = inputs(SMALL, 2, (4, 3), False)
    expected = results(mixed_state, SMALL, given, others)
    with poisoned():
        actual = results(mixed_state, SMALL, given, others, layout=torch.channels_last)
    assert all(relative_rms(a, e) < 1e-6 for a, e in zip(actual, expected, strict=True))


def test_a_single_pixel():
    # whose strides say channels-last as well
    given, others = inputs(SMALL, 2, (1, 1), False, batch=8)
    with poisoned():
        actual = results(mixed_state, SMALL, given, others)
    check(actual, results(mixed_state_reference, SMALL, given, others, torch.float64), [1e-5] * len(actual))


def test_statistics_are_those_of_the_norms_inputs():
    given, others = inputs(DARTS, 3, (6, 5), False)
    _, ((inner_mean, inner_var), (mean, var)) = mixed_state(*given[:2], DARTS, *given[2:], others)
    x, pool = given[0], torch.nn.functional.max_pool2d(given[0], 3, 1, 1)
    assert inner_mean.shape == inner_var.shape == (2 * 2 * 3,) and mean.shape == (7, 2 * 3)
    # the fifth map is the max pool, shared by both targets; the last one, x itself, isn't normalised
    assert relative_rms(mean[4], pool.mean((0, 2, 3)).repeat(2)) < 1e-6
    assert relative_rms(var[4], pool.var((0, 2, 3)).repeat(2)) < 1e-6
    assert torch.equal(mean[6], torch.zeros(6, device=DEVICE)) and torch.equal(var[6], torch.ones(6, device=DEVICE))
    first = given[1][: 2 * 3 * 9].view(6, 1, 3, 3)
    d = torch.nn.functional.conv2d(x.relu().repeat(1, 2, 1, 1), first, padding=1, groups=6)
    step = next(DARTS.steps(3))
    pointwise = given[1][step.pointwise].view(4, 2, 3, 3)[0]
    z = torch.einsum("toc,btchw->btohw", pointwise, d.view(2, 2, 3, 6, 5)).flatten(1, 2)
    assert relative_rms(inner_mean[:6], z.mean((0, 2, 3))) < 1e-5
    assert relative_rms(inner_var[:6], z.var((0, 2, 3))) < 1e-5


def test_weights_nobody_asks_for_take_no_launches():
    given, _ = inputs(SMALL, 2, (4, 3), False)
    x, weights, gates = (t.requires_grad_() for t in given[:3])
    asked = []
    whole = operator.backward_op

    def seen(*args):
        asked.append(args[-1])
        return whole(*args)

    with mock.patch.object(operator, "backward_op", seen):
        y, _ = mixed_state(x, weights, SMALL, gates)
        torch.autograd.grad(y.sum(), [x, gates], retain_graph=True)
        torch.autograd.grad(y.sum(), [weights])
    assert asked == [False, True]


def test_keeps_its_inputs_and_those_of_the_norms():
    given, _ = inputs(DARTS, 4, (8, 8), False)
    x, weights, gates = (t.contiguous().requires_grad_() for t in given[:3])
    kept = bytes_kept(lambda: mixed_state(x, weights, DARTS, gates)[0].sum(), [weights, gates])
    plane = 2 * 8 * 8 * 4
    # x and two pools; a byte for each maximum; two targets of four chains after one step, of two after the second
    maps = plane * (3 * 4 + 6 * 2 * 4) + plane // 4 * 4
    vectors = 4 * (3 * 7 * 8 + 4 * 16)
    assert kept == maps + vectors


@pytest.mark.parametrize("affine", [pytest.param(False, marks=pytest.mark.slow), True])
def test_operators_pass_opcheck(affine):
    structure = Structure(1, (2,), (3, 3), (1, 1), 1, True, False, True, True, 1)
    given, others = inputs(structure, 2, (3, 2), affine)
    x, weights, *vectors = (None if t is None else t.contiguous().requires_grad_() for t in given)
    others = [t.requires_grad_() for t in others]
    arguments = (x, weights, structure.numbers(), *vectors, others)
    torch.library.opcheck(operator.forward_op, (*arguments, 1e-5))
    with torch.no_grad():
        y, *kept = operator.forward_op(*arguments, 1e-5)
        detached = (x.detach(), weights.detach(), structure.numbers(), *vectors, others)
        torch.library.opcheck(operator.backward_op, (y, *detached, kept, True))


@pytest.mark.slow
def test_compiles_in_one_graph():
    given, _ = inputs(SMALL, 2, (4, 3), False)

    def run(x, weights, gates):
        return mixed_state(x, weights, SMALL, gates)[0]

    torch.compiler.reset()
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    leaves = [t.detach().requires_grad_() for t in given[:3]]
    expected, actual = run(*leaves), compiled(*leaves)
    pairs = zip(*(torch.autograd.grad(y.square().sum(), leaves) for y in (actual, expected)), strict=True)
    assert all(relative_rms(a, e) < 1e-6 for a, e in [(actual, expected), *pairs])


def test_autocast_casts_maps_and_weights():
    given, _ = inputs(SMALL, 2, (4, 3), False)
    with torch.autocast(DEVICE, torch.bfloat16):
        actual = mixed_state(*given[:2], SMALL, given[2])[0]
    expected = mixed_state(*(t.bfloat16() for t in given[:2]), SMALL, given[2])[0]
    assert torch.equal(actual, expected) and actual.dtype == torch.bfloat16


def test_counts_the_multiply_adds_of_the_convolutions():
    given, _ = inputs(SMALL, 2, (4, 3), False)
    leaves = [t.detach().requires_grad_() for t in given[:3]]
    forward = 2 * 2 * 12 * SMALL.weights(2)
    assert DARTS.weights(3) == 2 * 3 * (9 + 25 + 9 + 25) + 4 * 2 * 9 + 2 * 3 * (9 + 25) + 2 * 2 * 9
    assert SMALL.weights(2) == 2 * 2 * (9 + 9) + 2 * 2 * 4 + 2 * 2 * 25 + 2 * 4
    with FlopCounterMode(display=False) as counter:
        y, _ = mixed_state(leaves[0], leaves[1], SMALL, leaves[2])
    assert counter.get_total_flops() == forward
    with FlopCounterMode(display=False) as counter:
        y.sum().backward()
    assert counter.get_total_flops() == 2 * forward


def test_refuses_what_cannot_run():
    given, _ = inputs(SMALL, 2, (4, 3), False)
    with pytest.raises(ValueError, match=r"float32, bfloat16 and float16, not torch\.float64: set plan='batched'"):
        mixed_state(given[0].double(), given[1].double(), SMALL)
    with mock.patch.dict("os.environ", TRITON_INTERPRET="0"), pytest.raises(ValueError, match="TRITON_INTERPRET"):
        mixed_state(given[0].cpu(), given[1].cpu(), SMALL)
    with pytest.raises(ValueError, match="must fall"):
        Structure(1, (1, 2), (3, 3, 3), (1, 1, 1), 1, False, False, False, True, 0)
    with pytest.raises(ValueError, match="at stride 2"):
        Structure(1, (), (), (), 2, False, False, True, True, 0)


def test_a_structure_is_read_back_from_its_numbers():
    for structure, *_ in CASES.values():
        assert Structure.of(structure.numbers()) == structure
