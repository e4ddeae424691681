"""What a backbone tells about its feature maps, as data: levels, channels, strides, and which of them it returns."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.model import BaseModule
from torch import nn


class FeatureBackbone(BaseModule):
    """A backbone with numbered levels, each the output of one of its modules.

    A subclass builds its modules, then calls `_returns`. `frozen` levels are in eval mode and without gradients, as mm
    backbones' frozen stages are.

    Attributes:
        feature_info: for each level its `channels`, its `stride` and the `module` that ends it.
        out_indices: the levels that forward returns.
    """

    feature_info: list[dict]
    out_indices: tuple[int, ...]

    def _returns(self, feature_info: list[dict], out_indices: Sequence[int] | None, frozen_stages: int = -1) -> None:
        """Say what the levels are and which are returned, by default the last; freeze levels 0 to `frozen_stages`."""
        levels = len(feature_info)
        self.feature_info = feature_info
        self.out_indices = (levels - 1,) if out_indices is None else tuple(out_indices)
        if not self.out_indices or not all(0 <= i < levels for i in self.out_indices):
            raise ValueError(f"out_indices={self.out_indices}: this network has levels 0 to {levels - 1}")
        if not -1 <= frozen_stages < levels:
            raise ValueError(f"frozen_stages={frozen_stages}: this network has levels 0 to {levels - 1} (-1 freezes none)")
        self.frozen_stages = frozen_stages
        self._out_modules = tuple(feature_info[i]["module"] for i in self.out_indices)
        self._freeze()

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Channels of the returned levels."""
        return tuple(self.feature_info[i]["channels"] for i in self.out_indices)

    @property
    def out_strides(self) -> tuple[int, ...]:
        """Strides of the returned levels."""
        return tuple(self.feature_info[i]["stride"] for i in self.out_indices)

    def train(self, mode: bool = True) -> FeatureBackbone:
        """As torch's; frozen levels stay in eval mode."""
        super().train(mode)
        self._freeze()
        return self

    def _up_to(self, module: str) -> list[nn.Module]:
        """The modules that run up to and including the one named: those registered before it at any depth."""
        found, parent = [], self
        for name in module.split("."):
            for child_name, child in parent.named_children():
                if child_name == name:
                    parent = child
                    break
                found.append(child)
        return [*found, parent]

    def _freeze(self) -> None:
        if getattr(self, "frozen_stages", -1) < 0:
            return
        for part in self._up_to(self.feature_info[self.frozen_stages]["module"]):
            # norms keep their statistics, and no path is dropped
            part.eval()
            for parameter in part.parameters():
                parameter.requires_grad = False
