"""Small searchable networks of each kind of space, whose every architecture can be counted."""

import itertools

import torch
from torch import nn

from backbones.auto_deeplab import AutoDeepLab
from backbones.chain_net import ChainNet
from backbones.nas_fpn import NASFPN
from search.cost.additive import learn
from search.cost.items import Itemiser
from search.supernet import MixedDag, Zero, reading, record

SIZE = (3, 16, 16)


class Classified(nn.Module):
    """A backbone under a linear layer for each of its maps, so that there is something around it."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone
        self.heads = nn.ModuleList(nn.Linear(c, 3) for c in backbone.out_channels)

    def forward(self, x):
        maps = self.backbone(x)
        return sum(head(y.mean((2, 3))) for head, y in zip(self.heads, maps, strict=True) if y is not None)


def chain():
    """Stages of one choice a block, of one for all blocks, and of depth alone."""
    ops = {"k3": dict(type="mbconv", expand=2), "k5": dict(type="mbconv", kernel=5, expand=2), "skip": dict(type="skip")}
    shared = {"e1": dict(type="mbconv"), "e2": dict(type="mbconv", expand=2)}
    stages = [dict(channels=4, ops=ops, depth=(1, 3)), dict(channels=6, stride=2, ops=shared, shared=True, depth=(1, 2))]
    stages.append(dict(channels=6, depth=(1, 2, 3), ops=dict(type="mbconv")))
    return Classified(ChainNet(stem=dict(channels=4), stages=stages))


class Cells(nn.Module):
    """Two cells of one choice, the second on half the resolution."""

    candidates = {
        "none": lambda c, s: Zero(s),
        "skip": lambda c, s: nn.Identity() if s == 1 else nn.Conv2d(c, c, 1, 2),
        "conv": lambda c, s: nn.Conv2d(c, c, 3, s, 1),
    }

    def __init__(self):
        super().__init__()
        self.out_channels = (9,)
        self.stem = nn.Conv2d(3, 3, 3, padding=1)
        with reading("backbone") as pick:
            self.dags = nn.ModuleList(MixedDag(pick, "normal", self.candidates, channels=3, nodes=3, stride=s) for s in (1, 2))

    def forward(self, x):
        x = self.stem(x)
        for dag in self.dags:
            states = dag(x, x.flip(3))
            x = sum(states)
        return (torch.cat(states, 1),)


def cells():
    return Classified(Cells())


def trellis(blocks=1, layers=4):
    """A path and a cell that is used all along it."""
    return Classified(AutoDeepLab(filters=2, layers=layers, blocks=blocks, stem=(4, 4, 4), affine=False))


class Elastic(nn.Module):
    """Widths in a row: what a convolution costs depends on two of them."""

    def __init__(self):
        super().__init__()
        with reading("backbone") as pick:
            widths = [pick.value(f"w{i}", (2, 3, 5)) for i in range(3)]
        widths = [3, *(5 if w is None else w for w in widths)]
        self.out_channels = (widths[-1],)
        self.convs = nn.Sequential(*(nn.Conv2d(a, b, 3, padding=1) for a, b in itertools.pairwise(widths)))

    def forward(self, x):
        return (self.convs(x),)


def elastic():
    return Classified(Elastic())


class Ordered(nn.Module):
    """Widths in an order: what a convolution costs depends on two places of it, and its last place has an operation."""

    def __init__(self):
        super().__init__()
        with reading("backbone") as pick:
            order = pick.order("widths", (2, 3, 4, 5))
            self.first = pick.op("first", {"conv": lambda: nn.Conv2d(3, 3, 1), "skip": nn.Identity})
            candidates = {"conv": lambda: nn.Conv2d(order[-1] if order else 5, 4, 3, padding=1), "thin": lambda: Thin(4)}
            self.last = pick.op("last", candidates, when=[("widths", (3, 3)), ("widths", (3, 5))])
            self.extra = pick.value("extra", (1, 2), when=[("widths", (0, 5))])
        widths = [3, *(order or (2, 3, 4, 5))]
        self.out_channels = (4,)
        self.convs = nn.Sequential(*(nn.Conv2d(a, b, 3, padding=1) for a, b in itertools.pairwise(widths)))
        self.more = nn.Sequential(*(nn.Conv2d(widths[-1], widths[-1], 1) for _ in range(self.extra or 0)))

    def forward(self, x):
        x = self.more(self.convs(self.first(x)))
        return (Thin(4)(x) if self.last is None else self.last(x),)


class Thin(nn.Module):
    """The mean of all channels, in as many as are asked for."""

    def __init__(self, channels):
        super().__init__()
        self.channels = channels

    def forward(self, x):
        return x.mean(1, keepdim=True).expand(-1, self.channels, -1, -1)


def ordered():
    return Classified(Ordered())


class Pyramid(nn.Module):
    """NAS-FPN of two levels and three merging cells, twice over one map."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 2, 3, padding=1)
        self.neck = NASFPN([2], channels=2, repeats=2, cells=3, num_outs=2)
        self.out_channels = self.neck.out_channels

    def forward(self, x):
        return self.neck((self.stem(x),))


def pyramid():
    return Classified(Pyramid())


BUILDS = {"chain": chain, "cells": cells, "trellis": trellis, "elastic": elastic, "ordered": ordered, "pyramid": pyramid}


def learned(build, **settings):
    space = record(build).space
    return learn(space, Itemiser(build, SIZE), **settings)
