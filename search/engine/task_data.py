"""What task adapters share: the data sets of a config, their folder, the number of classes, their splits."""

import hashlib
import inspect
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import mmengine.dist
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import Registry

from search.registry import DATASETS, MODELS

from . import splits as split_files
from .errors import UserError, whole_number
from .keywords import keywords

LOADERS = ("train_dataloader", "arch_dataloader", "val_dataloader", "test_dataloader")
# which loader reads which split, in a search and in a retraining
SEARCH = {"train_dataloader": "weights", "arch_dataloader": "architecture", "val_dataloader": "validation"}
RETRAIN = {"train_dataloader": "train", "val_dataloader": "validation"}
# keys of a config that name files and folders below its data_root
FILES = ("train_ann", "val_ann", "train_img", "val_img")
_SYNC = ("SyncBN", "MMSyncBN", "SyncBatchNorm")
# what a task knows of the files of a data set
Listing = TypeVar("Listing")


def say(message: str) -> None:
    """Log what is changed beyond what a config asked."""
    print_log(message, logger="current", level=logging.WARNING)


def found(registry: Registry, cfg: Mapping[str, Any]) -> Any:
    """The class that a config's ``type`` names, in the scope that is the default now; None where there is none."""
    if not isinstance(cfg["type"], str):
        return cfg["type"]
    if "." in cfg["type"]:
        return registry.get(cfg["type"])
    with registry.switch_scope_and_registry(None) as scoped:
        return scoped.get(cfg["type"])


def takes(registry: Registry, cfg: Mapping[str, Any], argument: str) -> bool:
    """Whether the class that a config names says that it takes an argument."""
    built = found(registry, cfg)
    return built is not None and argument in (keywords(built) or ())


def datasets_by_key(key: str, group: Mapping) -> Iterator[tuple[str, dict]]:
    """(key, config) of the data sets in a loader's config, or a data set's; those inside wrappers instead of these."""
    if "dataset" in group:
        yield from datasets_by_key(f"{key}.dataset", group["dataset"])
    elif group.get("datasets"):
        for i, one in enumerate(group["datasets"]):
            yield from datasets_by_key(f"{key}.datasets.{i}", one)
    else:
        yield key, group


def datasets_of(loader: Mapping | None) -> Iterator[dict]:
    """The dataset configs of a data loader's config, those inside wrappers instead of these."""
    if loader is not None:
        yield from (dataset for _, dataset in datasets_by_key("", loader))


def every_dataset(cfg: Config) -> Iterator[tuple[str, dict]]:
    """(loader, dataset's config) of all loaders that the config has."""
    for name in LOADERS:
        for dataset in datasets_of(cfg.get(name)):
            yield name, dataset


def listings(cfg: Config, identity: Callable[[Mapping], object], listing: Callable[[dict, str], Listing]) -> dict[str, Listing]:
    """``listing(dataset, loader)`` of each loader's first data set; every data set is listed, those of one identity once."""
    seen: dict[object, Listing] = {}
    found: dict[str, Listing] = {}
    for name, dataset in every_dataset(cfg):
        key = identity(dataset)
        if key not in seen:
            seen[key] = listing(dataset, name)
        found.setdefault(name, seen[key])
    return found


def class_difference(a: Sequence[str], b: Sequence[str]) -> str:
    """How two unequal lists of class names differ, as the end of a sentence."""
    extra = sorted(set(a) ^ set(b))
    return f"only one of them has {extra[0]!r}" if extra else "their order"


def apply_data_root(cfg: Config, read: Sequence[str] = ()) -> None:
    """Write the config's ``data_root`` into every dataset that takes one.

    ``read``: which of `FILES` the task reads. ValueError where one is given that it doesn't, and where no dataset takes a
    ``data_root``.
    """
    for key in FILES:
        if cfg.get(key) is not None and key not in read:
            raise ValueError(f"{key}={cfg[key]!r} changes nothing: the data of task {cfg.get('task')!r} have no such file")
    if cfg.get("data_root") is None:
        return
    taking = [dataset for _, dataset in every_dataset(cfg) if takes(DATASETS, dataset, "data_root")]
    if not taking:
        raise ValueError(f"data_root={cfg['data_root']!r} changes nothing: none of the config's datasets reads a folder")
    for dataset in taking:
        dataset["data_root"] = cfg["data_root"]


def write_num_classes(model: Any, number: int) -> None:
    """Set num_classes wherever a model's config has it, or its class requires it."""
    if isinstance(model, Mapping):
        if "type" in model and ("num_classes" in model or _requires(model, "num_classes")):
            model["num_classes"] = number
        for value in model.values():
            write_num_classes(value, number)
    elif isinstance(model, list | tuple):
        for value in model:
            write_num_classes(value, number)


def _requires(cfg: Mapping, argument: str) -> bool:
    built = found(MODELS, cfg)
    asked = None if built is None else inspect.signature(built).parameters.get(argument)
    return asked is not None and asked.default is inspect.Parameter.empty


def sync_bn_to_bn(model: Any) -> None:
    """Plain batch norm in place of SyncBatchNorm, which has no CPU implementation."""
    if isinstance(model, Mapping):
        if model.get("type") in _SYNC:
            say(f"{model['type']} has no CPU implementation; plain BN is used instead")
            model["type"] = "BN"
        for value in model.values():
            sync_bn_to_bn(value)
    elif isinstance(model, list | tuple):
        for value in model:
            sync_bn_to_bn(value)


