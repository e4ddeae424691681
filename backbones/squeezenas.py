"""SqueezeNAS (arXiv 1908.01748): segmentation networks whose layers were searched on the task itself.

What the tables don't print is from the authors' code, ashaw596/squeezenas@bdb27985, arch/. Their blocks have no channel
shuffle between grouped convolutions, and an expansion convolution also where it expands by 1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import accumulate

from torch import nn

from backbones.blocks import ACTIVATIONS, Skip, block, conv
from backbones.heads import segmentor
from backbones.operations import FactorizedReduce
from backbones.spec import schema

# inverted residuals: kernel k, expansion e, groups g of the 1x1 convolutions, dilation d; in the order of a sorted file
OPERATIONS = (
    *("inverse_residual_k3_e1_g1", "inverse_residual_k3_e1_g1_d2", "inverse_residual_k3_e1_g2", "inverse_residual_k3_e1_g2_d2"),
    *("inverse_residual_k3_e3_g1", "inverse_residual_k3_e3_g1_d2", "inverse_residual_k3_e6_g1", "inverse_residual_k3_e6_g1_d2"),
    *("inverse_residual_k5_e1_g1", "inverse_residual_k5_e1_g2", "inverse_residual_k5_e3_g1", "inverse_residual_k5_e6_g1"),
)
SKIP = "residual_skipish"
_OPERATION = re.compile(r"inverse_residual_k(\d)_e(\d)_g(\d)(?:_d(\d))?")


@block("projected_skip")
def projected_skip(c_in: int, c_out: int, stride: int, *, activation: str = "relu") -> nn.Module:
    """A layer left out: nothing, or where shapes differ activation and 1x1 convolution, at stride 2 in two shifted halves."""
    if stride == 1 and c_in == c_out:
        return Skip(c_in, c_out, stride)
    if stride == 1:
        return nn.Sequential(ACTIVATIONS[activation](), conv(c_in, c_out, 1, 1, "identity"))
    if stride == 2:
        return nn.Sequential(ACTIVATIONS[activation](), FactorizedReduce(c_in, c_out, relu=False))
    raise ValueError(f"a projected skip has stride 1 or 2, not {stride}")


@schema("squeezenas")
def squeezenas(spec: Mapping) -> dict:
    """`genotype`: an operation for each block; `macro`: stem, stages as [channels, blocks, stride], and the head.

    The head takes the last map and that of block `low_level_block`, which has to be the last of its resolution.
    """
    macro = spec["macro"]
    ops = {name: _operation(name) for name in OPERATIONS} | {SKIP: dict(type="projected_skip")}
    stages = [dict(channels=c, depth=depth, stride=stride, ops=ops) for c, depth, stride in macro["stages"]]
    names = [f"s{i}/b{b}" for i, (_, depth, _) in enumerate(macro["stages"]) for b in range(depth)]
    if len(names) != len(spec["genotype"]):
        raise ValueError(f"the genotype has {len(spec['genotype'])} operations for {len(names)} blocks")
    # the levels' last stages: those before one that lowers the resolution, and the last
    ends = [i for i in range(len(stages)) if i + 1 == len(stages) or stages[i + 1]["stride"] > 1]
    blocks = list(accumulate(stage["depth"] for stage in stages))
    low_stage = next((i for i in ends if blocks[i] - 1 == macro["low_level_block"]), None)
    if low_stage is None:
        raise ValueError(f"low_level_block={macro['low_level_block']} isn't the last block of a resolution")
    low = sum(stage["stride"] > 1 for stage in stages[: low_stage + 1])
    last = sum(stage["stride"] > 1 for stage in stages) + bool(macro["last_conv"])
    backbone = dict(
        type="search.ChainNet",
        stem=dict(channels=macro["stem"]),
        stages=stages,
        last=dict(channels=macro["last_conv"]) if macro["last_conv"] else None,
        out_indices=[low, last],
        arch=dict(zip(names, spec["genotype"], strict=True)),
    )
    head = dict(
        type=f"tasks.segmentation.heads.{'SumLRASPPHead' if macro['lraspp'] else 'GroupedASPPHead'}",
        in_channels=[stages[low_stage]["channels"], macro["last_conv"] or stages[-1]["channels"]],
        in_index=[0, 1],
        input_transform="multiple_select",
        channels=macro["decoder_channels"],
        dropout_ratio=0.0,
        align_corners=True,
    )
    return segmentor(backbone, head, spec["num_classes"])


def _operation(name: str) -> dict:
    kernel, expand, groups, dilation = (int(number or 1) for number in _OPERATION.fullmatch(name).groups())
    return dict(type="mbconv", kernel=kernel, expand=expand, expansion=True, groups=groups, shuffle=False, dilation=dilation)
