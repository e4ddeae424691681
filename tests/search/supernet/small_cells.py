"""A small cell with a candidate of each kind that the plans know, executed by any of them."""

import torch
from torch import nn

from backbones.operations import darts_candidates
from search.supernet import ArchParams, MixedDag, Relax, building, reading, record
from tests.devices import DEVICE

NAMES = ("none", "max_pool_3x3", "avg_pool_3x3", "skip_connect", "sep_conv_3x3", "dil_conv_3x3")
CANDIDATES = {name: make for name, make in darts_candidates(False).items() if name in NAMES}


class Cell(nn.Module):
    """Two nodes, which start at stride 2 from two states: [2, B, C, H, W] -> two maps. `layout`: of the states."""

    def __init__(self, layout=torch.contiguous_format, **settings):
        super().__init__()
        self.layout = layout
        with reading("cell") as pick:
            self.dag = MixedDag(pick, "cell", CANDIDATES, nodes=2, stride=2, **settings)

    def forward(self, x):
        return self.dag(*(state.contiguous(memory_format=self.layout) for state in x))


def cell_of(plan, memory="fast", partial=2, layout=torch.contiguous_format):
    """Logits and a cell that trains; equal for every plan, memory and layout."""

    def build():
        return Cell(layout, channels=2 * partial, partial_channels=partial, plan=plan, memory=memory)

    torch.manual_seed(0)
    params = ArchParams(record(build).space, edge_logits=partial > 1, std=1.0)
    with building(Relax(params)):
        return params.to(DEVICE), build().to(DEVICE).train()


def states(partial=2):
    """What a cell reads, of an odd size."""
    return torch.randn(2, 2, 2 * partial, 5, 7, generator=torch.Generator().manual_seed(1)).to(DEVICE)
