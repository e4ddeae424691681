import pytest
import torch
from torch import nn

from backbones.fixed_cell import FixedCell, FixedDag, fit, grow_drop_path, pairs
from backbones.operations import FactorizedReduce


class Times(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return self.factor * x


def test_nodes_sum_their_edges_and_may_read_a_state_twice():
    dag = FixedDag([[(0, Times(2)), (0, Times(3))], [(1, Times(5)), (2, nn.Identity()), (0, Times(7))]])
    one, ten = torch.ones(1), torch.full((1,), 10.0)
    # 5 = 2 + 3; 62 = 5 * 10 + 5 + 7
    assert [s.item() for s in dag(one, ten)] == [1, 10, 5, 62]


def test_a_cell_concatenates_the_states_it_is_told_in_that_order():
    align = (Times(1), Times(100))
    cell = FixedCell(align, [[(0, Times(2))], [(1, Times(3))]], {3: nn.Identity(), 0: Times(-1)}, 1, after=Times(10))
    x0, x1 = torch.full((1, 1, 2, 2), 1.0), torch.full((1, 1, 2, 2), 2.0)
    assert cell(x0, x1)[0, :, 0, 0].tolist() == [6000, -10] and cell.out_channels == 2


@pytest.mark.parametrize("edges", [[], [(3, nn.Identity())], [(-1, nn.Identity())]])
def test_a_node_without_a_past_is_refused(edges):
    with pytest.raises(ValueError, match="give it states 0 to 2"):
        FixedDag([[(0, nn.Identity())], edges])


def test_drop_path_rises_with_depth_and_spares_identities():
    cells = [FixedCell((Times(1), Times(1)), [[(0, Times(1)), (1, nn.Identity())]], {2: nn.Identity()}, 1) for _ in range(4)]
    grow_drop_path(cells, 0.8)
    assert [cell.dag.drop_path for cell in cells] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    torch.manual_seed(0)
    x, zero = torch.ones(1000, 1, 1, 1), torch.zeros(1000, 1, 1, 1)
    y = cells[-1].train()(x, zero)
    # kept by one in five, and then five times as large
    assert torch.allclose(y[y > 0], torch.tensor(5.0)) and 100 < (y > 0).sum() < 300
    assert torch.equal(cells[-1](zero, x), x)
    assert torch.equal(cells[-1].eval()(x, zero), x)


def test_maps_are_changed_only_where_they_must_be():
    assert isinstance(fit(8, 8, False), nn.Identity)
    negative = -torch.rand(2, 4, 5, 5)
    for relu in (True, False):
        for halve, size in ((True, 3), (False, 5)):
            y = fit(4, 6, halve, relu).eval()(negative)
            assert y.shape == (2, 6, size, size)
            # a rectified negative map is zero, and so are convolutions of it
            assert bool(y.any()) is not relu


def test_an_odd_channel_of_a_reduction_goes_to_the_shifted_half():
    reduce = FactorizedReduce(4, 13)
    assert (reduce.conv_1.out_channels, reduce.conv_2.out_channels) == (6, 7)
    with pytest.raises(ValueError, match="not 1"):
        FactorizedReduce(4, 1)


def test_pairs():
    assert pairs([1, 2, 3, 4]) == [(1, 2), (3, 4)]
    with pytest.raises(ValueError, match="3 values"):
        pairs([1, 2, 3])
