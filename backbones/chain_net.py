"""Chains of blocks, one after the other: MobileNet, ShuffleNet and ResNet shaped networks, fixed or searchable.

One class for all of them, because they differ in data only: which block, how wide, how often. The spaces of ProxylessNAS
(arXiv 1812.00332), FBNet (1812.03443), Single-Path NAS (1904.02877), FairNAS, MnasNet, once-for-all (1908.09791) and SPOS
(1904.00420) are stages whose blocks have several `ops`, and stages of several depths.

Shapes: B batch, C channels, H and W height and width of the input.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import islice

from torch import Tensor, nn

from backbones.blocks import conv, make_block
from backbones.features import FeatureBackbone
from backbones.operations import set_norms
from search.registry import MODELS
from search.space import Architecture
from search.supernet import Pick, reading


class Stage(nn.ModuleList):
    """Blocks in a row, of which a depth is chosen where there is more than one to choose from."""

    def __init__(self, blocks: Sequence[nn.Module], depth: str | None, depths: Sequence[int], gates) -> None:
        super().__init__(blocks)
        self.depth = depth
        self.depths = tuple(depths)
        self.gates = gates

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> what the blocks make of it; in a supernet the outputs at all active depths, weighted."""
        if self.depth is None or self.gates is None:
            for block in self:
                x = block(x)
            return x
        values, active = self.gates[self.depth]
        weights = {self.depths[i]: None if values is None else values[i] for i in active}
        total = None
        for depth, block in enumerate(islice(self, max(weights)), 1):
            x = block(x)
            if depth in weights:
                y = x if weights[depth] is None else weights[depth] * x
                total = y if total is None else total + y
        assert total is not None, f"no active depth at {self.depth}"
        return total


