"""From a config and a memory limit to options of the config that fit: ``--max-memory``.

What is changed, in which order, is said in `search.cost.planner`; here it becomes ``--cfg-options``, so a plan is nothing a
user couldn't write. It is made once, before the first step, and kept in the work directory, where a resumed search reads it.
"""

import copy
import json
import resource
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device

from search.cost.planner import Ladders, Need, Needs, NothingFits, Reserve, Setting, choose, parted, say_bytes, smaller
from search.registry import MODELS
from search.supernet import record
from search.supernet.plans import MEMORY, choose_plan

from . import distributed
from .checkpoint import write_json
from .diagnostics import peak_memory_mib
from .errors import BudgetError, UserError, whole_number
from .fake_step import need_of
from .searchable import modules_with
from .stages import stages_of

NAME = "memory_plan.json"
FORMAT = 1
LOADERS = ("train_dataloader", "arch_dataloader", "val_dataloader")
SHARES = (1, 2, 4, 8)
PLAIN = ("OptimWrapper", "mmengine.OptimWrapper")
AUTOCAST = "AutocastOptimWrapper"
# assumed, not measured: a CUDA context with its libraries, and a share for workspaces, rounding and gaps
CUDA_RESERVE = Reserve(fixed=600 * 10**6, share=0.05)


@dataclass(frozen=True)
class MemoryPlan:
    """What was chosen for ``limit`` bytes: ``setting`` in place of ``own``, by ``options`` of the config.

    ``total``: bytes that are predicted in all, ``need``: those of the step's tensors, ``reserve``: what is beside them.
    """

    limit: int
    own: Setting
    setting: Setting
    total: int
    need: Need
    reserve: Reserve
    options: Mapping[str, Any]


def reserve_here() -> Reserve:
    """What this process needs beside a step's tensors: on a CPU what is resident by now, and 20 % for gaps in the C heap.

    Measured on a supernet's step with glibc's malloc: 20 % more resident than live, 0 % with MALLOC_MMAP_THRESHOLD_=65536.
    """
    if torch.cuda.is_available():
        return CUDA_RESERVE
    pages = Path("/proc/self/statm")
    now = int(pages.read_text().split()[1]) * resource.getpagesize() if pages.exists() else peak_memory_mib() * 2**20
    return Reserve(fixed=int(now), share=0.2)


def execution_name(plan: str, memory: str) -> str:
    """What a plan of execution and its recomputation are called together."""
    return plan if plan == "reference" else f"{plan}/{memory}"


def with_options(cfg: Config, options: Mapping[str, Any]) -> Config:
    """A copy of the config with ``key: value`` options merged in."""
    merged = copy.deepcopy(cfg)
    merged.merge_from_dict(dict(options))
    return merged


