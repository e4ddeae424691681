"""Checkpoints: tensors and plain values only, written whole or not at all, read without running code.

A file is mmengine's own layout (meta, state_dict, optimizer, param_schedulers, message_hub), so that mmengine's
tools read it, plus the key "visnas" with what exact resuming needs. mmengine writes its message hub and data set
meta with numpy objects inside, which ``weights_only=True`` refuses; here they become tensors and lists.
"""

import hashlib
import io
import json
import os
import pickle
import reprlib
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from torch import Tensor

from search.space.files import write_atomically

from .errors import UserError, disk_full

NAME = "checkpoint.pth"
# beside it, from a run's start on: its kind and config
RUN = "run.json"
FORMAT = 1
# how much of every logged curve is kept: mmengine smooths over windows far shorter than this
_KEPT_SCALARS = 20_000
_BUFFER = "__history_buffer__"
# keys that change where a run writes or how fast it is, not what it computes
_NOT_RESULTS = {
    *("work_dir", "resume", "launcher", "visualizer", "log_level", "log_processor", "env_cfg"),
    *("allow_different_threads", "experiment_name"),
    *("num_workers", "persistent_workers", "pin_memory", "prefetch_factor", "save_steps", "save_epochs"),
}
# default hooks that look on; any other may change what is computed
_HARMLESS_HOOKS = {"logger", "timer", "checkpoint", "progress", "visualization"}


def plain(value: Any, where: str = "checkpoint") -> Any:
    """The same value made of tensors, dicts, lists, tuples, strings, numbers and None.

    Raises ValueError naming the place of anything else: reading it back would need unpickling.
    """
    if value is None or isinstance(value, str | bool | int | float | bytes):
        # numpy's float64 is a float, and would be pickled as numpy's
        return value.item() if isinstance(value, np.generic) else value
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy()) if value.dtype.kind in "biuf" else value.tolist()
    if isinstance(value, HistoryBuffer):
        log, count = value.data
        return {_BUFFER: [torch.as_tensor(x[-_KEPT_SCALARS:].astype(np.float64)) for x in (log, count)]}
    if isinstance(value, Mapping):
        return {k: plain(v, f"{where}.{k}") for k, v in value.items()}
    if isinstance(value, list):
        return [plain(v, where) for v in value]
    if isinstance(value, tuple | set | frozenset):
        return tuple(plain(v, where) for v in value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise ValueError(f"{where} holds a {type(value).__name__}, which can't be saved without pickling it.")


def plain_hub(state: Mapping[str, Any]) -> dict[str, Any]:
    """A message hub's state without what can't be made plain (objects that a hook left there)."""
    kept: dict[str, Any] = {"log_scalars": {}, "runtime_info": {}, "resumed_keys": {}}
    for group in ("log_scalars", "runtime_info"):
        for key, value in state[group].items():
            try:
                kept[group][key] = plain(value)
            except ValueError:
                continue
            kept["resumed_keys"][key] = bool(state["resumed_keys"].get(key, True))
    return kept


def hub_from_plain(state: Mapping[str, Any]) -> dict[str, Any]:
    """What `plain_hub` made, with mmengine's HistoryBuffers again."""
    scalars = {}
    for key, value in state["log_scalars"].items():
        log, count = (x.cpu().numpy() for x in value[_BUFFER])
        scalars[key] = HistoryBuffer(log, count)
    return {**state, "log_scalars": scalars}


def write_bytes(path: Path, data: bytes) -> None:
    """`write_atomically`, in a folder that is made if need be.

    Raises:
        UserError: the disk is full; what was there before is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        write_atomically(path, data)
    except OSError as error:
        words = disk_full(error)
        if words is None:
            raise
        raise UserError(
            f"Writing {path} failed because {words}; the file that was there before is whole: make room and "
            "go on with --resume."
        ) from error


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as sorted, indented JSON, whole or not at all."""
    write_bytes(path, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())


def write(path: Path, checkpoint: Mapping[str, Any]) -> None:
    """Writes a checkpoint whole or not at all; its values must be plain (see `plain`)."""
    buffer = io.BytesIO()
    torch.save(dict(checkpoint), buffer)
    write_bytes(path, buffer.getvalue())


def remove_leftovers(folder: Path) -> None:
    """Deletes the temporary files that killed processes left behind."""
    for leftover in folder.glob(".*.tmp"):
        leftover.unlink(missing_ok=True)


def read(path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Reads a checkpoint without ever running code from it.

    Raises:
        UserError: missing, damaged, not a checkpoint, or one that would need unpickling.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"There is no checkpoint at {path}.")
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path} is damaged or isn't a checkpoint: use an earlier one, or start again.")
    intact = _checksums_hold(path)
    try:
        checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        if not intact:
            raise UserError(f"{path} is damaged (its checksums are wrong): use an earlier one, or start again.") from error
        raise UserError(
            f"{path} holds more than tensors and plain values, and reading it could run code hidden in it: "
            "convert it to a plain state_dict first."
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} is damaged or isn't a checkpoint: use an earlier one, or start again.") from error
    # torch reads on over flipped bits; other programs may write no checksums
    if isinstance(checkpoint, dict) and "visnas" in checkpoint and not intact:
        raise UserError(f"{path} is damaged (its checksums are wrong): use an earlier one, or start again.")
    if not isinstance(checkpoint, dict):
        raise UserError(f"{path} holds a {type(checkpoint).__name__}, not a checkpoint.")
    return checkpoint


