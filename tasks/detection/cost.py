"""How detectors run on images alone, by which their cost and memory are counted.

What a two-stage detector proposes depends on values, and so would the work of its second stage. Here the boxes are given:
equally many on each map, all equal, for the work doesn't depend on where they lie. Letters: B images, N boxes, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.detectors import BaseDetector, TwoStageDetector
from mmdet.models.roi_heads import CascadeRoIHead, StandardRoIHead
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmdet.structures import DetDataSample
from torch import Tensor, nn

from search.cost.count import FORWARDS
from search.engine.errors import UserError

# of an image, when multiply-adds are counted
BOXES = 1000


def on_whole_images(model: BaseDetector, images: Tensor) -> Any:
    """A detector on images [B, 3, H, W] that nothing was padded to; detectors with attention ask for that."""
    shape = tuple(images.shape[2:])
    sizes = dict(img_shape=shape, ori_shape=shape, pad_shape=shape, batch_input_shape=shape, scale_factor=(1.0, 1.0))
    return model(images, [DetDataSample(metainfo=dict(sizes)) for _ in images], mode="tensor")


def on_fixed_boxes(model: TwoStageDetector, images: Tensor, number: int = BOXES) -> Any:
    """Backbone, neck, RPN and box heads on images [B, 3, H, W] and a number of boxes of each."""
    maps = model.extract_feat(images)
    proposed = model.rpn_head(maps) if model.with_rpn else ()
    boxes = given_boxes(maps, number)
    return proposed, [head(pooled(*stage, maps, boxes)) for *stage, head in stages_of(model.roi_head)]


def given_boxes(maps: Sequence[Tensor], number: int) -> Tensor:
    """[B * number, 5], ``number`` boxes of each image: (image, x1, y1, x2, y2), squares of 32 pixels."""
    images = torch.arange(len(maps[0]), device=maps[0].device, dtype=maps[0].dtype).repeat(number)
    corners = maps[0].new_tensor([0.0, 0.0, 32.0, 32.0]).expand(len(images), 4)
    return torch.cat([images[:, None], corners], dim=1)


def stages_of(roi_head: nn.Module) -> list[tuple[nn.Module, nn.Module | None, nn.Module]]:
    """(extractor of boxes' features, module shared by all heads, box head) of each stage. UserError for unknown kinds."""
    if roi_head.with_mask:
        raise UserError(f"The cost of a {type(roi_head).__name__} with masks can't be counted: give it no mask_head.")
    known = (StandardRoIHead._bbox_forward, CascadeRoIHead._bbox_forward)
    if getattr(type(roi_head), "_bbox_forward", None) not in known:
        raise UserError(f"The cost of a {type(roi_head).__name__} can't be counted: it computes boxes in its own way.")
    shared = roi_head.shared_head if roi_head.with_shared_head else None
    extractors, heads = roi_head.bbox_roi_extractor, roi_head.bbox_head
    if not isinstance(heads, nn.ModuleList):
        extractors, heads = [extractors], [heads]
    return [(extractor, shared, head) for extractor, head in zip(extractors, heads, strict=True)]


def pooled(extractor: nn.Module, shared: nn.Module | None, maps: Sequence[Tensor], boxes: Tensor) -> Tensor:
    """Features [N, C, height, width] of boxes [N, 5] (image, x1, y1, x2, y2), an equal share of them from each map."""
    maps = maps[: extractor.num_inputs]
    if not isinstance(extractor, SingleRoIExtractor):
        found = extractor(maps, boxes)
    else:
        found = maps[0].new_zeros(len(boxes), extractor.out_channels, *extractor.roi_layers[0].output_size)
        for level, part in enumerate(torch.arange(len(boxes), device=boxes.device).chunk(len(maps))):
            found[part] = extractor.roi_layers[level](maps[level], boxes[part])
    return found if shared is None else shared(found)


FORWARDS[BaseDetector] = on_whole_images
FORWARDS[TwoStageDetector] = on_fixed_boxes
