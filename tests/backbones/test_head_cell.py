"""A head's cell: partial channels against their definition, and what the batched plan makes of group norms."""

import pytest
import torch
from torch import nn

from backbones.head_cell import HeadCell
from search.cost import bytes_kept
from search.supernet import ArchParams, Relax, Softmax, building, record
from search.supernet.batched import BatchedPlan
from search.supernet.candidates import Chain, Other


def wide(**settings):
    torch.manual_seed(0)

    def build():
        return HeadCell(6, **{"channels": 32, "affine": False, **settings})

    params = ArchParams(record(build).space, edge_logits=settings.get("partial", 1) > 1, std=1.0).double()
    with building(Relax(params)):
        return params, build().double()


def maps(*sizes, batch=2):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(batch, 6, *size, generator=generator, dtype=torch.float64) for size in sizes]


@pytest.mark.parametrize("k", [2, 4, 8])
def test_the_first_channels_are_mixed_and_the_others_passed_on(k):
    """Node by node: a state's first C/K channels through every candidate, the rest as they are, shuffled in K groups."""
    params, model = wide(partial=k)
    (x,) = maps((5, 4))
    p = {name: torch.softmax(logit.detach(), 0) for name, logit in params.logits.items()}
    states = [model.lateral(x)]
    for node in (1, 2):
        total = 0
        for source, state in enumerate(states):
            ops = model.cell.edges[f"n{node}<-{source}"].ops
            taken, rest = state[:, : 32 // k], state[:, 32 // k :]
            weights = p[f"head/n{node}<-{source}"]
            mixed = sum(w * op(taken) for w, (name, op) in zip(weights, ops.items(), strict=True) if name != "none")
            whole = torch.cat((mixed, rest), 1)
            # a node with one input has no choice of it
            edge = p[f"head/n{node}/inputs"][source] if node > 1 else 1.0
            total = total + edge * whole.unflatten(1, (k, -1)).transpose(1, 2).flatten(1, 2)
        states.append(total)
    expected = model.output(torch.cat(states[1:], 1))
    with params.gated(Softmax()):
        assert torch.allclose(model(x), expected, rtol=1e-12, atol=1e-12)
    conv = model.cell.edges["n1<-0"].ops["sep_conv_3x3"]
    assert conv[1].weight.shape == (32 // k, 1, 3, 3) and conv[2].weight.shape == (32 // k, 32 // k, 1, 1)
    # groups of 8 channels where there are so many
    assert {m.num_groups for m in model.cell.modules() if isinstance(m, nn.GroupNorm)} == {max(1, 32 // k // 8)}


def test_separable_candidates_run_together_where_their_norms_have_no_scale_and_shift():
    for affine, expected in ((False, Chain), (True, Other)):
        _, model = wide(affine=affine)
        for kinds in BatchedPlan(model.cell).kinds.values():
            assert [type(kind) for kind in kinds[2:]] == [expected] * 4
    # groups of one channel
    _, model = wide(channels=8, partial=8)
    assert all(isinstance(kind, Other) for kinds in BatchedPlan(model.cell).kinds.values() for kind in kinds[2:])


def test_levels_share_weights_and_no_regions_are_none():
    levels = [*maps((9, 7), (4, 3)), *maps((1, 1), batch=1), *maps((7, 7), batch=0)]
    grads = []
    for plan in ("reference", "batched"):
        params, model = wide(partial=2, plan=plan)
        with params.gated(Softmax()):
            found = [model(x) for x in levels]
        grads.append(torch.autograd.grad(sum(y.square().sum() for y in found), [*model.parameters(), *params.parameters()]))
        assert found[3].shape == (0, 32, 7, 7)
    for a, b in zip(*grads, strict=True):
        assert (a - b).abs().max() <= 1e-10 * max(1.0, float(a.abs().max()))


def test_the_batched_plan_keeps_less():
    kept = {}
    for plan, memory in (("reference", "fast"), ("batched", "fast"), ("batched", "balanced"), ("batched", "small")):
        params, model = wide(plan=plan, memory=memory)
        with params.gated(Softmax()):
            own = [*model.parameters(), *params.parameters()]
            kept[plan, memory] = bytes_kept(lambda model=model: sum(model(x).sum() for x in maps((16, 16), (8, 8))), own)
    reference, fast, balanced, small = kept.values()
    assert fast < 0.5 * reference and balanced < 0.9 * fast and small < 0.6 * balanced, kept