def _checksums_hold(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    # the last where flipped bits name a compression that zipfile doesn't know
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError):
        return False


def read_own(path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Reads a checkpoint that this project wrote, for resuming or testing.

    Raises:
        UserError: as `read`, and for a checkpoint of another program or a newer version.
    """
    checkpoint = read(path, map_location)
    ours = checkpoint.get("visnas")
    if not isinstance(ours, dict) or "state_dict" not in checkpoint:
        raise UserError(f"{path} wasn't written by this project's search or training, so it can't be resumed.")
    if ours["version"] > FORMAT:
        raise UserError(f"{path} has format {ours['version']}, this version reads up to {FORMAT}: update visnas.")
    return checkpoint


def canonical_config(cfg: Config | Mapping[str, Any]) -> str:
    """The settings that a run's results depend on, as canonical JSON."""
    values = cfg.to_dict() if isinstance(cfg, Config) else dict(cfg)
    hooks = {name: hook for name, hook in (values.pop("default_hooks", None) or {}).items() if name not in _HARMLESS_HOOKS}
    if hooks:
        values["default_hooks"] = hooks
    return json.dumps(_results_only(values), sort_keys=True, default=repr)


def fingerprint(cfg: Config | Mapping[str, Any]) -> str:
    """SHA-256 of `canonical_config`."""
    return hashlib.sha256(canonical_config(cfg).encode()).hexdigest()


def _results_only(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _results_only(v) for k, v in value.items() if k not in _NOT_RESULTS}
    if isinstance(value, list | tuple):
        return [_results_only(v) for v in value]
    return value


def difference(a: Any, b: Any, where: str = "") -> str | None:
    """The first place where two JSON values differ, in words; None where they don't."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted({*a, *b}):
            name = f"{where}.{key}" if where else key
            if key not in a or key not in b:
                there, here = ("missing" if key not in side else reprlib.repr(side[key]) for side in (a, b))
                return f"{name} is {there} there and {here} here"
            found = difference(a[key], b[key], name)
            if found:
                return found
        return None
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        pairs = enumerate(zip(a, b, strict=True))
        return next((found for i, (x, y) in pairs if (found := difference(x, y, f"{where}[{i}]"))), None)
    return None if a == b else f"{where} is {reprlib.repr(a)} there and {reprlib.repr(b)} here"


def write_run(folder: Path, kind: str, config: str) -> None:
    """Says beside a run's other files what it is, from before its first checkpoint on; see `require_same_settings`."""
    write_json(folder / RUN, {"kind": kind, "config": config})


def require_same_settings(path: str | Path, ours: Mapping[str, Any], kind: str, config: str) -> None:
    """Raises UserError where what a file says of its run (``kind``, ``config``) isn't this run's."""
    if ours["kind"] != kind:
        raise UserError(f"{path} is of a {ours['kind']} run, this is a {kind} run: use another --work-dir.")
    found = difference(json.loads(ours["config"]), json.loads(config))
    if found:
        raise UserError(f"{path} is of another config ({found}): use that config, or another --work-dir.")


def require_same_run(path: str | Path, ours: Mapping[str, Any], kind: str, config: str, world: int, any_threads: bool) -> None:
    """Checks that a checkpoint may be resumed by this run.

    Args:
        ours: the checkpoint's "visnas" part.
        kind: 'search', 'one-shot', 'trials' or 'train'.
        config: this run's `canonical_config`.
        world: number of processes now.
        any_threads: accept another number of threads, which changes the last bits of results.

    Raises:
        UserError: naming the first setting that differs.
    """
    require_same_settings(path, ours, kind, config)
    if ours["world"] != world:
        raise UserError(f"{path} was written by {ours['world']} processes, this run has {world}: start as many.")
    threads = torch.get_num_threads()
    if ours["threads"] != threads and not any_threads:
        raise UserError(
            f"{path} was written with {ours['threads']} threads, this process has {threads}, which changes the "
            f"last bits of results: set OMP_NUM_THREADS={ours['threads']} or give --allow-different-threads (tools/search.py, "
            f"tools/train.py), or give --threads {ours['threads']} (tools/compare.py)."
        )
