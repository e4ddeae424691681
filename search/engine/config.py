"""A config from file and command line, with every key known to somebody.

mmengine accepts unknown keys in silence, and it substitutes a config file's variables while it parses, so
that ``--cfg-options batch_size=8`` changes nothing where that is a variable. Here both are errors.
"""

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction

from search.engine.config_check import check, unknown
from search.engine.errors import UserError

# every key at the top of a config, with the part of the program that reads it
TOP_LEVEL: dict[str, str] = {
    # this project's
    "task": "the task adapter, for example 'classification'",
    "model": "what is searched or trained",
    "strategy": "the search strategy",
    "seed": "the one seed everything random follows from",
    "data_root": "the folder of images; the adapter applies it to every data set",
    "train_ann": "the training images' annotation file, below data_root",
    "val_ann": "the test images' annotation file",
    "train_img": "the training images' folder, below data_root",
    "val_img": "the test images' folder",
    "splits": "shares of the training images: weights, architecture and validation, or train and validation",
    "arch_dataloader": "images for the architecture's gradient",
    "arch_optimizer": "the optimiser of the architecture's logits",
    "score": "the metric that decides: key and rule",
    "budget": "what a found network may cost: macs, params, activations, latency",
    "executor": "where a sampling strategy's trials run (type), how many at a time (jobs), threads, retries",
    "compile": "torch.compile, true or its options",
    # mmengine's Runner's
    "work_dir": "where everything is written",
    "train_dataloader": "images for the weights",
    "val_dataloader": "validation images",
    "test_dataloader": "test images",
    "train_cfg": "the training loop",
    "val_cfg": "the validation loop",
    "test_cfg": "the test loop",
    "optim_wrapper": "optimiser of the weights, clipping, autocast",
    "param_scheduler": "learning rate schedules",
    "auto_scale_lr": "scales the learning rate with the batch size",
    "val_evaluator": "validation metrics",
    "test_evaluator": "test metrics",
    "tta_pipeline": "transforms of a test that averages over versions of an image, as mmdet and mmseg have it",
    "default_hooks": "mmengine's standard hooks by name",
    "custom_hooks": "further hooks, in a list",
    "data_preprocessor": "normalisation, where the model has none of its own",
    "load_from": "checkpoint to start from",
    "resume": "go on from the work directory's checkpoint",
    "launcher": "none, pytorch or slurm",
    "env_cfg": "processes and back end",
    "log_processor": "how losses are smoothed in the log",
    "log_level": "INFO, DEBUG, ...",
    "visualizer": "TensorBoard, scalars.json, ...",
    "default_scope": "scope of types written without one",
    "randomness": "mmengine's own seed and determinism",
    "experiment_name": "start of the run's name in mmengine's logs",
    "model_wrapper_cfg": "the distributed wrapper of retraining",
    "sync_bn": "kind of synchronised batch norm that a search on several GPUs converts to",
    "allow_different_threads": "resume with another number of threads",
    "find_unused_parameters": "retraining on several processes where a step leaves parameters out",
    "custom_imports": "modules to import before anything is built",
}


def load(path: str | Path, options: Sequence[str] = ()) -> Config:
    """Read a config file, merge ``key=value`` options into it and check every key and type.

    What is returned holds known keys only; the file's variables are dropped, so that a written copy reads
    back. Raises UserError, naming the key, its place and the nearest known one.
    """
    cfg = _read(Path(path))
    merge(cfg, options, Path(path))
    for name in [name for name in cfg if name not in TOP_LEVEL]:
        cfg.pop(name)
    check(cfg.to_dict())
    return cfg


def model_of(cfg: Config, path: str | Path) -> dict[str, Any]:
    """The config of a config file's model, as plain values. UserError where it has none."""
    if not isinstance(cfg.get("model"), Mapping):
        raise UserError(f"config {path} has no model, such as model=dict(type='search.ImageClassifier', ...)")
    return dict(cfg.model.to_dict())


