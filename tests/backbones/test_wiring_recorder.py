"""The recorder of graphs sees what makes networks different, and doesn't see in which of equal ways they are written."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from tests.backbones.references.plain import bn, conv, conv_bn, depthwise, linear, max_pool, weight
from tests.backbones.wiring import record


def graph(function):
    return record(function, torch.empty(1, 8, 16, 16, device="meta"))


def two(x):
    """Two maps of the same shape that are different."""
    return conv_bn(x, 8), conv_bn(x, 8, 3)


DIFFERENT = {
    "stride of a convolution": (lambda x: conv(x, 8, 3, 2, padding=1), lambda x: conv(x, 8, 3, (2, 1), padding=1)),
    "stride's place": (lambda x: conv(conv(x, 8, 3, 2), 8, 3, 1), lambda x: conv(conv(x, 8, 3, 1), 8, 3, 2)),
    "dilation": (lambda x: conv(x, 8, 3), lambda x: conv(x, 8, 3, dilation=2)),
    "groups at equal weights": (lambda x: conv(x, 8, 1, groups=4), lambda x: conv(x[:, :2], 8, 1)),
    "kernel's direction": (lambda x: conv(x, 8, (1, 7)), lambda x: conv(x, 8, (7, 1))),
    "bias": (lambda x: conv(x, 8), lambda x: conv(x, 8, bias=True)),
    "activation": (lambda x: F.relu(bn(x)), lambda x: F.relu6(bn(x))),
    "activation's place": (lambda x: F.relu(bn(x)), lambda x: bn(F.relu(x))),
    "a norm": (lambda x: conv(x, 8, 3), lambda x: conv_bn(x, 8, 3)),
    "order of a concatenation": (lambda x: torch.cat(two(x), 1), lambda x: torch.cat(two(x)[::-1], 1)),
    "a shortcut": (lambda x: conv_bn(x, 8, 3), lambda x: x + conv_bn(x, 8, 3)),
    "the source of an edge": (
        lambda x: (lambda a, b: depthwise(a, 3) + b)(*two(x)),
        lambda x: (lambda a, b: depthwise(b, 3) + b)(*two(x)),
    ),
    "how often a term is added": (lambda x: F.relu(x) + x, lambda x: F.relu(x) + x + x),
    "a factor of a sum": (lambda x: F.relu(x) + x, lambda x: F.relu(x) + 0.5 * x),
    "kind of pool": (lambda x: max_pool(x), lambda x: F.avg_pool2d(x, 3, 1, 1)),
    "padding in a mean": (lambda x: F.avg_pool2d(x, 3, 1, 1), lambda x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)),
    "how a map grows": (
        lambda x: F.interpolate(x, scale_factor=2),
        lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
    ),
    "where corners lie": (
        lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
        lambda x: F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True),
    ),
    "which channels pass": (lambda x: conv(x[:, :4], 4), lambda x: conv(x[:, ::2], 4)),
    "a shuffle": (lambda x: conv(x, 8, groups=2), lambda x: conv(F.channel_shuffle(x, 2), 8, groups=2)),
    "which pixels pass": (lambda x: conv(x, 8, 1, 2), lambda x: conv(x[:, :, 1:, 1:], 8, 1, 2)),
    "a shared weight": (
        lambda x: (lambda w: F.conv2d(F.conv2d(x, w), w))(weight(8, 8, 1, 1)),
        lambda x: F.conv2d(F.conv2d(x, weight(8, 8, 1, 1)), weight(8, 8, 1, 1)),
    ),
    "order of outputs": (two, lambda x: two(x)[::-1]),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_it_sees(name):
    one, other = map(graph, DIFFERENT[name])
    assert one.signature() != other.signature()
    assert one.difference(other)


EQUAL = {
    "order of a sum": (lambda x: sum(two(x)), lambda x: sum(two(x)[::-1])),
    "brackets of a sum": (
        lambda x: (lambda a, b: (a + x) + b)(*two(x)),
        lambda x: (lambda a, b: x + (b + a))(*two(x)),
    ),
    "order of a product": (lambda x: torch.sigmoid(x) * x, lambda x: x * torch.sigmoid(x)),
    "order of execution": (lambda x: two(x), lambda x: (lambda b, a: (a, b))(conv_bn(x, 8, 3), conv_bn(x, 8))),
    "a concatenation in two steps": (
        lambda x: torch.cat([x, *two(x)], 1),
        lambda x: (lambda a, b: torch.cat([torch.cat([x, a], 1), b], 1))(*two(x)),
    ),
    "in place": (lambda x: F.relu(bn(x)), lambda x: F.relu_(bn(x))),
    "a zero": (lambda x: x, lambda x: x + torch.zeros_like(x) + 0 * x),
    "a ReLU of a ReLU": (lambda x: F.relu(x), lambda x: F.relu(F.relu(x))),
    "ReLU6 by its limits": (lambda x: F.relu6(x), lambda x: x.clamp(0, 6)),
    "a view": (lambda x: linear(x.mean((2, 3)), 4), lambda x: linear(F.adaptive_avg_pool2d(x, 1).view(1, -1), 4)),
    "a linear layer as a convolution": (
        lambda x: linear(x.mean((2, 3)), 4),
        lambda x: conv(x.mean((2, 3), keepdim=True), 4, bias=True).flatten(1),
    ),
    "a pool over all": (lambda x: x.mean((2, 3)), lambda x: F.avg_pool2d(x, 16)),
    "a shuffle by views": (
        lambda x: conv(F.channel_shuffle(x, 2), 8, groups=2),
        lambda x: conv(x.view(1, 2, 4, 16, 16).transpose(1, 2).reshape(x.shape), 8, groups=2),
    ),
    "halves by splitting": (lambda x: conv(x[:, 4:], 4), lambda x: conv(x.chunk(2, 1)[1], 4)),
    "a stride by a slice": (lambda x: conv(x, 8, 1, 2), lambda x: conv(x[:, :, ::2, ::2], 8)),
    "padding that a stride passes by": (
        lambda x: conv(x[:, :, 1:, 1:], 8, 1, 2),
        lambda x: conv(F.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:], 8, 1, 2),
    ),
    "growth from a pixel": (
        lambda x: F.interpolate(x.mean((2, 3), keepdim=True), size=(4, 4)),
        lambda x: x.mean((2, 3), keepdim=True).expand(-1, -1, 4, 4),
    ),
    "dropout in eval mode": (lambda x: x, lambda x: F.dropout(x, 0.5, training=False)),
}


@pytest.mark.parametrize("name", EQUAL)
def test_it_does_not_see(name):
    one, other = map(graph, EQUAL[name])
    assert one.difference(other) == ""


def test_an_activation_in_place_changes_what_is_read_later():
    """The usual fault: the shortcut adds the rectified map."""

    def faulty(x):
        x = bn(x)
        return conv(F.relu_(x), 8, 3) + x

    one, other = graph(faulty), graph(lambda x: (lambda y: conv(F.relu(y), 8, 3) + y)(bn(x)))
    assert "add" in one.difference(other)


def test_a_change_through_another_view_is_refused():
    def run(x):
        x = bn(x)
        F.relu_(x[:, :4])
        return x

    with pytest.raises(AssertionError, match="another view"):
        graph(run)


def test_the_first_difference_is_named():
    one = graph(lambda x: conv(F.relu(conv(x, 8, 3)), 8, 3))
    other = graph(lambda x: conv(F.relu(conv(x, 8, 3, dilation=2)), 8, 3))
    assert "1 conv [8, 16, 16] bias=False dilation=[1, 1]" in one.difference(other)
    assert "dilation=[2, 2]" in one.difference(other)
    assert "1 such operations, 2 after them" in one.difference(other)
