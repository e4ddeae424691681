"""From a segmentation config to one that can be built: data folders, classes, label checks, splits.

A config names no class count and no split files, and class names only where neither the data set's class nor its labels
tell them; they are read from the data here, so that a config works for any folder by ``--cfg-options data_root=X`` alone.
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
    LOADERS,
    apply_data_root,
    class_difference,
    datasets_of,
    every_dataset,
    listings,
    say,
    split_images,
    sync_bn_to_bn,
    write_num_classes,
)
from search.registry import DATASETS, TASKS
from tasks.segmentation import layout, memory, model_config

# transforms that are replaced by ours, which check what they read
_CHECKED = {"LoadImageFromFile": "search.LoadImage", "LoadAnnotations": "search.LoadLabels"}
# transforms after which all images have one size
_EQUAL = ("Resize", "CenterCrop", "RandomCrop", "Pad")


@TASKS.register_module(name="segmentation")
class Segmentation:
    """The segmentation task's adapter, found by ``TASKS`` under the config's ``task='segmentation'``."""

    def prepare(self, cfg: Config, work_dir: str | Path) -> Config:
        """A copy of the config, ready to be built.

        Applies ``data_root`` to every dataset. Finds the classes: what a dataset's ``metainfo`` names, else its class
        (Cityscapes has 19), else as many as the label files have; writes names, palette and number into datasets, heads and
        losses. Looks at every file's header, so that a missing label, a size that differs or a colour image is told at
        once; has mmseg's loading transforms check the rest on reading. Writes the backbone's channels into heads. Makes, or
        reads back and verifies, the splits in ``work_dir/splits``; without a GPU turns SyncBN into BN. Whatever is changed
        beyond what the config asked is logged. A config without ``train_dataloader`` (evaluation) needs its test data alone.
        Raises ValueError, in one sentence, for data, heads or splits that can't be used.

        ``splits``: fractions of the training images, 'weights', 'architecture' and 'validation' for a search, 'train' and
        'validation' for a retraining; ``seed`` (default 0); ``images``: use at most this many. Images are drawn one by one,
        as in Auto-DeepLab (arXiv 1901.02985, section 4.1), not by city. Without a validation share a search is scored on
        the architecture's images and a retraining isn't validated.
        """
        cfg = copy.deepcopy(cfg)
        if not any(True for _ in every_dataset(cfg)):
            raise UserError(f"the config has no dataset in any of {', '.join(LOADERS)}")
        apply_data_root(cfg)
        ignored = model_config.ignored_label(cfg, [dataset for _, dataset in every_dataset(cfg)])
        classes = _write_classes(cfg, ignored)
        listed = listings(cfg, _identity, layout.listing)
        _check_on_reading(cfg, len(classes), ignored)
        write_num_classes(cfg.get("model"), len(classes))
        model_config.write_channels(cfg.get("model"))
        model_config.check_losses(cfg.get("model"), len(classes))
        model_config.check_crop(cfg)
        if cfg.get("train_dataloader") is not None:
            names = listed["train_dataloader"].names
            split_images(cfg, Path(work_dir) / "splits", names, classes, _identity, _give)
        padded = (cfg.get("model") or {}).get("data_preprocessor") or {}
        pads = padded.get("size") is not None or padded.get("size_divisor") is not None
        # mmseg pads to these while it trains alone
        for loader in ("val_dataloader", "test_dataloader") if pads else LOADERS:
            _require_equal_sizes(cfg, loader, listed)
        if get_device() == "cpu":
            sync_bn_to_bn(cfg.get("model"))
        return cfg

    def test_hooks(self, out: str | None, show_dir: str | None, tta: bool) -> list[dict]:
        """Hooks of a test run: label maps as PNG files, images painted with them, multi-scale and flip averaging."""
        hooks = [dict(type="search.AugmentedTestHook")] if tta else []
        if out is not None:
            hooks.append(dict(type="search.LabelMapsHook", out=out))
        if show_dir is not None:
            hooks.append(dict(type="search.PaintedImagesHook", show_dir=show_dir))
        return hooks

    def input_size(self, cfg: Config) -> tuple[int, int, int]:
        """(C, H, W) of what the validation pipeline feeds the network; without one the training, else the test pipeline."""
        order = ("val_dataloader", *LOADERS)
        dataset = next(d for name in order for d in datasets_of(cfg.get(name)))
        return tuple(DATASETS.build(copy.deepcopy(dict(dataset)))[0]["inputs"].shape)

    derived_model = staticmethod(model_config.derived_model)
    # what the memory planner asks
    without_images = staticmethod(memory.without_images)
    image_size = staticmethod(memory.image_size)
    memory_batch = staticmethod(memory.memory_batch)
    memory_loss = staticmethod(memory.memory_loss)
    memory_predictions = staticmethod(memory.memory_predictions)
    crop_options = staticmethod(memory.crop_options)


def _identity(dataset: Mapping) -> tuple[Any, ...]:
    """Which images a dataset reads."""
    prefix = {key: str(value) for key, value in (dataset.get("data_prefix") or {}).items()}
    keys = ("type", "data_root", "ann_file", "img_suffix", "seg_map_suffix", "indices", "scenes")
    return (*(str(dataset.get(key)) for key in keys), tuple(sorted(prefix.items())))


def _write_classes(cfg: Config, ignored: int) -> list[str]:
    """Find the classes and write their names and colours into every dataset. UserError where datasets differ in them."""
    said: dict[str, list[str]] = {}
    for name, dataset in every_dataset(cfg):
        found = layout.empty_dataset(dataset, name).metainfo.get("classes")
        if found is not None:
            said.setdefault(name, [str(one) for one in found])
    first = next(iter(said), None)
    for name, classes in said.items():
        if classes != said[first]:
            raise UserError(f"the classes of {name} differ from those of {first}: {class_difference(classes, said[first])}")
    if first is None:
        name, dataset = next(every_dataset(cfg))
        folder, suffix = layout.label_folder(dataset, name)
        # what mmseg makes none of: labels count from 1
        first_label = int(layout.empty_dataset(dataset, name).reduce_zero_label)
        last = layout.classes_found(folder, suffix, ignored) - 1
        classes = [str(label) for label in range(first_label, last + 1)]
        say(f"nothing names the classes: the labels below {folder} are {first_label} to {last}, so there are {len(classes)}")
    else:
        classes = said[first]
    if len(classes) < 2:
        raise UserError(f"the classes are {classes}: a segmentation needs at least 2")
    for name, dataset in every_dataset(cfg):
        own = layout.empty_dataset(dataset, name).metainfo
        if own.get("classes") is None:
            named = {**dataset, "metainfo": {**(dataset.get("metainfo") or {}), "classes": classes}}
            own = layout.empty_dataset(named, name).metainfo
        palette = [[int(value) for value in colour] for colour in own["palette"]]
        dataset["metainfo"] = {**(dataset.get("metainfo") or {}), "classes": classes, "palette": palette}
    return classes


def _check_on_reading(cfg: Config, classes: int, ignored: int) -> None:
    """Put our loading transforms, which check what they read, in place of mmseg's."""

    def replaced(transforms: Any) -> Any:
        if isinstance(transforms, list | tuple):
            return [replaced(one) for one in transforms]
        if not isinstance(transforms, Mapping):
            return transforms
        result = {key: replaced(value) if key == "transforms" else value for key, value in transforms.items()}
        name = str(result.get("type", "")).rpartition(".")[2]
        if name in _CHECKED and result["type"] in (name, f"mmseg.{name}", f"mmcv.{name}", f"mmengine.{name}"):
            result["type"] = _CHECKED[name]
            if name == "LoadAnnotations":
                result.update(num_classes=classes, ignore_index=ignored)
        return result

    for name, dataset in every_dataset(cfg):
        # a run that trains doesn't read the test data, and mmseg's inferencer looks for mmseg's transforms in what it leaves
        if name != "test_dataloader" or cfg.get("train_dataloader") is None:
            dataset["pipeline"] = replaced(dataset.get("pipeline") or [])
    if cfg.get("tta_pipeline") is not None:
        cfg["tta_pipeline"] = replaced(cfg["tta_pipeline"])


def _give(dataset: dict, path: str, sha256: str) -> None:
    split_files.read(Path(path), sha256)
    # mmseg joins a path that isn't absolute with data_root
    dataset["ann_file"] = str(Path(path).resolve())


def _require_equal_sizes(cfg: Config, loader: str, listed: Mapping[str, layout.Listing]) -> None:
    if cfg.get(loader) is None or cfg[loader].get("batch_size") == 1:
        return
    first = next(datasets_of(cfg[loader]))
    transforms = [t for t in first["pipeline"] if str(t.get("type")).rpartition(".")[2] in _EQUAL]
    if any(not t.get("keep_ratio", False) for t in transforms):
        return
    files = listed[loader]
    names = set(split_files.read(Path(first["ann_file"]))) if loader != "test_dataloader" and first.get("ann_file") else None
    pairs = zip(files.names, files.sizes, strict=False)
    layout.require_equal_sizes(((n, s) for n, s in pairs if names is None or n in names), loader)
