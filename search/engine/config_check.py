"""Every key and type of a config against what will be built from it.

A place in a config (``model``, ``train_dataloader``, ``pipeline``) says which registry its ``type`` is looked
up in and which keys the builder takes before the class; the class's signature gives the rest. None is built.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from mmengine import registry as mm
from mmengine.registry import Registry
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.utils.data import DataLoader

from search import registry as ours
from search.engine.errors import UserError
from search.engine.keywords import keywords


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


@dataclass(frozen=True)
class Place:
    """What a key of a config holds.

    registry: where its ``type`` is looked up; None for a plain group of settings.
    default: the type when none is written. keys: keys that the builder takes (all of them for a plain group).
    named: the value maps free names to such values. typed: a value without a type is an error.
    """

    registry: Registry | None = None
    default: str | None = None
    keys: frozenset[str] = frozenset()
    named: bool = False
    typed: bool = True


_LOADER = frozenset(inspect.signature(DataLoader.__init__).parameters) - {"self"}
LOADER = Place(keys=_LOADER | _words("num_batch_per_epoch disable_subprocess_warning"))
METRIC = Place(ours.METRICS)
TOP: dict[str, Place] = {
    "model": Place(ours.MODELS),
    "data_preprocessor": Place(ours.MODELS),
    "strategy": Place(ours.STRATEGIES),
    "train_dataloader": LOADER,
    "arch_dataloader": LOADER,
    "val_dataloader": LOADER,
    "test_dataloader": LOADER,
    "optim_wrapper": Place(mm.OPTIM_WRAPPERS, "OptimWrapper", _words("constructor paramwise_cfg")),
    "arch_optimizer": Place(mm.OPTIMIZERS),
    "param_scheduler": Place(mm.PARAM_SCHEDULERS, keys=_words("convert_to_iter_based")),
    "train_cfg": Place(ours.LOOPS, "EpochBasedTrainLoop", _words("by_epoch")),
    "val_cfg": Place(ours.LOOPS, "ValLoop"),
    "test_cfg": Place(ours.LOOPS, "TestLoop"),
    "val_evaluator": METRIC,
    "test_evaluator": METRIC,
    "default_hooks": Place(ours.HOOKS, keys=_words("priority"), named=True),
    "custom_hooks": Place(ours.HOOKS, keys=_words("priority")),
    "visualizer": Place(mm.VISUALIZERS, "Visualizer"),
    "log_processor": Place(mm.LOG_PROCESSORS, "LogProcessor"),
    "model_wrapper_cfg": Place(mm.MODEL_WRAPPERS),
    "tta_pipeline": Place(ours.TRANSFORMS),
    "splits": Place(keys=_words("weights architecture train validation seed per_class images")),
    "budget": Place(keys=_words("macs params activations latency table input_size weight rate")),
    "executor": Place(keys=_words("type jobs threads retries retry_failed address gpus")),
    "score": Place(keys=_words("key rule")),
    "randomness": Place(keys=_words("seed diff_rank_seed deterministic")),
    "auto_scale_lr": Place(keys=_words("enable base_batch_size")),
    "env_cfg": Place(keys=_words("cudnn_benchmark mp_cfg dist_cfg resource_limit")),
    "custom_imports": Place(keys=_words("imports allow_failed_imports")),
}
# keys with one meaning wherever they stand
ANYWHERE: dict[str, Place] = {
    "dataset": Place(ours.DATASETS),
    "datasets": Place(ours.DATASETS),
    "pipeline": Place(ours.TRANSFORMS),
    "transforms": Place(ours.TRANSFORMS),
    "sampler": Place(ours.DATA_SAMPLERS),
    "batch_sampler": Place(ours.DATA_SAMPLERS),
    "collate_fn": Place(mm.FUNCTIONS),
    "worker_init_fn": Place(mm.FUNCTIONS),
    "optimizer": Place(mm.OPTIMIZERS),
    "metrics": METRIC,
    "vis_backends": Place(mm.VISBACKENDS),
    "init_cfg": Place(mm.WEIGHT_INITIALIZERS, keys=_words("override")),
    # mmcv's builder of norm layers reads requires_grad itself
    "norm_cfg": Place(ours.MODELS, keys=_words("requires_grad")),
}
# classes of mmengine that keep their **kwargs for a later call: what that call takes
LATER: dict[str, frozenset[str]] = {
    "CheckpointHook": _words("save_optimizer save_param_scheduler meta"),
    "EMAHook": _words("momentum gamma interval device update_buffers"),
}
# settings that go to a function as they are: torch's, or mmcv's suppression of boxes and its pooling of their features; a
# chain's blocks (backbones/blocks.py), which check their own
FREE = _words("loss_scale dist_cfg mp_cfg compile metainfo meta paramwise_cfg stages last nms roi_layer")

# arguments of torch's clipping functions; of the optimiser wrapper's also which of the two is called
CLIPPING = {
    "clip_grad": {"norm": clip_grad_norm_, "value": clip_grad_value_},
    "arch_clip_grad": {None: clip_grad_norm_},
}


def unknown(name: str, known: Iterable[str], what: str = "key") -> str:
    """``unknown key 'modle', the nearest known one is 'model'``."""
    nearest = get_close_matches(name, sorted(known), n=1, cutoff=0.0)
    return f"unknown {what} {name!r}" + (f", the nearest known one is {nearest[0]!r}" if nearest else "")


def check(cfg: Mapping[str, Any]) -> None:
    """Check every group of a config; raises UserError naming place, key and the nearest known one."""
    scope = cfg.get("default_scope")
    if "task" in cfg and ours.TASKS.get(str(cfg["task"])) is None:
        raise UserError(f"task: {unknown(str(cfg['task']), _known(ours.TASKS), 'task')}")
    for key, value in cfg.items():
        if key in TOP:
            _check_value(value, key, TOP[key], scope)


def _check_value(value: Any, where: str, place: Place, scope: str | None) -> None:
    """A group, or a list or a mapping of groups."""
    if isinstance(value, Mapping):
        if place.named:
            for name, item in value.items():
                _check_value(item, f"{where}.{name}", Place(place.registry, keys=place.keys), scope)
        elif place is METRIC and "metrics" in value:
            _check_group(value, where, Place(mm.EVALUATOR, "Evaluator"), scope)
        else:
            _check_group(value, where, place, scope)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for i, item in enumerate(value):
            if isinstance(item, Mapping | list | tuple):
                _check_value(item, f"{where}[{i}]", place, scope)


def _check_group(group: Mapping[str, Any], where: str, place: Place, scope: str | None) -> None:
    scope = group.get("_scope_", scope)
    known: set[str] | None = set(place.keys)
    name = group.get("type", place.default)
    if place.registry is not None and name is None and place.typed:
        raise UserError(f"{where} has no 'type': say which class of the registry {place.registry.name!r} to build")
    # the executor's type is a word, not a class
    if name is not None and "type" not in place.keys and (place.registry is not None or "type" in group):
        accepted = keywords(_find(name, place.registry, where, scope), LATER.get(name))
        known = None if accepted is None else accepted | place.keys | {"type", "_scope_"}
    elif name is None and not place.keys:
        # a class's own group of settings: only the class knows its keys
        known = None
    for key, value in group.items():
        if known is not None and key not in known:
            of = f" of {name if isinstance(name, str) else name.__name__}" if name else ""
            raise UserError(f"{where}: {unknown(key, known - {'_scope_'})}{of}")
        if key in CLIPPING:
            _check_clipping(value, f"{where}.{key}", CLIPPING[key])
        if key in FREE or key in CLIPPING:
            continue
        inner = ANYWHERE.get(key) or Place(place.registry, typed=False)
        _check_value(value, f"{where}.{key}", inner, scope)


def _check_clipping(value: Any, where: str, functions: Mapping[str | None, Callable[..., Any]]) -> None:
    if value is None:
        return
    if not isinstance(value, Mapping):
        raise UserError(f"{where}={value!r}: give None, or a group such as dict(max_norm=5)")
    choosable = None not in functions
    kind = value.get("type", "norm") if choosable else None
    if kind not in functions:
        raise UserError(f"{where}: {unknown(str(kind), [str(name) for name in functions], 'type')}")
    known = set(inspect.signature(functions[kind]).parameters) - {"parameters"} | ({"type"} if choosable else set())
    for key in value:
        if key not in known:
            raise UserError(f"{where}: {unknown(key, known)}")


def _find(name: Any, registry: Registry | None, where: str, scope: str | None) -> Any:
    """The class or function that a type names; a nested group may be of another kind than the one around."""
    if not isinstance(name, str):
        return name
    if registry is not None:
        found = _look_up(registry, name, scope)
        if found is not None:
            return found
    known = set() if registry is None else _known(registry)
    key = where.rpartition(".")[2].partition("[")[0]
    # a detector's sampler isn't a loader's
    nested = key not in {*TOP, *ANYWHERE} or (key == "sampler" and where.startswith("model."))
    if nested or registry is None:
        for other in [value for value in vars(mm).values() if isinstance(value, Registry)]:
            found = _look_up(other, name, scope)
            if found is not None:
                return found
    raise UserError(f"{where}: {unknown(name, known, 'type')}")


def _look_up(registry: Registry, name: str, scope: str | None) -> Any:
    if scope is None or "." in name or registry.parent is None:
        return registry.get(name)
    with registry.switch_scope_and_registry(scope) as scoped:
        return scoped.get(name)


def _known(registry: Registry) -> set[str]:
    """Every name that a config can write for this registry, ours with the scope in front."""
    registry.import_from_location()
    if registry.parent is None:
        return set(registry.module_dict)
    registry.parent.import_from_location()
    return {f"{registry.scope}.{name}" for name in registry.module_dict} | set(registry.parent.module_dict)