@MODELS.register_module()
class ChainNet(FeatureBackbone):
    """A backbone of stages; narrow with `arch`, or as the building context says, where anything is left open.

    Args:
        stem: `channels`, and optionally `kernel` (3), `stride` (2), `activation` ("relu"), `pool` (a 3x3 max pool of stride 2
            after it), `bias` (False, of the convolution).
        stages: each a mapping of `channels`; `stride` of its first block (1); `depth`, a number of blocks or several to choose
            from; and `ops`: the settings of its blocks (see `backbones.blocks`), or several by name to choose from, in the
            order of their names. With
            `shared` the whole stage has one choice. `first` are other settings for the first block.
        last: a final 1x1 convolution's `channels` and `activation`, or the settings of another block; it is the last level.
        activation, drop_path: defaults for the blocks: drop path grows linearly with depth from 0 to this.
        norm: `eps` and `momentum` of all batch norms.
        output_stride: where stages would lower the resolution beyond it, they keep it and dilate their convolutions instead, as
            segmentors do, see `dilated`; by default none does.
        out_indices: the levels to return: 0 is the map of the stem's resolution, then one level per resolution, then the last
            convolution; by default the last. What comes after the last one returned isn't built.
        frozen_stages: levels up to this one aren't trained.
        arch: an architecture, its file, or None to be read by the building context (needed only with choices).
        part: the name this module's choices go by in an architecture file.

    Choices: `s<i>/depth` (Ordinal), `s<i>/b<j>` or, if shared, `s<i>/op` (OneOf of the names of `ops`).
    Raises ValueError for an architecture of another space and for settings that can't be.
    """

    def __init__(
        self,
        stem: Mapping,
        stages: Sequence[Mapping],
        last: Mapping | None = None,
        activation: str = "relu",
        drop_path: float = 0.0,
        norm: Mapping | None = None,
        output_stride: int | None = None,
        out_indices: Sequence[int] | None = None,
        frozen_stages: int = -1,
        arch: Architecture | Mapping | str | os.PathLike | None = None,
        part: str = "backbone",
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        if not 0 <= drop_path < 1:
            raise ValueError(f"drop_path={drop_path} is not a probability below 1")
        self.stem = _stem(**{"activation": activation, **stem})
        channels, stride = stem["channels"], stem.get("stride", 2) * (2 if stem.get("pool") else 1)
        if output_stride is not None:
            stages = dilated(stages, stride, output_stride)
        self.stages = nn.ModuleList()
        levels = [dict(channels=channels, stride=stride, module="stem")]
        total = sum(max(_depths(stage)) for stage in stages)
        needed = None if out_indices is None else max(out_indices, default=0)
        with reading(part, arch) if any(map(_open, stages)) else nullcontext() as pick:
            for index, stage in enumerate(stages):
                # a stage that lowers the resolution ends the level before it
                if stage.get("stride", 1) > 1:
                    if needed is not None and len(levels) > needed:
                        break
                    stride *= stage["stride"]
                    levels.append({})
                made = sum(len(s) for s in self.stages)
                rates = [drop_path * (made + b) / total for b in range(max(_depths(stage)))]
                self.stages.append(_make_stage(pick, index, channels, stage, activation, rates))
                channels = stage["channels"]
                levels[-1] = dict(channels=channels, stride=stride, module=f"stages.{index}")
            else:
                if last is not None and (needed is None or needed >= len(levels)):
                    ops = {key: value for key, value in last.items() if key != "channels"}
                    ops = ops if "type" in ops else dict(type="conv", kernel=1, **ops)
                    self.last = _make(channels, last["channels"], 1, activation, 0.0, ops)
                    levels.append(dict(channels=last["channels"], stride=stride, module="last"))
        set_norms(self, norm)
        self._returns(levels, out_indices, frozen_stages)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """[B, 3, H, W] -> the levels of `out_indices`, each [B, channels, H / stride, W / stride]."""
        features = {"stem": self.stem(x)}
        x = features["stem"]
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if f"stages.{index}" in self._out_modules:
                features[f"stages.{index}"] = x
        if "last" in self._out_modules:
            features["last"] = self.last(x)
        return tuple(features[name] for name in self._out_modules)


def dilated(stages: Sequence[Mapping], stride: int, output_stride: int) -> list[dict]:
    """Stages after a map of `stride` that don't lower the resolution beyond `output_stride`.

    A stride that is left out multiplies the dilation of all blocks that follow its own, as in TF-slim's networks (tensorflow/
    models, research/slim/nets/mobilenet/mobilenet.py). Raises ValueError where no stage ends at `output_stride`.
    """
    made, rate = [], 1
    for stage in stages:
        step = stage.get("stride", 1)
        if rate == 1 and stride * step <= output_stride:
            stride *= step
            made.append(dict(stage))
            continue
        first = stage.get("first", stage["ops"])
        made.append({**stage, "stride": 1, "first": _at_rate(first, rate), "ops": _at_rate(stage["ops"], rate * step)})
        rate *= step
    if stride != output_stride:
        raise ValueError(f"output_stride={output_stride}, but the stages' strides lead to {stride}")
    return made


def _at_rate(ops: Mapping, rate: int) -> dict:
    """Settings of a block, or of several by name, with `dilation`; as they are where it is 1."""
    if rate == 1 or ops.get("type") == "skip":
        return dict(ops)
    return {**ops, "dilation": rate} if "type" in ops else {name: _at_rate(settings, rate) for name, settings in ops.items()}


def _stem(
    channels: int, activation: str, kernel: int = 3, stride: int = 2, pool: bool = False, bias: bool = False
) -> nn.Sequential:
    stem = conv(3, channels, kernel, stride, activation, bias=bias)
    return nn.Sequential(stem, nn.MaxPool2d(3, 2, 1)) if pool else stem


def _depths(stage: Mapping) -> tuple[int, ...]:
    depth = stage.get("depth", 1)
    return (depth,) if isinstance(depth, int) else tuple(depth)


def _open(stage: Mapping) -> bool:
    """Whether a stage leaves anything to choose."""
    return "type" not in stage["ops"] or len(_depths(stage)) > 1


def _make_stage(pick: Pick | None, index: int, channels: int, stage: Mapping, activation: str, rates: Sequence[float]) -> Stage:
    depths = _depths(stage)
    known = {"channels", "stride", "depth", "ops", "first", "shared"}
    if unknown := set(stage) - known:
        raise ValueError(f"stage {index} has {sorted(unknown)[0]!r}, which is none of {', '.join(sorted(known))}")
    chosen = max(depths)
    name = None
    if len(depths) > 1:
        name = f"s{index}/depth"
        picked = pick.value(name, depths)
        chosen = chosen if picked is None else picked
    blocks: list[nn.Module] = []
    for b in range(max(depths)):
        c_in, stride = (channels, stage.get("stride", 1)) if b == 0 else (stage["channels"], 1)
        ops = stage["first"] if b == 0 and "first" in stage else stage["ops"]
        make = partial(_make, c_in, stage["channels"], stride, activation, rates[b])
        if "type" in ops:
            if b < chosen:
                blocks.append(make(ops))
            continue
        candidates = {
            option: partial(make, settings)
            for option, settings in sorted(ops.items())
            if settings["type"] != "skip" or (c_in == stage["channels"] and stride == 1)
        }
        choice = f"s{index}/op" if stage.get("shared") else f"s{index}/b{b}"
        # blocks beyond the chosen depth are of no account
        when = [(name, d) for d in depths if d > b] if name and b >= min(depths) and not stage.get("shared") else ()
        op = pick.op(choice, candidates, when=when)
        if op is not None and b < chosen:
            blocks.append(op)
    return Stage(blocks, name, depths, pick.gates() if name else None)


def _make(c_in: int, c_out: int, stride: int, activation: str, drop_path: float, settings: Mapping) -> nn.Module:
    settings = dict(settings)
    kind = settings.pop("type")
    if kind != "skip":
        settings.setdefault("activation", activation)
    if drop_path:
        settings.setdefault("drop_path", drop_path)
    return make_block(c_in, c_out, stride, kind, **settings)
