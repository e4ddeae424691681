"""Counting launches and bytes moved against numbers made by hand."""

import pytest
import torch
from torch import nn

from backbones import CellNet
from search.cost.launches import count_launches
from search.kernels.launches import triton_launches
from search.kernels.norm_sum import norm_sum
from search.kernels.partial_node import partial_node
from search.supernet import ArchParams, Relax, Softmax, building, record
from tests.devices import DEVICE
from tests.search.kernels.kernel_testing import poisoned

triton = pytest.importorskip("triton")
on_any_device = pytest.mark.parametrize("device", [DEVICE, "meta"])
FLOAT = 4


@on_any_device
def test_convolution_norm_relu(device):
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU()).to(device)
    x = torch.randn(2, 3, 8, 8, device=device)
    forward = count_launches(lambda: model(x))
    # with the norm's number of batches; what cuDNN's norm is called is torch's affair
    assert forward.total == 4
    assert forward.by_name["aten.convolution"] == forward.by_name["aten.relu"] == forward.by_name["aten.add_"] == 1
    y = model(x)
    backward = count_launches(lambda: y.backward(torch.ones_like(y)))
    # ones, ReLU, norm, and of the convolution the weight's gradient alone: nobody asks for the images'
    assert backward.by_name["aten.convolution_backward"] == 1
    assert backward.total == 4
    model.zero_grad()
    y = model(x.requires_grad_())
    both = count_launches(lambda: y.backward(torch.ones_like(y)))
    assert both.by_name["aten.convolution_backward"] == 2
    assert both.total == 5


@on_any_device
def test_what_starts_nothing(device):
    x = torch.randn(4, 6, device=device)

    def step():
        torch.empty_like(x).view(24)
        x.t().split(2)
        x.unsqueeze(0).expand(3, 4, 6).detach().flatten(1, 1)
        torch.promote_types(torch.float32, torch.float16)
        return x[1:], x.contiguous(), x.to(torch.float32)

    assert count_launches(step) == count_launches(lambda: None)
    assert count_launches(step).total == 0


@on_any_device
def test_bytes_moved(device):
    x, y = torch.randn(10, 8, device=device), torch.randn(1, 8, device=device)
    assert count_launches(lambda: x + y).bytes_moved == FLOAT * (80 + 8 + 80)
    # in place: x is read and written
    assert count_launches(lambda: x.add_(1)).bytes_moved == FLOAT * 160
    assert count_launches(lambda: x.zero_()).bytes_moved == FLOAT * 80
    assert count_launches(lambda: x.copy_(y)).bytes_moved == FLOAT * (80 + 8)
    # an expanded tensor has the elements that it was made of
    assert count_launches(lambda: y.expand(10, 8).sum()).bytes_moved == FLOAT * (8 + 1)
    out = torch.empty(10, 8, device=device)
    assert count_launches(lambda: torch.mul(x, x, out=out)).bytes_moved == FLOAT * 240
    # a list of tensors is one call; it returns nothing
    listed = count_launches(lambda: torch._foreach_add_([x, y], 1.0))
    assert listed.by_name == {"aten._foreach_add_": 1}
    assert listed.bytes_moved == FLOAT * 2 * (80 + 8)


def test_with_a_device_the_cpu_does_not_count():
    x, on_cpu = torch.randn(3, device="meta"), torch.randn(3)
    assert count_launches(lambda: (x + x, on_cpu + on_cpu)).by_name == {"aten.add": 1}
    assert count_launches(lambda: on_cpu + on_cpu).by_name == {"aten.add": 1}


def test_an_operator_counts_its_kernels():
    zs = [torch.randn(2, 4, 5, 3, device=DEVICE, requires_grad=True) for _ in range(3)]
    weight = torch.rand(3, device=DEVICE, requires_grad=True)
    y = []
    forward = count_launches(lambda: y.append(norm_sum(zs, weight, triton=True)[0]))
    names = ("stats", "merge_stats", "fwd")
    assert forward.by_name == {f"triton.norm_sum_{name}_kernel": 1 for name in names}
    grad = torch.ones_like(y[0])
    backward = count_launches(lambda: y[0].backward(grad))
    kernels = {name: count for name, count in backward.by_name.items() if name.startswith("triton.")}
    assert kernels == {f"triton.norm_sum_{name}_kernel": 1 for name in ("bwd_reduce", "merge_grads", "bwd")}
    # what the launcher adds by torch: the weights' gradient is a sum of rows
    assert backward.by_name["aten.sum"] == 1


