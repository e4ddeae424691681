import pytest
import torch
from torch import nn

from search.supernet import ArchParams, Fix, MixedDag, Relax, Softmax, building, partial, reading, record


def test_shuffle_moves_channel_as_documented():
    x = torch.arange(8.0).view(1, 8, 1, 1)
    # two groups 0..3 and 4..7, interleaved
    assert partial.shuffle(x, 2).flatten().tolist() == [0, 4, 1, 5, 2, 6, 3, 7]


@pytest.mark.parametrize(("k", "size", "stride"), [(1, 6, 1), (2, 6, 1), (4, 6, 2), (4, 7, 2), (8, 5, 2)])
def test_split_and_join_keep_every_channel(k, size, stride):
    x = torch.randn(2, 8, size, size)
    taken, rest = partial.split(x, k)
    assert taken.shape[1] == 8 // k and torch.equal(torch.cat((taken, rest), 1), x)
    mixed = torch.nn.functional.max_pool2d(taken, 2, 2, ceil_mode=True) if stride == 2 else taken
    whole = torch.nn.functional.max_pool2d(x, 2, 2, ceil_mode=True) if stride == 2 else x
    assert torch.equal(partial.join(mixed, rest, k, stride), partial.shuffle(whole, k))


@pytest.mark.parametrize(("k", "c_in", "channels"), [(2, 8, 4), (2, 4, 8), (4, 8, 16), (4, 16, 8), (8, 8, 8), (1, 6, 4)])
def test_through_to_another_number_of_channels(k, c_in, channels):
    """The result's channels are those that were made and then the first unseen ones, again from the start if need be."""
    x = torch.arange(float(c_in)).view(1, c_in, 1, 1)
    made = torch.arange(100.0, 100.0 + channels // k).view(1, -1, 1, 1)
    seen = []
    y = partial.through(lambda part: seen.append(part) or made, x, k, channels=channels)
    assert torch.equal(seen[0], x[:, : c_in // k])
    unseen = list(range(c_in // k, c_in))
    rest = [float(unseen[j % len(unseen)]) for j in range(channels - channels // k)]
    expected = torch.tensor([*made.flatten().tolist(), *rest]).view(1, -1, 1, 1)
    assert torch.equal(y, partial.shuffle(expected, k))


def scaled(factor):
    class Scale(nn.Module):
        def __init__(self, channels, stride):
            super().__init__()
            self.stride = stride

        def forward(self, x):
            return factor * x[:, :, :: self.stride, :: self.stride]

    return Scale


CANDIDATES = {"twice": scaled(2.0), "thrice": scaled(3.0)}


def dag(pick_, **kwargs):
    return MixedDag(pick_, "cell", CANDIDATES, channels=4, inputs=2, nodes=2, keep=2, relax_only=(), **kwargs)


def built(edge_logits=False, **kwargs):
    def build():
        with reading("backbone") as pick_:
            return dag(pick_, **kwargs)

    params = ArchParams(record(build).space, edge_logits=edge_logits)
    with building(Relax(params)):
        return params, build()


def test_edge_normalised_partial_node_in_closed_form():
    params, model = built(edge_logits=True, partial_channels=4)
    with torch.no_grad():
        params.logits["cell/n2/inputs"].copy_(torch.tensor([0.0, 1.0]))
        for name, logit in params.logits.items():
            if "<-" in name:
                logit.copy_(torch.tensor([0.0, 2.0]))
    a, b = torch.randn(2, 1, 4, 3, 3)
    with params.gated(Softmax()):
        node = model(a, b)[0]
    op = torch.softmax(torch.tensor([0.0, 2.0]), 0) @ torch.tensor([2.0, 3.0])
    edge = torch.softmax(torch.tensor([0.0, 1.0]), 0)
    factor = torch.ones(1, 4, 1, 1)
    factor[:, 0] = op
    expected = edge[0] * partial.shuffle(a * factor, 4) + edge[1] * partial.shuffle(b * factor, 4)
    assert torch.allclose(node, expected, atol=1e-6)


def test_without_edge_logits_edges_are_summed_unweighted():
    params, model = built()
    with torch.no_grad():
        for logit in params.logits.values():
            logit.copy_(torch.tensor([0.0, 0.0]))
    assert not any(name.endswith("inputs") for name in params.logits)
    a, b = torch.randn(2, 1, 4, 3, 3)
    with params.gated(Softmax()):
        first, second = model(a, b)
    assert torch.allclose(first, 2.5 * (a + b)) and torch.allclose(second, 2.5 * (a + b + first), atol=1e-5)


def test_channels_must_divide_and_a_derived_network_uses_all():
    with pytest.raises(ValueError, match=r"4 channels.*partial_channels=3"):
        built(partial_channels=3)
    arch = {"cell/n2/inputs": (0, 1), "cell/n3/inputs": (0, 2)} | {
        f"cell/n{edge}": "twice" for edge in ("2<-0", "2<-1", "3<-0", "3<-2")
    }
    with building(Fix(arch)), reading("backbone") as pick_:
        assert sorted(dag(pick_).edges) == ["n2<-0", "n2<-1", "n3<-0", "n3<-2"]
    with building(Fix(arch)), reading("backbone") as pick_:
        assert dag(pick_, partial_channels=2).partial_channels == 1
