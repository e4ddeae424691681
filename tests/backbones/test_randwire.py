import statistics

import networkx as nx
import pytest
import torch
from torch import nn

from backbones.randwire import RandomGraph, RandomNode, watts_strogatz
from backbones.spec import NotBuildable, model_config
from search.cost import count
from search.registry import MODELS

SMALL = dict(schema="randwire", generator="WS", K=4, P=0.75, N=32, C=78)


def test_without_rewiring_the_graph_is_the_ring():
    ring = {tuple(sorted((i, (i + step) % 8))) for i in range(8) for step in (1, 2)}
    assert set(watts_strogatz(8, 4, 0.0, seed=3)) == ring


@pytest.mark.parametrize("seed", range(5))
def test_a_graph_has_the_ring_s_number_of_edges_goes_upwards_and_hangs_together(seed):
    edges = watts_strogatz(32, 4, 0.75, seed)
    assert len(edges) == len(set(edges)) == 64 and all(i < j for i, j in edges)
    assert nx.is_connected(nx.Graph(edges)) and nx.Graph(edges).number_of_nodes() == 32
    assert edges == watts_strogatz(32, 4, 0.75, seed) != watts_strogatz(32, 4, 0.75, seed + 1)


def test_a_seed_keeps_its_graph():
    # a network is stored as its seed: should networkx draw otherwise one day, this says so
    edges = [(0, 1), (0, 2), (0, 4), (0, 5), (1, 2), (1, 3), (1, 4), (2, 3), (2, 5), (3, 4), (3, 5), (4, 5)]
    assert watts_strogatz(6, 4, 0.75, seed=0) == edges


@pytest.mark.parametrize("numbers", [(32, 3, 0.5), (4, 4, 0.5), (32, 4, 1.5)])
def test_numbers_without_a_graph_are_refused(numbers):
    with pytest.raises(ValueError, match="there is no WS graph"):
        watts_strogatz(*numbers, seed=0)


def test_nodes_sum_by_sigmoids_and_a_stage_averages_its_ends():
    stage = RandomGraph(2, 2, 1, nodes=10, neighbours=4, rewiring=0.75, seed=1)
    for k, node in enumerate(stage.nodes):
        node.conv = nn.Identity()
        if node.weights is not None:
            nn.init.constant_(node.weights, 0.1 * k)
    edges = watts_strogatz(10, 4, 0.75, 1)
    x = torch.randn(3, 2, 4, 4)
    made = {}
    for k in range(10):
        inputs = [made[i] for i, j in edges if j == k]
        weight = torch.tensor(0.1 * k).sigmoid() if len(inputs) > 1 else 1.0
        made[k] = (weight * torch.stack(inputs).sum(0) if inputs else x).relu()
    ends = [k for k in range(10) if all(i != k for i, _ in edges)]
    expected = torch.stack([made[k] for k in ends]).mean(0).relu()
    assert torch.allclose(stage(x), expected, atol=1e-6) and expected.abs().sum() > 0


def test_the_stride_is_at_the_nodes_that_read_the_stage_s_input():
    stage = RandomGraph(4, 6, 2, nodes=12, neighbours=4, rewiring=0.75, seed=0)
    for sources, node in zip(stage.sources, stage.nodes, strict=True):
        depthwise, pointwise, _ = node.conv
        assert depthwise.stride == ((1, 1) if sources else (2, 2)) and depthwise.groups == depthwise.in_channels
        assert (pointwise.in_channels, pointwise.out_channels) == ((6, 6) if sources else (4, 6))
    assert stage(torch.randn(2, 4, 9, 9)).shape == (2, 6, 5, 5)
    assert RandomNode(1, 4, 6, 1, "relu").weights is None


def test_ten_small_networks_cost_what_the_paper_says():
    # section 4, small regime: 583 +- 6.2 M multiply-adds, 5.6 +- 0.1 M parameters over 5 seeds
    costs = [count(lambda s=s: MODELS.build(model_config({**SMALL, "seed": s})), (3, 224, 224)) for s in range(10)]
    params, macs = [cost.params / 1e6 for cost in costs], [cost.macs / 1e6 for cost in costs]
    assert all(abs(p - 5.6) < 3 * 0.1 for p in params) and all(abs(m - 583) < 3 * 6.2 for m in macs)
    assert 0.03 < statistics.stdev(params) < 0.2 and 3 < statistics.stdev(macs) < 12
    assert len(set(params)) == 10


def test_regimes_differ_in_where_graphs_begin():
    def graphs(spec):
        stages = model_config(spec)["backbone"]["stages"]
        return [(s["channels"], s["ops"]["nodes"], s["ops"]["seed"]) for s in stages if s["ops"]["type"] == "random_graph"]

    assert graphs(SMALL) == [(78, 32, 0), (156, 32, 1), (312, 32, 2)]
    assert graphs({**SMALL, "C": 109, "seed": 2}) == [(109, 16, 8), (218, 32, 9), (436, 32, 10), (872, 32, 11)]
    with pytest.raises(NotBuildable, match="'BA'"):
        model_config({**SMALL, "generator": "BA"})
