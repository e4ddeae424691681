"""mmdet's heads with searched cells in the place of their convolutions: RetinaNet's towers, the RPN's and the box head's.

A cell is a config of a module that brings [B, in_channels, H, W] to [B, channels, H, W] and takes both as arguments, such as
`search.HeadCell`; every cell needs a `part` of its own.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from mmdet.models import BBoxHead, RetinaHead, RPNHead
from torch import Tensor, nn

from search.registry import MODELS


@MODELS.register_module()
class CellRetinaHead(RetinaHead):
    """RetinaNet's head with a cell for classes and one for boxes, each the same for all levels.

    Args:
        cls_cell, reg_cell: configs of the cells; their channels are `feat_channels`.
        others: as mmdet's RetinaHead; `stacked_convs` has no use here.
    """

    def __init__(self, *args, cls_cell: Mapping[str, Any], reg_cell: Mapping[str, Any], **kwargs) -> None:
        self._cells = cls_cell, reg_cell
        super().__init__(*args, stacked_convs=0, **kwargs)

    def _init_layers(self) -> None:
        self.cls_cell, self.reg_cell = (_built(cell, self.in_channels, self.feat_channels) for cell in self._cells)
        self.retina_cls = nn.Conv2d(self.feat_channels, self.num_base_priors * self.cls_out_channels, 3, padding=1)
        self.retina_reg = nn.Conv2d(self.feat_channels, self.num_base_priors * self.bbox_coder.encode_size, 3, padding=1)

    def forward_single(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """A level's map [B, in_channels, H, W] -> [B, anchors * classes, H, W] and [B, anchors * 4, H, W]."""
        return self.retina_cls(self.cls_cell(x)), self.retina_reg(self.reg_cell(x))


@MODELS.register_module()
class CellRPNHead(RPNHead):
    """The RPN's head with a cell in the place of its convolution, the same for all levels.

    Args:
        cell: config of the cell; its channels are `feat_channels`.
        others: as mmdet's RPNHead.
    """

    def __init__(self, *args, cell: Mapping[str, Any], **kwargs) -> None:
        self._cell = cell
        super().__init__(*args, **kwargs)

    def _init_layers(self) -> None:
        super()._init_layers()
        self.rpn_conv = _built(self._cell, self.in_channels, self.feat_channels)


@MODELS.register_module()
class CellBBoxHead(BBoxHead):
    """Faster R-CNN's box head: a cell over the maps of regions, their mean, and one linear layer each for class and box.

    Args:
        cell: config of the cell.
        channels: of the cell.
        in_channels: of the maps of regions.
        others: as mmdet's BBoxHead; `with_avg_pool` is always true.
    """

    def __init__(self, *args, cell: Mapping[str, Any], in_channels: int = 256, channels: int = 256, **kwargs) -> None:
        super().__init__(*args, with_avg_pool=True, in_channels=channels, **kwargs)
        self.cell = _built(cell, in_channels, channels)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Maps of regions [N, in_channels, H, W] -> scores [N, classes + 1] and boxes [N, classes * 4]."""
        return super().forward(self.cell(x))


def _built(cell: Mapping[str, Any], in_channels: int, channels: int) -> nn.Module:
    return MODELS.build({**copy.deepcopy(dict(cell)), "in_channels": in_channels, "channels": channels})
