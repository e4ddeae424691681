"""From a classification config to one that can be built: data folders, classes, splits.

A config names no classes, no class count and no split files; they are read from the data here, so that a
config works for any folder by ``--cfg-options data_root=X`` alone.
"""

import copy
import hashlib
import inspect
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import mmengine.dist
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import print_log

from search.engine.errors import whole_number
from search.registry import DATASETS, MODELS, TASKS
from tasks.classification import memory
from tasks.classification import splits as split_files

LOADERS = ("train_dataloader", "arch_dataloader", "val_dataloader", "test_dataloader")
# which loader reads which split, in a search and in a retraining
SEARCH = {"train_dataloader": "weights", "arch_dataloader": "architecture", "val_dataloader": "validation"}
RETRAIN = {"train_dataloader": "train", "val_dataloader": "validation"}
# of a dataset's arguments, those that don't change which images there are
_HOW_READ = ("pipeline", "split", "split_sha256", "cache", "cache_mib", "size")
_SYNC = ("SyncBN", "MMSyncBN", "SyncBatchNorm")


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
        _apply_data_root(cfg)
        source = None
        for name in LOADERS:
            for dataset in datasets_of(cfg.get(name)):
                listed = _listing(dataset, source.classes if source else None)
                if source is None:
                    source = listed
                elif listed.classes != source.classes:
                    raise ValueError(f"the classes of {name} ({dataset['type']}) differ from the training data's")
        if source is None:
            raise ValueError(f"the config has no dataset in any of {', '.join(LOADERS)}")
        for name in LOADERS:
            for dataset in datasets_of(cfg.get(name)):
                if "classes" in _arguments(DATASETS, dataset):
                    dataset["classes"] = list(source.classes)
        _write_num_classes(cfg.get("model"), len(source.classes))
        _lower_topk(cfg, len(source.classes))
        if cfg.get("train_dataloader") is not None:
            _apply_splits(cfg, source, Path(work_dir) / "splits")
        if get_device() == "cpu":
            _sync_bn_to_bn(cfg.get("model"))
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


def datasets_of(loader: Mapping | None) -> Iterator[dict]:
    """The dataset configs of a data loader's config, those inside wrappers ('dataset', 'datasets') instead of
    these."""

    def leaves(dataset: Any) -> Iterator[dict]:
        inner = [dataset["dataset"]] if "dataset" in dataset else list(dataset.get("datasets", ()))
        if not inner:
            yield dataset
        for one in inner:
            yield from leaves(one)

    if loader is not None:
        yield from leaves(loader["dataset"])


def _say(message: str) -> None:
    print_log(message, logger="current", level=logging.WARNING)


def _arguments(registry: Any, cfg: Mapping) -> Mapping[str, inspect.Parameter]:
    built = registry.get(cfg["type"]) if isinstance(cfg["type"], str) else cfg["type"]
    return {} if built is None else inspect.signature(built).parameters


def _identity(dataset: Mapping) -> tuple[Any, Any]:
    """Which images a dataset reads: its type and its folder, which may be its class's default."""
    folder = _arguments(DATASETS, dataset).get("folder")
    return dataset["type"], dataset.get("folder", None if folder is None else folder.default)


def _without_cache(dataset: Mapping) -> dict:
    return {"cache": False} if "cache" in dataset else {}


def _apply_data_root(cfg: Config) -> None:
    taken = False
    for name in LOADERS:
        for dataset in datasets_of(cfg.get(name)):
            if cfg.get("data_root") is not None and "data_root" in _arguments(DATASETS, dataset):
                dataset["data_root"] = cfg["data_root"]
                taken = True
    if cfg.get("data_root") is not None and not taken:
        raise ValueError(f"data_root={cfg['data_root']!r} changes nothing: none of the config's datasets reads a folder")


def _listing(dataset: Mapping, classes: tuple[str, ...] | None) -> Any:
    """The dataset built without reading images: names, labels and classes of all its images."""
    arguments = {key: value for key, value in dataset.items() if key not in _HOW_READ}
    accepted = _arguments(DATASETS, dataset)
    if "classes" in accepted and classes is not None:
        arguments["classes"] = list(classes)
    return DATASETS.build(arguments)


def _write_num_classes(model: Any, number: int) -> None:
    """Set num_classes wherever a model's config has it, or its class requires it."""
    if isinstance(model, Mapping):
        if "type" in model:
            asked = _arguments(MODELS, model).get("num_classes")
            if "num_classes" in model or (asked is not None and asked.default is inspect.Parameter.empty):
                model["num_classes"] = number
        for value in model.values():
            _write_num_classes(value, number)
    elif isinstance(model, list | tuple):
        for value in model:
            _write_num_classes(value, number)


