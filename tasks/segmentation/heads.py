"""Decode heads whose layout mmseg doesn't have, as configs name them: `type='tasks.segmentation.heads.SeparableASPPHead'`.

A head takes the backbone's maps, each [B, C_i, H_i, W_i], and gives logits [B, K, H, W] at its own resolution, which mmseg
brings to the image's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule, DepthwiseSeparableConvModule
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.utils import resize
from torch import Tensor, nn

from search.registry import MODELS


@MODELS.register_module()
class SeparableASPPHead(BaseDecodeHead):
    """DeepLabV3's pyramid with depthwise separable convolutions and a 1x1 fusion, as FNA's segmentor has it.

    mmseg's DepthwiseSeparableASPPHead is DeepLabV3+'s: it fuses by a 3x3 convolution, and two separable ones follow.
    `dilations`: of the branches; 1 is a 1x1 convolution. Another branch is the map's mean.
    Source: JaminFong/FNA@32298e0e, fna_seg/model/deeplab/cityscapes.deeplabv3/head/ASPP_Sep.py.
    """

    def __init__(self, dilations: Sequence[int] = (1, 6, 12, 18), **settings) -> None:
        super().__init__(**settings)
        names = dict(norm_cfg=self.norm_cfg, act_cfg=self.act_cfg)
        c_in, channels = self.in_channels, self.channels
        self.branches = nn.ModuleList(
            ConvModule(c_in, channels, 1, **names)
            if dilation == 1
            else DepthwiseSeparableConvModule(c_in, channels, 3, padding=dilation, dilation=dilation, **names)
            for dilation in dilations
        )
        self.image_pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), ConvModule(c_in, channels, 1, **names))
        self.fuse = ConvModule(channels * (len(dilations) + 1), channels, 1, **names)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Maps -> logits at the resolution of the one that `in_index` names."""
        x = self._transform_inputs(inputs)
        pooled = resize(self.image_pool(x), size=x.shape[2:], mode="bilinear", align_corners=self.align_corners)
        return self.cls_seg(self.fuse(torch.cat([*(branch(x) for branch in self.branches), pooled], dim=1)))


@MODELS.register_module()
class SumLRASPPHead(BaseDecodeHead):
    """MobileNetV3's small head (arXiv 1905.02244, figure 10) on two maps, whose classifiers' logits are summed.

    The coarse map is reduced, gated by its pooled self, upsampled; then each map has a 1x1 classifier. mmseg's LRASPPHead
    concatenates three maps instead. Source: ashaw596/squeezenas@bdb27985, arch/model_cityscapes.py.

    Args:
        in_channels: of the fine and the coarse map; `input_transform` is "multiple_select".
        pool, pool_stride: window of the average pool, cut to the map where that is smaller, and its steps (height, width).
    """

    def __init__(self, pool: int = 49, pool_stride: tuple[int, int] = (16, 20), **settings) -> None:
        super().__init__(**settings)
        fine, coarse = self.in_channels
        self.pool, self.pool_stride = pool, tuple(pool_stride)
        self.reduce = ConvModule(coarse, self.channels, 1, norm_cfg=self.norm_cfg, act_cfg=self.act_cfg)
        self.gate = nn.Conv2d(coarse, self.channels, 1)
        self.fine_seg = nn.Conv2d(fine, self.out_channels, 1)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Maps -> logits at the resolution of the fine one."""
        fine, coarse = self._transform_inputs(inputs)
        pooled = F.avg_pool2d(coarse, [min(self.pool, n) for n in coarse.shape[2:]], self.pool_stride)
        # unlike the logits, these don't align corners
        gate = resize(self.gate(pooled).sigmoid(), size=coarse.shape[2:], mode="bilinear", align_corners=False)
        x = resize(self.reduce(coarse) * gate, size=fine.shape[2:], mode="bilinear", align_corners=False)
        return self.cls_seg(x) + self.fine_seg(fine)


@MODELS.register_module()
class GroupedASPPHead(BaseDecodeHead):
    """DeepLabV3+'s layout with grouped convolutions, as the largest SqueezeNAS networks have it.

    The pyramid's 3x3 convolutions have a group for each output channel, its pooled map is concatenated as it is; upsampled,
    beside a 1x1 convolution of the fine map, one depthwise 3x3 convolution mixes them. Source: ashaw596/squeezenas@bdb27985,
    arch/model_cityscapes.py.

    Args:
        in_channels: of the fine and the coarse map; `input_transform` is "multiple_select".
        channels: of each branch and of the fused pyramid; they divide the coarse map's.
        dilations: of the 3x3 branches; there is a 1x1 branch too.
    """

    def __init__(self, in_channels: Sequence[int], channels: int, dilations: Sequence[int] = (6, 12, 18), **settings) -> None:
        fine, coarse = in_channels
        super().__init__(in_channels=in_channels, channels=channels + fine, **settings)
        names = dict(norm_cfg=self.norm_cfg, act_cfg=self.act_cfg)
        self.branches = nn.ModuleList([ConvModule(coarse, channels, 1, **names)])
        for dilation in dilations:
            wide = dict(padding=dilation, dilation=dilation, groups=channels)
            self.branches.append(ConvModule(coarse, channels, 3, **wide, **names))
        self.fuse = ConvModule(channels * len(self.branches) + coarse, channels, 1, **names)
        self.fine = nn.Conv2d(fine, fine, 1)
        self.mix = ConvModule(self.channels, self.channels, 3, padding=1, groups=self.channels, **names)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Maps -> logits at the resolution of the fine one."""
        fine, coarse = self._transform_inputs(inputs)
        pooled = resize(F.adaptive_avg_pool2d(coarse, 1), size=coarse.shape[2:], mode="nearest")
        x = self.fuse(torch.cat([*(branch(coarse) for branch in self.branches), pooled], dim=1))
        x = resize(x, size=fine.shape[2:], mode="bilinear", align_corners=self.align_corners)
        return self.cls_seg(self.mix(torch.cat([x, self.fine(fine)], dim=1)))
