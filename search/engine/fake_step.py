"""A search's step on fake tensors: what it holds and keeps, without memory, images or a GPU.

The step is the loop's own code (`BilevelLoop`), run on a supernet whose tensors have shapes and no values, so second order
strategies, gradient clipping, accumulation, autocast and recomputation count as they run. Fake tensors are the CPU's,
because backward on fake CUDA tensors fails where there is no GPU; sizes are the same but for workspaces, and autocast's
lists of operations differ a little. Not counted: what `torch.compile` saves, and the flat copy of the gradients that
several processes average, which is smaller than what backward has freed by then.
"""

import copy
from collections.abc import Mapping
from operator import itemgetter
from types import SimpleNamespace
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, OPTIMIZERS
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DynamicOutputShapeException

from search.cost import bytes_kept
from search.cost.live_bytes import LiveBytes, followed
from search.cost.planner import Need
from search.registry import STRATEGIES
from search.space import Space
from search.supernet import ArchParams, Relax, building, record

from .bilevel_loop import BilevelLoop
from .data import kept_random_states
from .errors import UserError, values_are_the_users
from .execution import settled
from .scoring import batch_statistics


class _Step(BilevelLoop):
    """The loop without data; keeps the most bytes that a forward kept."""

    average = staticmethod(list)
    average_gradients = staticmethod(lambda parameters: None)

    def __init__(self, runner: SimpleNamespace, arch_clip_grad: dict | None, batch_parts: int) -> None:
        self._runner, self.arch_clip_grad, self.batch_parts = runner, arch_clip_grad, batch_parts
        self.kept = 0

    def _parts(self, data: Any) -> list[tuple[float, Any]]:
        # from the second part on, whose gradients meet those of the first, parts differ by an image at most
        return sorted(super()._parts(data), key=itemgetter(0))[-2:]

    def _losses(self, data: Any, weights: Mapping[str, Tensor] | None = None) -> tuple[Tensor, dict[str, Any]]:
        model, found = self.runner.model, []

        def forward() -> Tensor:
            found.append(super(_Step, self)._losses(data, weights))
            return found[0][0]

        own = [*model.parameters(), *model.buffers(), *self.runner.arch_params.parameters(), *(weights or {}).values()]
        self.kept = max(self.kept, bytes_kept(forward, own))
        return found.pop()


def need_of(cfg: Config, adapter: Any, fake: bool = True) -> Need:
    """What a step of the config's search needs, in its weight step, its architecture step and its validation.

    ``adapter`` is the task's: it gives a fake batch (``memory_batch``) and, where the model's own can't run on fake tensors,
    the losses (``memory_loss(cfg, model, **batch)``, a dict of terms) and what a validation holds
    (``memory_predictions(cfg, model, **batch)``). The config may be one that the adapter has not
    completed from data. With ``fake=False`` real tensors are counted: the same figures at a step's full cost. Random states
    stay as they are.

    Raises UserError for a loss whose shapes depend on values and for a plan that can't be differentiated twice where it must
    be, and whatever building the model raises.
    """
    try:
        with kept_random_states():
            space = record(lambda: MODELS.build(copy.deepcopy(cfg["model"]))).space
            return followed(lambda live: _measure(cfg, adapter, space, live), fake)
    except DynamicOutputShapeException as error:
        raise UserError(
            f"The memory of task {cfg['task']!r} can't be predicted: {error} gives shapes that depend on values, and the "
            "task's adapter has no memory_loss."
        ) from error


