"""What the memory planner asks of the task: sizes of images and batches, read from a config alone, and the losses.

mmdet's losses pick what they count by the values of targets and predictions, so they can't run on tensors without values. Here
the network runs on such tensors and the losses on random outputs of its shapes, with boxes that are given.

Letters: B batch, C channels, H, W pixels, N boxes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from mmdet.models.detectors import SingleStageDetector, TwoStageDetector
from mmdet.models.task_modules import AssignResult, SamplingResult
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox2roi
from mmengine.config import Config, ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily
from torch.utils._python_dispatch import _disable_current_modes

from search.cost.count import run_on
from search.engine.errors import UserError
from search.engine.task_data import datasets_of, found
from search.registry import DATASETS, MODELS
from search.supernet import record
from tasks.detection import model_config
from tasks.detection.cost import given_boxes, on_fixed_boxes, pooled, stages_of
from tasks.detection.datasets import CocoScenes
from tasks.detection.pipelines import image_size
from tasks.scenes import DIGITS

# boxes in an image, in rows and columns: about as many as COCO's images have
_GRID = (2, 4)
Terms = dict[str, Tensor]


def without_images(cfg: Config) -> Config:
    """A copy of the config whose model has the classes and channels that `prepare` writes, as far as no data tell them.

    Classes are those that the training data's ``metainfo`` names, and the digits of the embedded scenes.
    """
    cfg = copy.deepcopy(cfg)
    dataset = next(datasets_of(cfg.get("train_dataloader")), {})
    named = DIGITS if "type" in dataset and found(DATASETS, dataset) is CocoScenes else ()
    classes = (dataset.get("metainfo") or {}).get("classes") or named
    if classes:
        model_config.write_classes(cfg["model"], len(classes))
    model_config.write_channels(cfg["model"])
    return cfg


def memory_batch(cfg: Mapping[str, Any], loader: str) -> dict[str, list]:
    """A batch of a loader's shapes as mmdet's pipelines make it: ``inputs``, B uint8 tensors [C, H, W], and samples."""
    channels, height, width = image_size(cfg, loader)
    size = cfg[loader]["batch_size"]
    return dict(
        inputs=[torch.zeros(channels, height, width, dtype=torch.uint8) for _ in range(size)],
        data_samples=[_sample(height, width) for _ in range(size)],
    )


def memory_loss(cfg: Mapping[str, Any], model: nn.Module, inputs: Tensor, data_samples: list[DetDataSample]) -> Terms:
    """The detector's losses, as a dict of terms, of ``inputs`` [B, C, H, W], which may be without values.

    Of two stages, the second sees as many boxes as its sampler picks at most, equally many on each map. Raises UserError for
    detectors of other kinds.
    """
    settings = ConfigDict(copy.deepcopy(dict(cfg["model"])))
    maps = model.extract_feat(inputs)
    if isinstance(model, TwoStageDetector):
        terms = {}
        if model.with_rpn:
            rpn = dict(settings.rpn_head, num_classes=1, train_cfg=settings.train_cfg.rpn, test_cfg=settings.test_cfg.rpn)
            terms.update(_prefixed("rpn", _dense_losses(model.rpn_head, rpn, maps, data_samples)))
        return {**terms, **_box_losses(model, settings, maps, data_samples)}
    if isinstance(model, SingleStageDetector) and hasattr(model.bbox_head, "loss_by_feat"):
        head = dict(settings.bbox_head, train_cfg=settings.get("train_cfg"), test_cfg=settings.get("test_cfg"))
        return _dense_losses(model.bbox_head, head, maps, data_samples)
    raise UserError(f"The memory of a {type(model).__name__} can't be predicted: it computes its losses in its own way.")


def memory_predictions(cfg: Mapping[str, Any], model: nn.Module, inputs: Tensor, data_samples: list[DetDataSample]) -> None:
    """The network on ``inputs`` [B, C, H, W]; of two stages, the second sees as many boxes of an image as are proposed at most.

    Which boxes are predicted depends on values; picking them is left out.
    """
    proposed = (cfg["model"].get("test_cfg") or {}).get("rpn") if isinstance(model, TwoStageDetector) else None
    if proposed is None:
        run_on(model, inputs)
    else:
        on_fixed_boxes(model, inputs, proposed["max_per_img"])


def _dense_losses(
    head: nn.Module, config: Mapping[str, Any], maps: Sequence[Tensor], samples: Sequence[DetDataSample]
) -> Terms:
    metas = [sample.metainfo for sample in samples]

    def losses(twin: nn.Module, outputs: Sequence[Sequence[Tensor]]) -> Terms:
        truth = [_sample(*meta["img_shape"]).gt_instances for meta in metas]
        return twin.loss_by_feat(*outputs, truth, metas, None)

    return _on_values(head, config, head(maps), losses)


def _box_losses(
    model: TwoStageDetector, settings: ConfigDict, maps: Sequence[Tensor], samples: Sequence[DetDataSample]
) -> Terms:
    terms: Terms = {}
    train_cfg, heads = settings.train_cfg.rcnn, settings.roi_head.bbox_head
    cascade = isinstance(heads, list | tuple)
    for stage, (extractor, shared, head) in enumerate(stages_of(model.roi_head)):
        own, config = (train_cfg[stage], heads[stage]) if cascade else (train_cfg, heads)
        boxes = given_boxes(maps, own.sampler.num)
        losses = partial(_losses_of_picked, own, [sample.img_shape for sample in samples])
        found = _on_values(head, config, head(pooled(extractor, shared, maps, boxes)), losses)
        terms.update(_prefixed(f"s{stage}" if cascade else "", found))
    return terms


def _losses_of_picked(
    train_cfg: ConfigDict, sizes: Sequence[tuple[int, int]], head: nn.Module, outputs: Sequence[Tensor]
) -> Terms:
    number, share = train_cfg.sampler.num, train_cfg.sampler.get("pos_fraction", 1.0)
    picked = [_picked(*size, number, share) for size in sizes]
    boxes = bbox2roi([result.priors for result in picked])
    return head.loss_and_target(*outputs, boxes, picked, train_cfg)["loss_bbox"]


def _prefixed(name: str, terms: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{name}_{key}" if name else key: value for key, value in terms.items()}


def _sample(height: int, width: int) -> DetDataSample:
    """An image with a grid of boxes, each half as large as its part of the grid, all of class 0."""
    shape = (height, width)
    sample = DetDataSample(metainfo=dict(img_shape=shape, ori_shape=shape, pad_shape=shape, scale_factor=(1.0, 1.0), img_id=0))
    rows, columns = _GRID
    high, wide = height / rows, width / columns
    corners = [(column * wide, row * high) for row in range(rows) for column in range(columns)]
    boxes = torch.tensor([[x, y, x + wide / 2, y + high / 2] for x, y in corners])
    sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.zeros(len(boxes), dtype=torch.long))
    sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
    return sample


def _picked(height: int, width: int, number: int, share: float) -> SamplingResult:
    """What a sampler picks that finds all it looks for: ``number`` boxes, of which a share lies on objects."""
    truth = _sample(height, width).gt_instances
    positive = int(number * share)
    boxes = truth.bboxes[torch.arange(number) % len(truth)]
    assigned = torch.where(torch.arange(number) < positive, torch.arange(number) % len(truth) + 1, 0)
    result = AssignResult(len(truth), assigned, torch.ones(number), torch.zeros(number, dtype=torch.long))
    flags = torch.zeros(number, dtype=torch.uint8)
    return SamplingResult(torch.arange(positive), torch.arange(positive, number), boxes, truth.bboxes, result, flags)


def _on_values(head: nn.Module, config: Mapping[str, Any], outputs: Any, losses: Callable[[nn.Module, Any], Terms]) -> Terms:
    """The losses of a head's outputs; of outputs without values, those of random ones in their place."""
    leaves, spec = torch.utils._pytree.tree_flatten(outputs)
    if not isinstance(leaves[0], FakeTensor):
        return losses(head, outputs)
    # kept, as mmdet's heads keep what they have picked for their last loss
    twin = vars(head).setdefault("_twin", None) or _without_weights(config)
    vars(head)["_twin"] = twin

    def total(values: Sequence[Tensor]) -> Tensor:
        terms = losses(twin, torch.utils._pytree.tree_unflatten(list(values), spec))
        parts = [part for term in terms.values() for part in (term if isinstance(term, list | tuple) else [term])]
        return sum(part.mean() for part in parts if part.requires_grad)

    return {"loss": _OnValues.apply(total, *leaves)}