class Planner:
    """The settings that a config can have, what they need, and the options that make them.

    Args:
        cfg: of a search; the task adapter need not have completed it from data.
        adapter: the task's. ``memory_batch`` is needed; without ``image_size`` and ``crop_options`` crops aren't changed.
        reserve: what the process needs beside a step's tensors.
        tell: is called with every setting before it is measured, which takes seconds to a minute.
        plans: to be tried in place of the reference plan, in this order.

    Raises UserError for a task or a config that can't be planned.
    """

    def __init__(
        self,
        cfg: Config,
        adapter: Any,
        reserve: Reserve,
        tell: Callable[[Setting], object] = lambda setting: None,
        plans: Sequence[str] = ("batched",),
    ) -> None:
        for key in ("strategy", "arch_dataloader", "arch_optimizer", "optim_wrapper"):
            if cfg.get(key) is None:
                raise UserError(f"The config has no {key}, which a search needs: is it a config for training?")
        if not hasattr(adapter, "memory_batch"):
            raise UserError(f"The memory of task {cfg.get('task')!r} can't be predicted: its adapter has no memory_batch.")
        self.cfg, self.adapter, self.reserve, self.tell = cfg, adapter, reserve, tell
        self._staged = self._last_stage()
        self.executions = self._executions(plans)
        batch = whole_number("train_dataloader.batch_size", cfg["train_dataloader"].get("batch_size"))
        self.ladders = Ladders(
            execution=tuple(self.executions),
            precision=self._precision(),
            parts=self._parts(batch),
            crop=self._crops(),
            partial=self._partial(),
            batch=batch,
        )

    def needs(self, batches: Sequence[int] | None = None) -> Needs:
        """Bytes of settings, measured at ``batches``; by default the config's."""

        def measure(setting: Setting) -> Need:
            self.tell(setting)
            cfg = with_options(self.cfg, {**self._staged, **self.options(setting)})
            return need_of(with_options(cfg, self._taken(cfg)), self.adapter)

        return Needs(measure, batches or (self.ladders.batch,), self.reserve)

    def plan(self, limit: int) -> MemoryPlan:
        """The best setting for ``limit`` bytes. Raises BudgetError, naming the smallest need, where none fits."""
        needs = self.needs()
        try:
            setting = choose(self.ladders, needs, limit)
        except NothingFits as error:
            raise BudgetError(f"--max-memory: {error}.") from error
        return MemoryPlan(
            limit=limit,
            own=self.ladders.first,
            setting=setting,
            total=needs.exact_bytes(setting),
            need=needs.exact(setting),
            reserve=self.reserve,
            options=self.options(setting),
        )

    def options(self, setting: Setting) -> dict[str, Any]:
        """``key: value`` options of the config that make a setting; none for the config's own."""
        cfg, own = self.cfg, self.ladders.first
        options: dict[str, Any] = {}
        if setting.partial != own.partial:
            options.update({key: max(k, setting.partial) for key, k in modules_with(cfg["model"], "partial")})
        if setting.crop != own.crop:
            options.update(self.adapter.crop_options(cfg, setting.crop))
        if setting.batch != own.batch:
            options.update(_batch_sizes(cfg, LOADERS, setting.batch / own.batch))
        if setting.parts != own.parts:
            # validation isn't parted
            options.update(_batch_sizes(cfg, LOADERS[2:], own.parts / setting.parts))
            options["train_cfg.batch_parts"] = setting.parts
        if setting.precision != own.precision:
            options["optim_wrapper.type"] = AUTOCAST
        return {**options, **self.executions[setting.execution]}

    def _last_stage(self) -> dict[str, int]:
        """Options that give the model the K of the config's last stage, which needs the most, because K falls; {} without."""
        loop, found = self.cfg.get("train_cfg") or {}, dict(modules_with(self.cfg["model"], "partial"))
        if not loop.get("stages"):
            return {}
        epochs = whole_number("train_cfg.max_epochs", loop.get("max_epochs"))
        return dict.fromkeys(found, stages_of(loop["stages"], min(found.values(), default=None), epochs)[-1].partial)

    def _executions(self, others: Sequence[str]) -> dict[str | None, dict[str, Any]]:
        """Options by name: the config's own execution (no options), and those of fewer bytes that the network has."""
        plans, memories = (dict(modules_with(self.cfg["model"], name)) for name in ("plan", "memory"))
        pairs = set(zip(plans.values(), memories.values(), strict=False))
        if len(plans) != len(memories) or len(pairs) != 1:
            return {None: {}}
        (own,) = pairs
        found: dict[str | None, dict[str, Any]] = {execution_name(*own): {}}
        if self._differentiates_twice() or own[1] not in MEMORY:
            return found
        if own[0] == "reference":
            rest = [(plan, memory) for plan in others for memory in MEMORY]
        else:
            rest = [(own[0], memory) for memory in MEMORY[MEMORY.index(own[1]) + 1 :]]
        for plan, memory in rest:
            options = {**dict.fromkeys(plans, plan), **dict.fromkeys(memories, memory)}
            if self._builds(options):
                found[execution_name(plan, memory)] = options
        return found

    def _taken(self, cfg: Config) -> dict[str, str]:
        """Options that say what "auto" is on this process's device, for tensors without values are the CPU's."""
        if self._differentiates_twice():
            return {}
        taken = choose_plan(torch.device(get_device()), torch.float32)[0]
        return {key: taken for key, plan in modules_with(cfg["model"], "plan") if plan == "auto"}

    def _differentiates_twice(self) -> bool:
        # exact second order, which the reference alone can do
        return bool(self.cfg["strategy"].get("exact"))

    def _partial(self) -> tuple[int | None, ...]:
        found = dict(modules_with(self.cfg["model"], "partial"))
        if not found:
            return (None,)
        if self._staged:
            # a schedule is the config's to change
            return (min(self._staged.values()),)
        own = min(found.values())
        rest = [k for k in SHARES if k > own and self._builds({key: max(k, value) for key, value in found.items()})]
        return (own, *rest)

    def _precision(self) -> tuple[str, ...]:
        kind = self.cfg["optim_wrapper"].get("type", PLAIN[0])
        if kind in PLAIN:
            return ("float32", "bfloat16") if _has_bfloat16() else ("float32",)
        return ("bfloat16",) if kind == AUTOCAST else (f"by {kind}",)

    def _parts(self, batch: int) -> tuple[int, ...]:
        own = (self.cfg.get("train_cfg") or {}).get("batch_parts", 1)
        arch = whole_number("arch_dataloader.batch_size", self.cfg["arch_dataloader"].get("batch_size"))
        return (own, *(parts for parts in parted(min(batch, arch)) if parts > own))

    def _crops(self) -> tuple[int | None, ...]:
        if not hasattr(self.adapter, "crop_options"):
            return (None,)
        side = self.adapter.image_size(self.cfg)[1]
        return smaller(side) if self.adapter.crop_options(self.cfg, side) else (side,)

    def _builds(self, options: Mapping[str, Any]) -> bool:
        """Whether the network accepts the options: channels divisible by K, a policy that its plan of execution has."""
        model = with_options(self.cfg, options)["model"]
        try:
            record(lambda: MODELS.build(copy.deepcopy(model)))
        except ValueError:
            return False
        return True


