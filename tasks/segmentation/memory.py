"""What the memory planner asks of the task: sizes of images and batches, read from a config alone, and the losses.

Letters: B batch, C channels, H, W pixels, K classes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from mmengine.config import Config
from mmengine.structures import PixelData
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.utils import resize
from mmseg.structures import SegDataSample
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

from search.engine.errors import UserError
from search.engine.task_data import datasets_by_key, datasets_of, found, write_num_classes
from search.registry import DATASETS
from tasks.segmentation import model_config
from tasks.segmentation.model_config import sides

# sizes of the images of data sets whose own settings fix them
_SCENES = (128, 192)


def without_images(cfg: Config) -> Config:
    """A copy of the config whose model has the classes and channels that `prepare` writes, as far as no data tell them.

    Classes are those that the training data's ``metainfo`` or class names. Raises UserError for weights of other classes.
    """
    cfg = copy.deepcopy(cfg)
    dataset = next(datasets_of(cfg.get("train_dataloader")), {})
    named = getattr(found(DATASETS, dataset), "METAINFO", {}) if "type" in dataset else {}
    classes = (dataset.get("metainfo") or {}).get("classes") or named.get("classes")
    if classes:
        write_num_classes(cfg["model"], len(classes))
        model_config.check_losses(cfg["model"], len(classes))
    model_config.write_channels(cfg["model"])
    return cfg


def image_size(cfg: Mapping[str, Any], loader: str = "train_dataloader") -> tuple[int, int, int]:
    """(C, H, W) of what a loader feeds the network: of its last crop or resize, of the embedded scenes, or of the padding.

    A resize that keeps the images' ratio gives the box that they are to fit in.

    Raises UserError where none of them fixes a size.
    """
    place, dataset = next(datasets_by_key(loader, cfg[loader]))
    found = [size for _, size in _sizes(place, dataset)]
    if found:
        return 3, *found[-1]
    if _name(dataset) == "Scenes":
        given = dataset.get("scenes") or {}
        return 3, given.get("height", _SCENES[0]), given.get("width", _SCENES[1])
    padded = (cfg["model"].get("data_preprocessor") or {}).get("size")
    if padded is None:
        raise UserError(
            f"{loader}: nothing in its pipeline fixes the size of images, so their memory can't be predicted: add a transform "
            "such as dict(type='mmseg.RandomCrop', crop_size=(321, 321))"
        )
    return 3, *sides(padded)


def memory_batch(cfg: Mapping[str, Any], loader: str) -> dict[str, list]:
    """A batch of a loader's shapes as mmseg's pipelines make it: ``inputs``, B uint8 tensors [C, H, W], and samples."""
    channels, height, width = image_size(cfg, loader)
    size = cfg[loader]["batch_size"]
    shape = dict(img_shape=(height, width), ori_shape=(height, width), pad_shape=(height, width))
    samples = []
    for _ in range(size):
        sample = SegDataSample(metainfo=dict(shape))
        sample.gt_sem_seg = PixelData(data=torch.zeros(1, height, width, dtype=torch.long))
        samples.append(sample)
    return dict(inputs=[torch.zeros(channels, height, width, dtype=torch.uint8) for _ in range(size)], data_samples=samples)


def memory_loss(
    cfg: Mapping[str, Any], model: nn.Module, inputs: Tensor, data_samples: list[SegDataSample]
) -> dict[str, Tensor]:
    """The segmentor's losses on tensors without values, as a dict of terms.

    mmseg's heads also count how many pixels are right, which gives shapes that depend on values. Here is what their losses
    keep for backward: logits of the images' size, and each loss on them. Raises UserError for heads with losses of their own.
    """
    maps = model.extract_feat(inputs)
    heads = {"decode": model.decode_head}
    if model.with_auxiliary_head:
        found = model.auxiliary_head
        many = isinstance(found, nn.ModuleList)
        heads.update({f"aux_{i}": head for i, head in enumerate(found)} if many else {"aux": found})
    terms: dict[str, Tensor] = {}
    for name, head in heads.items():
        if type(head).loss is not BaseDecodeHead.loss or type(head).loss_by_feat is not BaseDecodeHead.loss_by_feat:
            raise UserError(f"The memory of a {type(head).__name__} can't be predicted: it computes its losses in its own way.")
        labels = torch.stack([sample.gt_sem_seg.data for sample in data_samples]).squeeze(1)
        logits = resize(head.forward(maps), size=labels.shape[1:], mode="bilinear", align_corners=head.align_corners)
        losses = head.loss_decode if isinstance(head.loss_decode, nn.ModuleList) else [head.loss_decode]
        for i, loss in enumerate(losses):
            try:
                # a given factor, because mmseg counts the labels that aren't ignored
                terms[f"{name}.{i}.loss"] = loss(logits, labels, ignore_index=head.ignore_index, avg_factor=labels.numel())
            except (DynamicOutputShapeException, DataDependentOutputException) as error:
                raise UserError(
                    f"The memory of a {type(loss).__name__} can't be predicted: its shapes depend on values."
                ) from error
    return terms


def memory_predictions(cfg: Mapping[str, Any], model: nn.Module, inputs: Tensor, data_samples: list[SegDataSample]) -> None:
    """What validation does, with logits of the images' size, which the network's own outputs aren't."""
    model(inputs, data_samples, mode="predict")


def crop_options(cfg: Mapping[str, Any], side: int) -> dict[str, Any]:
    """``key: value`` options that make the training images of both loaders squares of ``side`` pixels.

    Validation images keep their size. Empty where the images can't be made smaller: they aren't square, or no transform
    fixes their size.
    """
    options: dict[str, Any] = {}
    for loader in ("train_dataloader", "arch_dataloader"):
        _, height, width = image_size(cfg, loader)
        place, dataset = next(datasets_by_key(loader, cfg[loader]))
        found = [key for key, size in _sizes(place, dataset) if size == (height, width) and key.endswith("crop_size")]
        if height != width or not found:
            return {}
        options.update({key: (side, side) for key in found})
    if (cfg["model"].get("data_preprocessor") or {}).get("size") is not None:
        options["model.data_preprocessor.size"] = (side, side)
    return options


def _sizes(place: str, dataset: Mapping[str, Any]) -> Iterator[tuple[str, tuple[int, int]]]:
    """(key, (height, width)) of the transforms that fix the size of images."""
    for i, transform in enumerate(dataset.get("pipeline", ())):
        key = f"{place}.pipeline.{i}"
        if transform.get("crop_size") is not None:
            yield f"{key}.crop_size", sides(transform["crop_size"])
        elif _name(transform) == "Resize" and transform.get("scale") is not None:
            height, width = reversed(sides(transform["scale"]))
            yield f"{key}.scale", (height, width)


def _name(group: Mapping[str, Any]) -> str:
    return str(group.get("type", "")).rpartition(".")[2]
