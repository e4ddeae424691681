"""NAS-FCOS' pyramid: what its blocks may be, and what its deformable convolutions cost."""

import pytest
import torch
from torch import nn

from backbones.nas_fcos import DeformableConv2d, NASFCOSNeck
from search.cost import count

SKIPS = ["skip", "skip"]
# nothing is read twice, so nothing is added
THREE = [[[0, 1], SKIPS], [[1, 2], SKIPS], [[2, 2], SKIPS]]


def test_a_deformable_convolution_begins_as_half_of_a_plain_one():
    torch.manual_seed(0)
    ours = DeformableConv2d(4)
    plain = nn.Conv2d(4, 4, 3, padding=1)
    plain.load_state_dict(ours.conv.state_dict())
    x = torch.randn(2, 4, 7, 5)
    bias = plain.bias[:, None, None]
    assert torch.allclose(ours(x) - bias, (plain(x) - bias) / 2, atol=1e-6)


def test_whole_offsets_read_the_next_pixel_by_hand():
    ours = DeformableConv2d(2, groups=1)
    with torch.no_grad():
        ours.conv.weight.zero_()
        ours.conv.bias.zero_()
        # the middle of each 3x3 kernel, of one channel each; read one pixel further right
        ours.conv.weight[:, :, 1, 1] = torch.eye(2)
        ours.shift.bias[2 * 4 + 1] = 1.0
        # a weight of 1
        ours.shift.bias[18:] = 100.0
        x = torch.randn(1, 2, 4, 6)
        expected = torch.nn.functional.pad(x[..., 1:], (0, 1))
        assert torch.allclose(ours(x), expected, atol=1e-6)


def test_its_cost_by_hand():
    cost = count(lambda: DeformableConv2d(8), (8, 5, 7))
    # 2 groups, 9 positions, two offsets and a weight
    assert cost.params == 54 * 8 * 9 + 54 + 8 * 8 * 9 + 8
    assert cost.macs == 5 * 7 * 8 * 9 * (54 + 8) and cost.activations == 5 * 7 * (54 + 8)


def test_outputs_that_nobody_reads_become_levels_from_the_coarsest():
    """Blocks that skip are as large as the finer input; those before the last three are added to each level."""
    torch.manual_seed(0)
    maps = [torch.randn(1, c, 16 // s, 24 // s) for c, s in ((3, 1), (4, 2), (5, 4))]
    neck = NASFCOSNeck((3, 4, 5), THREE, channels=6).eval()
    levels = neck(maps)
    assert neck.out_channels == (6,) * 5 and [tuple(y.shape[2:]) for y in levels] == [(16, 24), (8, 12), (4, 6), (2, 3), (1, 2)]
    # the last block, of the coarsest map, is the finest level
    finest = neck.laterals[2](maps[2])
    finest = neck.blocks[2](finest, finest)
    assert torch.equal(levels[0], nn.functional.interpolate(finest, (16, 24), mode="bilinear"))
    four = NASFCOSNeck((3, 4, 5), [*THREE, [[1, 1], SKIPS]], channels=6)
    assert (neck.added, neck.levels, four.added, four.levels) == ([], [5, 4, 3], [3], [6, 5, 4])


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (dict(blocks=THREE[:2]), "2 of the blocks' outputs are nobody's input"),
        (dict(blocks=[[[0, 3], SKIPS], *THREE[1:]]), r"inputs \[0, 3\] of feature 3 must be two of the features 0 to 2"),
        (dict(blocks=[[[0, 1], ["skip", "pool"]], *THREE[1:]]), "must be two of conv, skip"),
        (dict(blocks=[[[0, 1], ["skip"]], *THREE[1:]]), "must be two of conv, skip"),
        (dict(blocks=THREE, resize="bicubic"), "resize='bicubic' must be one of bilinear, nearest"),
        (dict(blocks=THREE, in_channels=(3, 4)), r"in_channels=\[3, 4\] must be of three maps"),
    ],
)
def test_mistakes_are_one_sentence(settings, says):
    with pytest.raises(ValueError, match=says):
        NASFCOSNeck(**{"in_channels": (3, 4, 5), "channels": 6, **settings})