def split_images(
    cfg: Config,
    folder: Path,
    names: Sequence[str],
    classes: Sequence[str],
    identity: Callable[[Mapping], object],
    give: Callable[[dict, str, str], None],
) -> None:
    """`apply_splits` for training images that have no class of their own: all count as one; ``splits.images`` limits them.

    Raises UserError for fewer images than splits.
    """
    parts = SEARCH if cfg.get("arch_dataloader") is not None else RETRAIN
    shares = cfg.get("splits") or {}
    needed = sum(1 for split in parts.values() if shares.get(split))
    limit = shares.get("images")
    available = min(len(names), limit) if isinstance(limit, int) and limit > 0 else len(names)
    if available < needed:
        raise UserError(
            f"the {available} training images are too few for the {needed} splits {', '.join(parts.values())}: add images, or "
            "set splits.validation=0"
        )
    about = {
        "data": next(datasets_of(cfg["train_dataloader"]))["type"],
        "classes": hashlib.sha256("\n".join(classes).encode("utf-8", "surrogateescape")).hexdigest(),
    }
    apply_splits(cfg, folder, names, [0] * len(names), about, "images", identity, give)


def apply_splits(
    cfg: Config,
    folder: Path,
    names: Sequence[str],
    labels: Sequence[int],
    about: Mapping[str, object],
    limit: str,
    identity: Callable[[Mapping], object],
    give: Callable[[dict, str, str], None],
) -> None:
    """Make the splits of the training images that the config asks for, or read them back, and give every loader its own.

    ``names``, ``labels``: of the training images, of every class of which a split gets the same share; ``about``: what they
    were listed from, which a later run in the folder must agree with; ``limit``: the key of ``cfg.splits`` that limits the
    images of each label; ``identity`` of a dataset: which images it reads; ``give(dataset, path, sha256)`` writes the list
    that a dataset shall read into its config.

    A batch size above a split's size is lowered, which is logged. Raises ValueError for shares and images that can't be
    divided, and for lists in ``folder`` that were changed or made otherwise.
    """
    wanted = dict(cfg.get("splits") or {})
    roles = SEARCH if cfg.get("arch_dataloader") is not None else RETRAIN
    seed, most = wanted.pop("seed", 0), wanted.pop(limit, None)
    if set(wanted) - set(roles.values()) or not wanted:
        raise ValueError(
            f"splits={wanted} must give the shares {', '.join(roles.values())} "
            f"of the training images, for instance {_example(roles)}"
        )
    first = next(datasets_of(cfg["train_dataloader"]))
    for name in roles:
        for dataset in datasets_of(cfg.get(name)):
            if identity(dataset) != identity(first):
                raise ValueError(f"{name} must read the training images, of which it gets a split, but reads {dataset}")
    for split, share in wanted.items():
        if not isinstance(share, int | float) or isinstance(share, bool):
            raise ValueError(f"splits.{split}={share!r} must be a number from 0 to 1")
    whole_number("splits.seed", seed, least=0)
    if most is not None:
        whole_number(f"splits.{limit}", most)
    fractions = {split: float(wanted.get(split, 0)) for split in roles.values()}
    needed = [split for split in fractions if split != "validation" and fractions[split] == 0]
    if needed:
        raise ValueError(f"splits.{needed[0]} is 0, but this share of the training images is needed")
    settings = {**about, "fractions": fractions, "seed": seed, limit: most}
    hashes = split_files.load(folder, settings)
    if hashes is None:
        parts = split_files.stratified(labels, fractions, seed, most)
        lists = {split: [names[i] for i in part] for split, part in parts.items() if part}
        hashes = split_files.save(folder, lists, settings)
    for name, split in roles.items():
        _give_split(cfg, name, split, folder, hashes, give)


def _give_split(cfg: Config, loader: str, split: str, folder: Path, hashes: Mapping[str, str], give: Callable) -> None:
    if cfg.get(loader) is None:
        return
    if split not in hashes and cfg.get("arch_dataloader") is not None:
        say("splits.validation is 0: the search is scored on the images that its logits are trained on")
        split = "architecture"
    elif split not in hashes:
        say("splits.validation is 0: all training images are trained on, none validate")
        cfg["val_dataloader"] = cfg["val_cfg"] = cfg["val_evaluator"] = None
        return
    path = folder / f"{split}.txt"
    for dataset in datasets_of(cfg[loader]):
        give(dataset, str(path), hashes[split])
    share, size = len(split_files.read(path)) // mmengine.dist.get_world_size(), cfg[loader]["batch_size"]
    whole_number(f"{loader}.batch_size", size)
    if loader != "val_dataloader" and size > share >= 1:
        say(f"{loader}: batch_size={size} is lowered to {share}, the size of its split")
        cfg[loader]["batch_size"] = share


def _example(roles: Mapping[str, str]) -> str:
    if roles is SEARCH:
        return "dict(weights=0.45, architecture=0.45, validation=0.1)"
    return "dict(train=0.9, validation=0.1)"
