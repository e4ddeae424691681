"""The one mmengine scope of this project: configs say ``type='search.CellNet'``.

mmengine imports this module by the scope's name, and each registry imports its ``locations`` at the first look-up, so a
config of mmdet, mmseg or our own needs no ``custom_imports`` for what is listed here.
"""

from mmengine import registry as mm

SCOPE = "search"
_CLASSIFICATION = "tasks.classification"


def _child(parent: mm.Registry, *locations: str) -> mm.Registry:
    return mm.Registry(parent.name, parent=parent, scope=SCOPE, locations=list(locations))


# models of mmdet and mmseg may be named too, and need operations that mmcv may lack
MODELS = _child(mm.MODELS, "backbones", _CLASSIFICATION, "tasks.mm_ops")
DATASETS = _child(mm.DATASETS, _CLASSIFICATION)
TRANSFORMS = _child(mm.TRANSFORMS, _CLASSIFICATION)
METRICS = _child(mm.METRICS, _CLASSIFICATION)
HOOKS = _child(mm.HOOKS, "search.engine")
LOOPS = _child(mm.LOOPS, "search.engine")
RUNNERS = _child(mm.RUNNERS, "search.engine")
DATA_SAMPLERS = _child(mm.DATA_SAMPLERS, "search.engine")


def locations() -> list[str]:
    """Every module that registers something of this project, sorted."""
    registries = [value for value in globals().values() if isinstance(value, mm.Registry)]
    return sorted({location for registry in registries for location in registry._locations})


# search strategies; mmengine's registry of the same word is about how a model is spread over devices
STRATEGIES = mm.Registry("search strategy", scope=SCOPE, locations=["search.engine"])
# task adapters: how a task's config becomes data sets, splits and an input size
TASKS = mm.Registry("task", scope=SCOPE, locations=[_CLASSIFICATION])