def _measure(cfg: Config, adapter: Any, space: Space, live: LiveBytes) -> Need:
    runner = _runner(cfg, space)
    model, params = runner.model, runner.arch_params
    if hasattr(adapter, "memory_loss"):
        _replace_loss(model, cfg, adapter)
    loop = cfg.get("train_cfg") or {}
    step = _Step(runner, loop.get("arch_clip_grad"), loop.get("batch_parts", 1))
    gradients = _fill_optimizers(runner)
    # an EMAHook's copy
    averaged = [torch.empty_like(t) for t in (*model.parameters(), *model.buffers())] if _averages(cfg) else []
    kept, peaks = _train(step, live, *(adapter.memory_batch(cfg, name) for name in ("train_dataloader", "arch_dataloader")))
    if cfg.get("val_dataloader") is not None:
        live.start_again()
        _validate(runner, cfg, adapter)
        peaks["validation"] = live.peak
    states = [s for o in (runner.optim_wrapper.optimizer, runner.arch_optimizer) for s in o.state.values()]
    return Need(
        parameters=_size([*model.parameters(), *params.parameters()]),
        buffers=_size(model.buffers()),
        gradients=gradients,
        optimizer=_size([v for state in states for v in state.values() if isinstance(v, Tensor)] + averaged),
        kept=kept,
        peaks=peaks,
    )


def _train(step: _Step, live: LiveBytes, batch: Any, arch_batch: Any) -> tuple[dict[str, int], dict[str, int]]:
    """Bytes kept and peaks of both steps; the weights' goes first, so that what accumulates is there in the other."""
    kept, peaks = {}, {}
    data, arch_data = step._prepared(batch), step._prepared(arch_batch)
    for phase in ("weights", "architecture"):
        step.kept = 0
        live.start_again()
        if phase == "weights":
            step._weight_step(data)
        else:
            step._arch_step(data, arch_data)
        kept[phase], peaks[phase] = step.kept, live.peak
    return kept, peaks


def _runner(cfg: Config, space: Space) -> SimpleNamespace:
    """What `BilevelLoop` asks of a runner during a step."""
    settings = copy.deepcopy(dict(cfg["strategy"]))
    strategy = STRATEGIES.get(settings.pop("type"))(**settings)
    params = ArchParams(space, edge_logits=strategy.edge_logits)
    with building(Relax(params)):
        model = revert_sync_batchnorm(MODELS.build(copy.deepcopy(cfg["model"])))
    settled(model, getattr(strategy.update, "exact", False))
    model.train()
    with values_are_the_users("optim_wrapper"):
        wrapper = build_optim_wrapper(model, copy.deepcopy(cfg["optim_wrapper"]))
    with values_are_the_users("arch_optimizer"):
        arch_optimizer = OPTIMIZERS.build(dict(cfg["arch_optimizer"]), default_args={"params": list(params.parameters())})
    return SimpleNamespace(
        model=model, arch_params=params, strategy=strategy, optim_wrapper=wrapper, arch_optimizer=arch_optimizer, budget=None
    )


def _replace_loss(model: nn.Module, cfg: Config, adapter: Any) -> None:
    forward = model.forward

    def loss_of_adapter(*args: Any, mode: str = "tensor", **kwargs: Any) -> Any:
        return adapter.memory_loss(cfg, model, *args, **kwargs) if mode == "loss" else forward(*args, mode=mode, **kwargs)

    model.forward = loss_of_adapter


def _fill_optimizers(runner: SimpleNamespace) -> int:
    """States as after a first step, from gradients of zeros; returns the bytes of these gradients."""
    size = 0
    for optimizer in (runner.optim_wrapper.optimizer, runner.arch_optimizer):
        held = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
        for parameter in held:
            parameter.grad = torch.zeros_like(parameter)
        size += _size(held)
        optimizer.step()
        optimizer.zero_grad()
    return size


def _averages(cfg: Config) -> bool:
    return any(str(hook.get("type")).endswith("EMAHook") for hook in cfg.get("custom_hooks") or [])


@torch.no_grad()
def _validate(runner: SimpleNamespace, cfg: Config, adapter: Any) -> None:
    data = runner.model.data_preprocessor(adapter.memory_batch(cfg, "val_dataloader"), False)
    args, kwargs = ((), dict(data)) if isinstance(data, Mapping) else (tuple(data), {})
    with batch_statistics(runner.model), runner.arch_params.gated(runner.strategy.gate):
        if hasattr(adapter, "memory_predictions"):
            adapter.memory_predictions(cfg, runner.model, *args, **kwargs)
        else:
            runner.model(*args, **kwargs, mode="tensor")


def _size(tensors: Any) -> int:
    return sum({id(t): t.numel() * t.element_size() for t in tensors}.values())