def test_a_kernel_moves_what_it_is_given():
    mixed, rest = (torch.randn(2, channels, 4, 4, device=DEVICE) for channels in (2, 6))
    counted = count_launches(lambda: partial_node([mixed], [rest], 4, triton=True))
    assert counted.by_name == {"triton.partial_node_forward_kernel": 1}
    assert counted.bytes_moved == FLOAT * 2 * 16 * (2 + 6 + 8)


def test_a_dry_run_counts_and_computes_nothing():
    zs = [torch.randn(2, 4, 5, 3, device=DEVICE, requires_grad=True) for _ in range(3)]
    weight = torch.rand(3, device=DEVICE, requires_grad=True)
    y = []

    def step():
        y.append(norm_sum(zs, weight, triton=True)[0])
        y[-1].sum().backward()

    wet = count_launches(step)
    with poisoned():
        dry = count_launches(step, dry=True)
    assert {name: n for name, n in dry.by_name.items() if "triton" in name} == {
        name: n for name, n in wet.by_name.items() if "triton" in name
    }
    assert y[0].isfinite().all()
    assert y[1].isnan().all()


def test_launches_are_seen_only_inside():
    mixed, rest = (torch.randn(2, channels, 4, 4, device=DEVICE) for channels in (2, 6))
    seen = []
    with pytest.raises(KeyError), triton_launches(lambda kernel, tensors: seen.append((kernel, len(tensors)))):
        partial_node([mixed], [rest], 4, triton=True)
        raise KeyError
    partial_node([mixed], [rest], 4, triton=True)
    assert seen == [("partial_node_forward_kernel", 3)]


# one normal cell and two reductions of 5 edges, 4 of them of stride 2, where a skip is a factorized reduction; the third cell
# follows a reduction, so its first input is aligned by another one
EDGES, SKIPS = 15, 8
ALIGNED, FACTORIZED = 5, 1 + SKIPS


def cell_step(plan, partial=1, batch=2):
    """One phase of a supernet of three cells: the loss of its last map and, where gradients are on, backward."""

    def build():
        return CellNet(channels=8, layers=3, nodes=2, affine=False, partial=partial, plan=plan)

    params = ArchParams(record(build).space, edge_logits=partial > 1)
    with building(Relax(params)):
        model = build()
    x = torch.randn(batch, 3, 16, 16)

    def step():
        model.zero_grad()
        params.zero_grad()
        with params.gated(Softmax()):
            loss = model(x)[0].square().mean()
        if loss.requires_grad:
            loss.backward()

    return step


@pytest.mark.parametrize("partial", [1, 4])
def test_the_reference_plan_by_hand(partial):
    counted = count_launches(cell_step("reference", partial)).by_name
    separable, dilated = 2 * 2 * EDGES, 2 * EDGES
    convolutions = 1 + ALIGNED + 2 * FACTORIZED + 2 * (separable + dilated)
    assert counted["aten.convolution"] == convolutions
    # nobody asks for the images' gradient
    assert counted["aten.convolution_backward"] == 2 * convolutions - 1
    norms = 1 + ALIGNED + FACTORIZED + separable + dilated + 2 * EDGES
    assert counted["aten.native_batch_norm"] == counted["aten.native_batch_norm_backward"] == norms
    assert counted["aten.avg_pool2d"] == EDGES
    # the channels that bypass the candidates are pooled on the edges of stride 2
    assert counted["aten.max_pool2d_with_indices"] == EDGES + (SKIPS if partial > 1 else 0)


@pytest.mark.parametrize("partial", [1, 4])
def test_the_batched_plan_convolves_once_for_all_targets(partial):
    with torch.no_grad():
        counted = count_launches(cell_step("batched", partial)).by_name
    # 3 cells of 3 states that edges leave, and of each the depthwise convolutions of 2 separable and 2 dilated candidates,
    # and on CPU the average pool's
    assert counted["aten.convolution"] <= 1 + ALIGNED + 2 * FACTORIZED + 3 * 3 * (2 * 2 + 2 + 1)


def test_the_batch_changes_bytes_not_launches():
    few, many = (count_launches(cell_step("reference", batch=batch)) for batch in (2, 4))
    assert few.by_name == many.by_name
    assert few.bytes_moved < many.bytes_moved < 2 * few.bytes_moved


def test_counting_changes_nothing():
    x = torch.randn(5, requires_grad=True)
    count_launches(lambda: (x * x).sum().backward())
    assert torch.equal(x.grad, 2 * x.detach())
