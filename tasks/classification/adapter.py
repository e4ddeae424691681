"""From a classification config to one that can be built: data folders, classes, splits.

A config names no classes, no class count and no split files; they are read from the data here, so that a
config works for any folder by ``--cfg-options data_root=X`` alone.
"""

import copy
import hashlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.device import get_device

from search.engine.task_data import (
    LOADERS,
    apply_data_root,
    apply_splits,
    datasets_of,
    every_dataset,
    say,
    sync_bn_to_bn,
    write_num_classes,
)
from search.registry import DATASETS, TASKS
from tasks.classification import memory

# of a dataset's arguments, those that don't change which images there are
_HOW_READ = ("pipeline", "split", "split_sha256", "cache", "cache_mib", "size")


@TASKS.register_module(name="classification")
class Classification:
    """The classification task's adapter, found by ``TASKS`` under the config's ``task='classification'``."""

    def prepare(self, cfg: Config, work_dir: str | Path) -> Config:
        """A copy of the config, ready to be built.

        Applies ``data_root`` to every dataset; checks that all datasets have the same classes; writes them,
        and their number, into datasets and model; lowers a top-k above the number of classes and a batch size
        above a split's size; makes, or reads back and verifies, the splits in ``work_dir/splits``; without a
        GPU turns SyncBN into BN. Whatever is changed beyond what the config asked is logged. A
        config without ``train_dataloader`` (evaluation) needs its test data alone. Raises ValueError, in one
        sentence, for data or splits that can't be used.

        ``splits``: fractions of each class of the training images, 'weights', 'architecture' and 'validation'
        for a search, 'train' and 'validation' for a retraining; ``seed`` (default 0); ``per_class``: use at
        most this many images of each class. Without a validation share a search is scored on the
        architecture's images and a retraining isn't validated.
        """
        cfg = copy.deepcopy(cfg)
        apply_data_root(cfg)
        source = None
        for name, dataset in every_dataset(cfg):
            listed = _listing(dataset, source.classes if source else None)
            if source is None:
                source = listed
            elif listed.classes != source.classes:
                raise ValueError(f"the classes of {name} ({dataset['type']}) differ from the training data's")
        if source is None:
            raise ValueError(f"the config has no dataset in any of {', '.join(LOADERS)}")
        for _, dataset in every_dataset(cfg):
            if "classes" in _arguments(dataset):
                dataset["classes"] = list(source.classes)
        write_num_classes(cfg.get("model"), len(source.classes))
        _lower_topk(cfg, len(source.classes))
        if cfg.get("train_dataloader") is not None:
            about, folder = _about(cfg, source), Path(work_dir) / "splits"
            apply_splits(cfg, folder, source.names, source.labels, about, "per_class", _identity, _give)
        if get_device() == "cpu":
            sync_bn_to_bn(cfg.get("model"))
        return cfg

    def test_hooks(self, out: str | None, show_dir: str | None, tta: bool) -> list[dict]:
        """Hooks of a test run: predictions as JSON, images with their labels, mean over mirror images."""
        hooks = [dict(type="search.FlipAverageHook")] if tta else []
        if out is not None or show_dir is not None:
            hooks.append(dict(type="search.PredictionsHook", out=out, show_dir=show_dir))
        return hooks

    def input_size(self, cfg: Config) -> tuple[int, int, int]:
        """(C, H, W) of what the validation pipeline feeds the network; without one the training, else the test pipeline."""
        order = ("val_dataloader", *LOADERS)
        dataset = next(d for name in order for d in datasets_of(cfg.get(name)))
        built = DATASETS.build({**copy.deepcopy(dict(dataset)), **_without_cache(dataset)})
        return tuple(built[0]["inputs"].shape)

    # what the memory planner asks, of configs alone
    image_size = staticmethod(memory.image_size)
    memory_batch = staticmethod(memory.memory_batch)
    crop_options = staticmethod(memory.crop_options)


def _arguments(dataset: Mapping) -> Mapping[str, inspect.Parameter]:
    built = DATASETS.get(dataset["type"]) if isinstance(dataset["type"], str) else dataset["type"]
    return {} if built is None else inspect.signature(built).parameters


def _identity(dataset: Mapping) -> tuple[Any, Any]:
    """Which images a dataset reads: its type and its folder, which may be its class's default."""
    folder = _arguments(dataset).get("folder")
    return dataset["type"], dataset.get("folder", None if folder is None else folder.default)


def _without_cache(dataset: Mapping) -> dict:
    return {"cache": False} if "cache" in dataset else {}


def _listing(dataset: Mapping, classes: tuple[str, ...] | None) -> Any:
    """The dataset built without reading images: names, labels and classes of all its images."""
    arguments = {key: value for key, value in dataset.items() if key not in _HOW_READ}
    accepted = _arguments(dataset)
    if "classes" in accepted and classes is not None:
        arguments["classes"] = list(classes)
    return DATASETS.build(arguments)


def _lower_topk(cfg: Config, number: int) -> None:
    for name in ("val_evaluator", "test_evaluator"):
        evaluators = cfg.get(name) or []
        for evaluator in [evaluators] if isinstance(evaluators, Mapping) else evaluators:
            topk = evaluator.get("topk") or (1, 5) if str(evaluator.get("type")).endswith("TopK") else (1,)
            if max(topk) > number:
                evaluator["topk"] = kept = [k for k in topk if k <= number]
                say(f"{name}: only topk={kept} is reported, for there are {number} classes")


def _about(cfg: Config, source: Any) -> dict[str, str]:
    """What the splits are made from."""
    classes = hashlib.sha256("\n".join(source.classes).encode("utf-8", "surrogateescape")).hexdigest()
    return {"data": next(datasets_of(cfg["train_dataloader"]))["type"], "classes": classes}


def _give(dataset: dict, path: str, sha256: str) -> None:
    dataset["split"], dataset["split_sha256"] = path, sha256