def _lower_topk(cfg: Config, number: int) -> None:
    for name in ("val_evaluator", "test_evaluator"):
        evaluators = cfg.get(name) or []
        for evaluator in [evaluators] if isinstance(evaluators, Mapping) else evaluators:
            topk = evaluator.get("topk") or (1, 5) if str(evaluator.get("type")).endswith("TopK") else (1,)
            if max(topk) > number:
                evaluator["topk"] = kept = [k for k in topk if k <= number]
                _say(f"{name}: only topk={kept} is reported, for there are {number} classes")


def _apply_splits(cfg: Config, source: Any, folder: Path) -> None:
    wanted = dict(cfg.get("splits") or {})
    roles = SEARCH if cfg.get("arch_dataloader") is not None else RETRAIN
    seed, per_class = wanted.pop("seed", 0), wanted.pop("per_class", None)
    if set(wanted) - set(roles.values()) or not wanted:
        raise ValueError(
            f"splits={wanted} must give the shares {', '.join(roles.values())} "
            f"of the training images, for instance {_example(roles)}"
        )
    for name in roles:
        for dataset in datasets_of(cfg.get(name)):
            first = next(datasets_of(cfg["train_dataloader"]))
            if _identity(dataset) != _identity(first):
                raise ValueError(f"{name} must read the training images, of which it gets a split, but reads {dataset}")
    for split, share in wanted.items():
        if not isinstance(share, int | float) or isinstance(share, bool):
            raise ValueError(f"splits.{split}={share!r} must be a number from 0 to 1")
    whole_number("splits.seed", seed, least=0)
    if per_class is not None:
        whole_number("splits.per_class", per_class)
    fractions = {split: float(wanted.get(split, 0)) for split in roles.values()}
    needed = [split for split in fractions if split != "validation" and fractions[split] == 0]
    if needed:
        raise ValueError(f"splits.{needed[0]} is 0, but this share of the training images is needed")
    settings = {
        "data": next(datasets_of(cfg["train_dataloader"]))["type"],
        "classes": hashlib.sha256("\n".join(source.classes).encode("utf-8", "surrogateescape")).hexdigest(),
        "fractions": fractions,
        "seed": seed,
        "per_class": per_class,
    }
    hashes = split_files.load(folder, settings)
    if hashes is None:
        parts = split_files.stratified(source.labels, fractions, seed, per_class)
        lists = {split: [source.names[i] for i in part] for split, part in parts.items() if part}
        hashes = split_files.save(folder, lists, settings)
    for name, split in roles.items():
        _give_split(cfg, name, split, folder, hashes)


def _give_split(cfg: Config, loader: str, split: str, folder: Path, hashes: Mapping[str, str]) -> None:
    if cfg.get(loader) is None:
        return
    if split not in hashes and cfg.get("arch_dataloader") is not None:
        _say("splits.validation is 0: the search is scored on the images that its logits are trained on")
        split = "architecture"
    elif split not in hashes:
        _say("splits.validation is 0: all training images are trained on, none validate")
        cfg["val_dataloader"] = cfg["val_cfg"] = cfg["val_evaluator"] = None
        return
    path = folder / f"{split}.txt"
    for dataset in datasets_of(cfg[loader]):
        dataset["split"], dataset["split_sha256"] = str(path), hashes[split]
    share, size = len(split_files.read(path)) // mmengine.dist.get_world_size(), cfg[loader]["batch_size"]
    whole_number(f"{loader}.batch_size", size)
    if loader != "val_dataloader" and size > share >= 1:
        _say(f"{loader}: batch_size={size} is lowered to {share}, the size of its split")
        cfg[loader]["batch_size"] = share


def _example(roles: Mapping[str, str]) -> str:
    if roles is SEARCH:
        return "dict(weights=0.45, architecture=0.45, validation=0.1)"
    return "dict(train=0.9, validation=0.1)"


def _sync_bn_to_bn(model: Any) -> None:
    """SyncBatchNorm has no CPU implementation."""
    if isinstance(model, Mapping):
        if model.get("type") in _SYNC:
            _say(f"{model['type']} has no CPU implementation; plain BN is used instead")
            model["type"] = "BN"
        for value in model.values():
            _sync_bn_to_bn(value)
    elif isinstance(model, list | tuple):
        for value in model:
            _sync_bn_to_bn(value)