def _without_weights(config: Mapping[str, Any]) -> nn.Module:
    """A head whose parameters have no values either, but its anchors do; built outside of everything that is followed."""
    built: list[nn.Module] = []
    with _disable_current_modes():
        record(lambda: built.append(MODELS.build(ConfigDict(copy.deepcopy(dict(config))))))
    return built[-1]


class _OnValues(torch.autograd.Function):
    """A loss of tensors without values, computed on random ones of their shapes: what it keeps and makes is followed.

    Applied to (values -> loss, *tensors); gives a loss without value, and such gradients.
    """

    @staticmethod
    def forward(ctx: Any, loss: Callable[[Sequence[Tensor]], Tensor], *tensors: Tensor) -> Tensor:
        """Compute the loss and keep its graph."""
        with unset_fake_temporarily(), torch.enable_grad():
            ctx.values = [_values(tensor) for tensor in tensors]
            ctx.loss = loss(ctx.values)
        ctx.shapes = [(tensor.shape, tensor.dtype) for tensor in tensors]
        return tensors[0].new_zeros((), dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Run backward through it."""
        if torch.is_grad_enabled():
            raise UserError("The memory of exact second order through a detector's losses can't be predicted.")
        with unset_fake_temporarily():
            torch.autograd.grad(ctx.loss, ctx.values, allow_unused=True)
        ctx.loss = None
        return (None, *(torch.zeros(shape, dtype=dtype) for shape, dtype in ctx.shapes))


def _values(tensor: Tensor) -> Tensor:
    """A random tensor of the same shape. Its bytes aren't followed, for those of the tensor whose place it takes are."""
    made = torch.empty(0, dtype=tensor.dtype)
    # a storage is followed with the size that it was made with
    made.untyped_storage().resize_(math.prod(tensor.shape) * made.element_size())
    made.set_(made.untyped_storage(), 0, tensor.shape)
    return made.normal_(generator=torch.Generator().manual_seed(0)).requires_grad_()
