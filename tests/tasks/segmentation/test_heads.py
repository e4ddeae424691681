import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tasks.segmentation  # noqa: F401

pytest.importorskip("mmseg")
from tasks.segmentation.heads import GroupedASPPHead, SeparableASPPHead, SumLRASPPHead

SETTINGS = dict(num_classes=5, norm_cfg=dict(type="BN"), dropout_ratio=0.0, align_corners=True)
TWO = dict(in_channels=[4, 8], in_index=[0, 1], input_transform="multiple_select")
MAPS = (torch.randn(2, 4, 16, 20), torch.randn(2, 8, 8, 10))


def test_sum_of_two_classifiers_with_a_closed_gate_and_an_open_one():
    head = SumLRASPPHead(channels=6, **TWO, **SETTINGS).eval()
    fine = F.conv2d(MAPS[0], head.fine_seg.weight, head.fine_seg.bias)
    for bias, factor in ((0.0, 0.5), (100.0, 1.0), (-100.0, 0.0)):
        nn.init.zeros_(head.gate.weight)
        nn.init.constant_(head.gate.bias, bias)
        reduced = F.interpolate(factor * head.reduce(MAPS[1]), (16, 20), mode="bilinear")
        coarse = F.conv2d(reduced, head.conv_seg.weight, head.conv_seg.bias)
        assert torch.allclose(head(MAPS), fine + coarse, atol=1e-5)


def test_pooling_windows_are_cut_to_the_map():
    head = SumLRASPPHead(channels=6, pool=7, pool_stride=(2, 3), **TWO, **SETTINGS).eval()
    seen = []
    head.gate.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    for size in ((5, 6), (9, 13)):
        coarse = torch.randn(1, 8, *size)
        head((torch.randn(1, 4, 10, 12), coarse))
        window = [min(7, n) for n in size]
        assert torch.equal(seen[-1], F.avg_pool2d(coarse, window, (2, 3)))
    assert [tuple(x.shape[2:]) for x in seen] == [(1, 1), (2, 3)]


def test_separable_pyramid_has_a_branch_for_each_dilation_and_the_mean():
    head = SeparableASPPHead(in_channels=8, channels=6, dilations=(1, 2, 3), in_index=1, **SETTINGS).eval()
    assert head(MAPS).shape == (2, 5, 8, 10)
    depthwise = [m for m in head.branches.modules() if isinstance(m, nn.Conv2d) and m.groups == 8]
    assert [(m.dilation, m.padding) for m in depthwise] == [((2, 2), (2, 2)), ((3, 3), (3, 3))]
    assert head.fuse.conv.in_channels == 4 * 6 and head.fuse.conv.kernel_size == (1, 1)
    # a constant map's mean is the map: its branch equals its 1x1 convolution everywhere
    constant = torch.ones(1, 8, 8, 10)
    seen = []
    head.fuse.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    head((None, constant))
    pooled = head.image_pool[1](constant)
    assert torch.allclose(seen[0][:, -6:], pooled, atol=1e-6)


def test_grouped_pyramid_concatenates_the_mean_as_it_is():
    head = GroupedASPPHead(channels=4, dilations=(1, 2), **TWO, **SETTINGS).eval()
    seen = []
    head.fuse.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    assert head(MAPS).shape == (2, 5, 16, 20)
    assert torch.allclose(seen[0][:, -8:], MAPS[1].mean((2, 3), keepdim=True).expand(2, 8, 8, 10))
    assert [branch.conv.groups for branch in head.branches] == [1, 4, 4]
    # the fine map's channels are mixed and classified beside the pyramid's
    assert head.mix.conv.groups == head.mix.conv.in_channels == head.conv_seg.in_channels == 4 + 4
