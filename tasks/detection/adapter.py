"""From a detection config to one that can be built: data folders, classes, checked boxes, splits, channels.

A config names no class, no class count and no split files; they are read from the annotation files here, so that a config
works for any folder in COCO's layout by ``--cfg-options data_root=X`` alone.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.device import get_device

from search.engine import splits as split_files
from search.engine.errors import UserError
from search.engine.task_data import (
    FILES,
    LOADERS,
    RETRAIN,
    SEARCH,
    apply_data_root,
    class_difference,
    datasets_of,
    every_dataset,
    listings,
    split_images,
    sync_bn_to_bn,
)
from search.registry import TASKS
from tasks.detection import layout, memory, model_config, pipelines
from tasks.detection.datasets import named

# which keys of the config say where a loader's images are
_TRAIN, _VAL = ("train_ann", "train_img"), ("val_ann", "val_img")
_NAMES = {loader: _TRAIN for loader in LOADERS} | {"test_dataloader": _VAL}


@TASKS.register_module(name="detection")
class Detection:
    """The detection task's adapter, found by ``TASKS`` under the config's ``task='detection'``."""

    def prepare(self, cfg: Config, work_dir: str | Path) -> Config:
        """A copy of the config, ready to be built.

        Applies ``data_root`` to every dataset, ``train_ann`` and ``train_img`` (annotation file and image folder below it) to
        those that are trained or validated on, ``val_ann`` and ``val_img`` to the test's. Looks at every annotation file and at
        every image's header. Finds the classes: what a dataset's ``metainfo`` names, else the annotation file's categories;
        writes names, colours and number into datasets and heads. Writes the backbone's channels into the neck. Makes, or reads
        back and verifies, the splits in ``work_dir/splits``; has the metrics score the images that they are given; without a
        GPU turns SyncBN into BN. Whatever is changed beyond what the config asked is logged. A config without
        ``train_dataloader`` (evaluation) needs its test data alone. Raises ValueError, in one sentence, for data, heads or
        splits that can't be used.

        ``splits``: fractions of the training images, 'weights', 'architecture' and 'validation' for a search, 'train' and
        'validation' for a retraining; ``seed`` (default 0); ``images``: use at most this many. Without a validation share a
        search is scored on the architecture's images and a retraining isn't validated.
        """
        cfg = copy.deepcopy(cfg)
        if not any(True for _ in every_dataset(cfg)):
            raise UserError(f"the config has no dataset in any of {', '.join(LOADERS)}")
        for loader, dataset in every_dataset(cfg):
            model_config.checked_dataset(loader, dataset)
        _apply_names(cfg)
        listed = listings(cfg, _identity, layout.listing)
        classes = _write_classes(cfg, listed)
        model_config.write_classes(cfg.get("model"), len(classes))
        model_config.write_channels(cfg.get("model"))
        for loader, evaluator in (("val_dataloader", "val_evaluator"), ("test_dataloader", "test_evaluator")):
            if loader in listed:
                model_config.score_by(cfg, evaluator, listed[loader].ann_file)
        if cfg.get("train_dataloader") is not None:
            _split(cfg, listed["train_dataloader"], classes, Path(work_dir) / "splits")
        if get_device() == "cpu":
            sync_bn_to_bn(cfg.get("model"))
        return cfg

    def test_hooks(self, out: str | None, show_dir: str | None, tta: bool) -> list[dict]:
        """Hooks of a test run: boxes as COCO's results in JSON, images with boxes painted, multi-scale and flip averaging."""
        hooks = [dict(type="search.AugmentedDetectionHook")] if tta else []
        if out is not None:
            hooks.append(dict(type="search.DetectionsHook", out=out))
        if show_dir is not None:
            hooks.append(dict(type="search.PaintedBoxesHook", show_dir=show_dir))
        return hooks

    # (C, H, W) that costs are counted at
    input_size = staticmethod(pipelines.tested_size)
    # what the memory planner asks
    without_images = staticmethod(memory.without_images)
    image_size = staticmethod(pipelines.image_size)
    memory_batch = staticmethod(memory.memory_batch)
    memory_loss = staticmethod(memory.memory_loss)
    memory_predictions = staticmethod(memory.memory_predictions)
    crop_options = staticmethod(pipelines.crop_options)


def _apply_names(cfg: Config) -> None:
    """Write ``data_root`` and the names of annotation files and image folders into the datasets."""
    apply_data_root(cfg, FILES)
    for loader, dataset in every_dataset(cfg):
        ann, img = (cfg.get(key) for key in _NAMES[loader])
        if ann is not None:
            dataset["ann_file"] = ann
        if img is not None:
            dataset["data_prefix"] = {**(dataset.get("data_prefix") or {}), "img": img}


def _identity(dataset: Mapping) -> tuple[Any, ...]:
    """Which images a dataset reads."""
    prefix = {key: str(value) for key, value in (dataset.get("data_prefix") or {}).items()}
    keys = ("type", "data_root", "ann_file", "indices", "scenes")
    return (*(str(dataset.get(key)) for key in keys), tuple(sorted(prefix.items())))


def _write_classes(cfg: Config, listed: Mapping[str, layout.Listing]) -> list[str]:
    """Find the classes and write their names and colours into every dataset. UserError where datasets differ in them."""
    said: dict[str, list[str]] = {}
    for name, dataset in every_dataset(cfg):
        given = (dataset.get("metainfo") or {}).get("classes")
        said.setdefault(name, list(listed[name].classes) if given is None else [str(one) for one in given])
    (first, classes), *others = said.items()
    for name, own in others:
        if own != classes:
            raise UserError(
                f"the classes of {name} ({listed[name].ann_file}) differ from those of {first} ({listed[first].ann_file}): "
                f"{class_difference(own, classes)}"
            )
    if not classes:
        raise UserError(f"{first}: metainfo.classes is empty: leave it out, or name a category of {listed[first].ann_file}")
    for name, dataset in every_dataset(cfg):
        for one in classes:
            if one not in listed[name].classes:
                raise UserError(f"{name}: {listed[name].ann_file} has no category {one!r}, which metainfo.classes names")
        dataset["metainfo"] = {**(dataset.get("metainfo") or {}), **named(classes)}
    return classes


def _split(cfg: Config, source: layout.Listing, classes: list[str], folder: Path) -> None:
    split_images(cfg, folder, source.names, classes, _identity, _give)
    for loader in SEARCH if cfg.get("arch_dataloader") is not None else RETRAIN:
        for dataset in datasets_of(cfg.get(loader)):
            if not any(source.boxes.get(name) for name in split_files.read(Path(dataset["split"]))):
                raise UserError(
                    f"no image of the split {dataset['split']} has a box: give it a larger share, or set another splits.seed"
                )


def _give(dataset: dict, path: str, sha256: str) -> None:
    dataset["split"], dataset["split_sha256"] = path, sha256
