"""Auto-DeepLab's decode heads (arXiv 1901.02985): of the search, section 4.2.1, and of the found network, section 4.2.3.

As configs name them: `type='tasks.segmentation.auto_deeplab_head.AutoDeepLabSearchHead'`. A head takes the backbone's maps,
each [B, C_i, H_i, W_i], and gives logits [B, K, H, W], which mmseg brings to the image's size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmcv.cnn import ConvModule
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.utils import resize
from torch import Tensor, nn

from search.registry import MODELS

# the 3x3 convolution at stride s has this rate over s
REACH = 96


class Pyramid(nn.Module):
    """Atrous spatial pyramid pooling: branches side by side, concatenated. [B, c_in, H, W] -> [B, branches * channels, H, W].

    Branches: a 1x1 convolution, a 3x3 one for each of `dilations`, and a 1x1 of the map's mean; each with norm and activation.
    """

    def __init__(self, c_in: int, channels: int, dilations: Sequence[int], align_corners: bool, **names) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), ConvModule(c_in, channels, 1, **names))
        self.branches = nn.ModuleList([ConvModule(c_in, channels, 1, **names)])
        for rate in dilations:
            self.branches.append(ConvModule(c_in, channels, 3, padding=rate, dilation=rate, **names))
        self.out_channels = (2 + len(dilations)) * channels

    def forward(self, x: Tensor) -> Tensor:
        """Concatenate the branches."""
        pooled = resize(self.pool(x), size=x.shape[2:], mode="bilinear", align_corners=self.align_corners)
        return torch.cat([pooled, *(branch(x) for branch in self.branches)], dim=1)


@MODELS.register_module()
class AutoDeepLabSearchHead(BaseDecodeHead):
    """A small pyramid at every stride that the last layer may have; their logits are upsampled and summed.

    The pyramid at stride s has a 1x1, a 3x3 of rate 96 / s and the image's mean, each as wide as the map itself. The sum isn't
    weighted: what weighs a stride are the transitions that lead to its map. It has the resolution of the finest map; mmseg
    upsamples it to the image's.

    A map that doesn't run (None) is left out, as in a supernet whose gates choose one path. For a derived network give one
    stride: `strides=[8], in_channels=[...], in_index=[1]`.

    Args:
        strides: of the maps that `in_index` names, each with its `in_channels`; by default all four of a supernet.
        dropout_ratio: of the pyramids' outputs; 0 by default, as the paper has none.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        strides: Sequence[int] = (4, 8, 16, 32),
        in_index: Sequence[int] | None = None,
        dropout_ratio: float = 0.0,
        init_cfg: dict | None = None,
        **settings,
    ) -> None:
        if len(in_channels) != len(strides) or not all(s > 0 and REACH % s == 0 for s in strides):
            raise ValueError(f"strides={list(strides)} must divide {REACH}, one for each of in_channels={list(in_channels)}")
        super().__init__(
            in_channels=list(in_channels),
            channels=max(in_channels),
            in_index=list(range(len(strides)) if in_index is None else in_index),
            input_transform="multiple_select",
            dropout_ratio=dropout_ratio,
            init_cfg=init_cfg or dict(type="Normal", std=0.01, override=dict(name="classifiers")),
            **settings,
        )
        # each pyramid has a classifier of its own instead
        del self.conv_seg
        names = dict(norm_cfg=self.norm_cfg, act_cfg=self.act_cfg)
        self.pyramids = nn.ModuleList(
            Pyramid(c, c, [REACH // s], self.align_corners, **names) for c, s in zip(in_channels, strides, strict=True)
        )
        self.classifiers = nn.ModuleList(nn.Conv2d(p.out_channels, self.out_channels, 1) for p in self.pyramids)

    def forward(self, inputs: Sequence[Tensor | None]) -> Tensor:
        """Maps -> logits at the resolution of the finest one. ValueError where none runs."""
        maps = self._transform_inputs(inputs)
        running = [i for i, x in enumerate(maps) if x is not None]
        if not running:
            raise ValueError("no map of the last layer runs, so there is nothing to decode")
        size = max((maps[i].shape[2:] for i in running), key=lambda shape: shape.numel())
        total = None
        for i in running:
            y = self.pyramids[i](maps[i])
            y = self.classifiers[i](y if self.dropout is None else self.dropout(y))
            y = resize(y, size=size, mode="bilinear", align_corners=self.align_corners)
            total = y if total is None else total + y
        return total


@MODELS.register_module()
class DeepLabV3PlusHead(BaseDecodeHead):
    """DeepLabV3+'s decoder (arXiv 1802.02611) with full convolutions, as Auto-DeepLab's published parameters show it.

    mmseg's DepthwiseSeparableASPPHead has separable ones and fuses the pyramid by a 3x3; here it is a 1x1. Source: tensorflow/
    models, research/deeplab/model.py.

    Args:
        in_channels: of the fine map (stride 4) and of the backbone's output, whose places are `in_index`.
        channels: of each branch, of the fused pyramid and of the two 3x3 convolutions after the fine map has joined.
        low_channels: of the fine map when it joins.
        dilations: of the pyramid; 12, 24 and 36 for an output of stride 8, half of that for 16.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int = 256,
        low_channels: int = 48,
        dilations: Sequence[int] = (12, 24, 36),
        in_index: Sequence[int] = (0, 1),
        **settings,
    ) -> None:
        super().__init__(
            in_channels=list(in_channels),
            channels=channels,
            in_index=list(in_index),
            input_transform="multiple_select",
            **settings,
        )
        fine, coarse = in_channels
        names = dict(norm_cfg=self.norm_cfg, act_cfg=self.act_cfg)
        self.pyramid = Pyramid(coarse, channels, dilations, self.align_corners, **names)
        self.fuse = ConvModule(self.pyramid.out_channels, channels, 1, **names)
        self.low = ConvModule(fine, low_channels, 1, **names)
        self.refine = nn.Sequential(
            ConvModule(channels + low_channels, channels, 3, padding=1, **names),
            ConvModule(channels, channels, 3, padding=1, **names),
        )

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Maps -> logits at the resolution of the fine one."""
        fine, coarse = self._transform_inputs(inputs)
        x = resize(self.fuse(self.pyramid(coarse)), size=fine.shape[2:], mode="bilinear", align_corners=self.align_corners)
        return self.cls_seg(self.refine(torch.cat([x, self.low(fine)], dim=1)))
