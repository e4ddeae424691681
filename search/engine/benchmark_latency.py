"""Latencies of a benchmark's trained networks: all in the same rounds, kept as long as nothing changes that they depend on."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import nn

from search.cost.latency import UNIT, Conditions, Latency, Timed, Timing, time_modules
from search.cost.trace import dtype_of
from search.engine import checkpoint
from search.engine.networks import network_of
from search.engine.searchable import set_architecture
from search.engine.trials import RESULT, Run


@dataclass(frozen=True)
class Trained:
    """A finished training, and the size (C, H, W) of the image that its network is counted and timed on."""

    run: Run
    input_size: tuple[int, ...]


def latencies(
    path: Path, trained: Mapping[str, Trained], timing: Timing, threads: int
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """(latency by name, how it was measured), of one image each; from the file ``path`` where it holds just these."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        how = {**asdict(Conditions.here(device, torch.get_default_dtype(), timing.clock)), "unit": UNIT, "batch_size": 1}
        of = {name: [_fingerprint(one.run), list(one.input_size)] for name, one in trained.items()}
        wanted = {"of": of, "conditions": how, "timing": asdict(timing)}
        if path.exists():
            kept = json.loads(path.read_text())
            if {key: kept.get(key) for key in wanted} == wanted:
                return kept["latencies"], how
        networks = {name: _network(one.run).to(device) for name, one in trained.items()}
        modules: list[Timed] = []
        for name, network in networks.items():
            images = torch.randn(1, *trained[name].input_size, dtype=dtype_of(network), device=device)
            modules.append((network, (images,), {}))
        samples = time_modules(modules, device, timing)
    finally:
        torch.set_num_threads(before)
    found = {name: asdict(Latency.of(s, timing.warmup)) for name, s in zip(networks, samples, strict=True)}
    checkpoint.write_json(path, {**wanted, "latencies": found})
    return found, how


def _fingerprint(run: Run) -> str:
    return str(json.loads((run.work_dir / RESULT).read_text())["fingerprint"])


def _network(run: Run) -> nn.Module:
    """The trained network of a run, from its completed config and its checkpoint."""
    cfg = Config.fromfile(run.work_dir / "config.py")
    if run.arch is not None:
        # the file may have been elsewhere when the config was written
        set_architecture(cfg, str(run.arch))
    network = network_of(run.name, cfg.model, cfg.get("default_scope"))
    network.load_state_dict(checkpoint.read(run.work_dir / checkpoint.NAME)["state_dict"])
    return network