def merge(cfg: Config, options: Sequence[str], path: Path) -> None:
    """Merge ``key=value`` options; a key that only was a variable of the config file is refused.

    Values are read as mmengine reads them (``a,b`` and ``[a,b]`` are lists), except that spaces in a single
    value are kept and a value in quotes is taken as it is.
    """
    values = dict(_option(option) for option in options)
    for key in values:
        first = key.split(".")[0]
        if first in TOP_LEVEL:
            continue
        if first in cfg:
            raise UserError(
                f"--cfg-options {key}: {first!r} is only a variable of the config file {path}, setting "
                "it here changes nothing; name the key it was written into, as in train_cfg.max_epochs"
            )
        raise UserError(f"--cfg-options {key}: {unknown(first, TOP_LEVEL)}")
    try:
        cfg.merge_from_dict(values)
    except (TypeError, KeyError, IndexError, AssertionError) as error:
        raise UserError(f"--cfg-options {' '.join(options)} does not fit {path}: {_sentence(error)}") from error


def _option(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise UserError(f"--cfg-options {text}: expected key=value, for example train_cfg.max_epochs=2")
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        return key, value[1:-1]
    if "," not in value and not value.startswith(("[", "(")):
        return key, DictAction._parse_int_float_bool(value)
    try:
        return key, DictAction._parse_iterable(value)
    except AssertionError as error:
        raise UserError(f"--cfg-options {text}: {error}") from error


def _read(path: Path) -> Config:
    if not path.is_file():
        raise UserError(f"config file {path} does not exist")
    try:
        cfg = Config.fromfile(path)
    except Exception as error:  # a config is a program of the user's: whatever it raises is the user's to see
        raise UserError(f"config file {path} can't be read: {_sentence(error)}") from error
    # mmengine formats a config whenever it writes it, for many seconds where it holds long paths
    object.__setattr__(cfg, "_format_python_code", False)
    _check_variables(cfg, path)
    return cfg


def _check_variables(cfg: Config, path: Path) -> None:
    """Refuse a top-level name that no builder reads and that no config file reads as a variable either."""
    files = list(dict.fromkeys(_chain(path)))
    texts = {file: file.read_text(encoding="utf-8") for file in files}
    from_base = {name for text in texts.values() for name in re.findall(r"_base_\.(\w+)", text)}
    reads, writes = {}, {}
    for file, text in texts.items():
        names = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Name)] if file.suffix == ".py" else []
        reads[file] = {n.id for n in names if isinstance(n.ctx, ast.Load)}
        writes[file] = {n.id for n in names if isinstance(n.ctx, ast.Store)}
    lazy = any("read_base" in text for text in texts.values())
    everywhere = set().union(from_base, *reads.values())
    for key in cfg:
        if key in TOP_LEVEL:
            continue
        if key not in everywhere:
            raise UserError(f"{path}: {unknown(key, TOP_LEVEL)}")
        for file in files:
            if key in writes[file] and not lazy and key not in reads[file] | from_base:
                raise UserError(
                    f"{file}: {key!r} is a variable of a base config and is not read in this file, setting "
                    "it here changes nothing; set the key that it was written into"
                )


def _chain(path: Path) -> Iterator[Path]:
    """The config file and its base files, in both of mmengine's styles."""
    yield path
    for base in Config._get_base_files(str(path)):
        found, _ = Config._get_cfg_path(base, str(path))
        if found is not None:
            yield from _chain(Path(found))
    if path.suffix == ".py":
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level and node.module:
                file = path.parents[node.level - 1].joinpath(*node.module.split(".")).with_suffix(".py")
                if file.is_file():
                    yield from _chain(file)


def _sentence(error: BaseException) -> str:
    """The error's text on one line, with its kind where the text alone says little."""
    text = " ".join(str(error.args[0] if isinstance(error, KeyError) and error.args else error).split())
    return text if len(text.split()) > 3 else f"{type(error).__name__}: {text}"
