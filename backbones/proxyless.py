"""ProxylessNAS (arXiv 1812.00332) and once-for-all (1908.09791): sub-networks of two spaces of inverted residuals.

The authors' files list blocks as [kernel, stride, expand, hidden, in, out, squeeze-excitation, activation, shortcut], or null
for a layer that isn't there. What they leave open, per layer: kernel 3, 5 or 7 and expansion 3, 4 (once-for-all only) or 6; per
stage, how many layers. ProxylessNAS decides the latter by a zero operation, once-for-all by a depth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from backbones.blocks import round_channels
from backbones.spec import classifier, schema

KERNELS = (3, 5, 7)
EXPANSIONS = (3, 4, 6)
# layers of a stage: once-for-all's smallest and largest depth
DEPTHS = (2, 3, 4)
ACTIVATIONS = {"relu": "relu", "relu6": "relu6", "h_swish": "hardswish"}


@schema("hanlab")
def hanlab(spec: Mapping) -> dict:
    """A sub-network as a `ChainNet` of its space, with the architecture that it is.

    Stages are read off the blocks: a new one begins where channels or resolution change. The first has no choice.
    """
    zeros = None in spec["blocks"]
    first, *groups = _stages(spec["blocks"])
    stages, arch = [_fixed(first[0])], {}
    for index, blocks in enumerate(groups, 1):
        _, stride, _, _, c_in, out, squeezed, activation, _ = blocks[0]
        depths = DEPTHS if not zeros and DEPTHS[0] <= len(blocks) <= DEPTHS[-1] else (len(blocks),)
        ops = operations(out, squeezed, ACTIVATIONS[activation])
        first_ops = operations(c_in, squeezed, ACTIVATIONS[activation])
        if zeros and len(blocks) > 1:
            ops["skip"] = dict(type="skip")
        stages.append(dict(channels=out, stride=stride, depth=depths, ops=ops, first=first_ops))
        if len(depths) > 1:
            arch[f"s{index}/depth"] = len(blocks)
        for b, block in enumerate(blocks):
            arch[f"s{index}/b{b}"] = "skip" if block is None else _option(block, first_ops if b == 0 else ops, b > 0)
    late = "hardswish" if spec["head_after_pool"] else "relu6"
    mix = spec["feature_mix"]
    last = spec["final_expand"] if spec["head_after_pool"] else mix
    backbone = dict(
        type="search.ChainNet",
        stem=dict(channels=spec["stem"], activation=late),
        stages=stages,
        last=dict(channels=last, activation=late),
        arch=arch,
    )
    if spec["head_after_pool"]:
        return classifier(backbone, spec, hidden=dict(channels=mix, activation="hardswish", bias=False))
    return classifier(backbone, spec)


def operations(c_in: int, squeezed: bool, activation: str) -> dict[str, dict]:
    """The candidates of a layer with `c_in` channels, by name: k<kernel>_e<expansion>."""
    found = {}
    for kernel in KERNELS:
        for expand in EXPANSIONS:
            hidden = round(c_in * expand)
            found[f"k{kernel}_e{expand}"] = dict(
                type="mbconv",
                kernel=kernel,
                hidden=hidden,
                squeeze=round_channels(hidden / 4) if squeezed else 0,
                squeeze_activation="relu",
                gate="hardsigmoid",
                activation=activation,
            )
    return found


def _fixed(block: Sequence) -> dict:
    kernel, stride, _, hidden, c_in, out, _, activation, shortcut = block
    ops = dict(
        type="mbconv",
        kernel=kernel,
        hidden=hidden,
        expansion=hidden != c_in,
        activation=ACTIVATIONS[activation],
        shortcut=bool(shortcut),
    )
    return dict(channels=out, stride=stride, ops=ops)


def _option(block: Sequence, ops: Mapping, has_shortcut: bool) -> str:
    """The name of the operation that a block is. ValueError where the space has none."""
    kernel, _, expand, hidden, *_, shortcut = block
    name = f"k{kernel}_e{expand}"
    if name not in ops or ops[name]["hidden"] != hidden or bool(shortcut) != has_shortcut:
        raise ValueError(f"block {list(block)} isn't of this space: {name} with a hidden width by its ratio, {has_shortcut=}")
    return name


def _stages(blocks: Sequence) -> list[list]:
    """Blocks grouped in stages, the fixed first block alone; nulls belong to the stage before them."""
    groups: list[list] = []
    for block in blocks:
        if len(groups) < 2 or (block is not None and (block[1] > 1 or block[4] != block[5])):
            groups.append([])
        groups[-1].append(block)
    return groups