def _batch_sizes(cfg: Config, loaders: Sequence[str], ratio: float) -> dict[str, int]:
    """Options that multiply loaders' batches by a ratio; at least 2 images stay."""
    own = {loader: cfg[loader]["batch_size"] for loader in loaders if cfg.get(loader) is not None}
    return {f"{loader}.batch_size": max(min(size, 2), round(size * ratio)) for loader, size in own.items()}


def _has_bfloat16() -> bool:
    # a GPU before Ampere runs it without its fast units, slower than float32
    return not torch.cuda.is_available() or torch.cuda.is_bf16_supported(including_emulation=False)


def make(
    cfg: Config, adapter: Any, work_dir: Path, limit: int, tell: Callable[[Setting], object] = lambda setting: None
) -> MemoryPlan:
    """Plans for this process's device and writes the plan to the work directory; the first process does it for all.

    ``tell``: as `Planner`'s. Raises BudgetError where nothing fits.
    """
    outcome: MemoryPlan | ValueError | None = None
    if distributed.rank() == 0:
        try:
            outcome = Planner(cfg, adapter, reserve_here(), tell).plan(limit)
            write_json(work_dir / NAME, as_json(outcome))
        except ValueError as error:
            outcome = error
    outcome = distributed.gather(outcome)[0]
    if isinstance(outcome, ValueError):
        raise outcome
    assert outcome is not None
    return outcome


def as_json(plan: MemoryPlan) -> dict[str, Any]:
    """A plan as plain values."""
    return {"format": "visnas-memory-plan", "version": FORMAT, "peak": plan.need.peak, **asdict(plan)}


def forget(work_dir: Path) -> None:
    """Removes a plan that an unfinished start left behind."""
    if distributed.rank() == 0:
        (work_dir / NAME).unlink(missing_ok=True)


def stored(work_dir: Path, limit: int | None) -> dict[str, Any] | None:
    """The options of the plan that a search to be resumed has made; None without a plan.

    Raises UserError for a damaged file, or one that was made for another limit than a given one.
    """
    path = work_dir / NAME
    if not path.exists():
        return None
    try:
        plan = json.loads(path.read_text())
        options, planned = dict(plan["options"]), int(plan["limit"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}): give another --work-dir.") from error
    if limit is not None and limit != planned:
        raise UserError(
            f"--max-memory is {say_bytes(limit)}, but {path} was made for {say_bytes(planned)}: give that, or leave it out."
        )
    return options
