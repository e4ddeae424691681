"""A searchable network of one node, random images and a task for them: a whole search takes a second."""

import json
import multiprocessing
import os
import random
import resource
import signal
import socket
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from torch import nn
from torch.utils.data import Dataset

from search.registry import DATASETS, HOOKS, METRICS, MODELS, TASKS
from search.supernet import MixedDag, reading

CLASSES = 3


def _conv(channels, stride):
    return nn.Sequential(nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))


CANDIDATES = {
    "none": lambda c, s: _zero(),
    "skip_connect": lambda c, s: nn.Identity(),
    "avg_pool": lambda c, s: nn.AvgPool2d(3, 1, 1),
    "conv": _conv,
}


def _zero():
    from search.supernet import Zero

    return Zero()


@MODELS.register_module(force=True)
class TinyNet(BaseModel):
    def __init__(self, channels=4, dropout=0.0, frozen_norms=False, double=False, partial=1, arch=None):
        super().__init__()
        self.frozen_norms = frozen_norms
        self.stem = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))
        with reading("backbone", arch) as pick:
            self.dag = MixedDag(pick, "normal", CANDIDATES, channels=channels, nodes=2, keep=1, partial_channels=partial)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(2 * channels, CLASSES)
        if double:
            self.double()

    def train(self, mode=True):
        super().train(mode)
        if self.frozen_norms:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def forward(self, inputs, label=None, mode="tensor"):
        x = self.stem(inputs)
        x = torch.cat(self.dag(x, x.flip(3)), 1).mean((2, 3))
        logits = self.head(self.dropout(x))
        if mode == "loss":
            return {"loss": F.cross_entropy(logits, label)}
        if mode == "predict":
            return [{"scores": s, "label": int(t)} for s, t in zip(logits, label, strict=True)]
        return logits


@MODELS.register_module(force=True)
class TinyTrellis(BaseModel):
    """A path through a trellis is searched; each map of the last layer that runs has a classifier."""

    def __init__(self):
        super().__init__()
        self.backbone = MODELS.build(
            {"type": "search.AutoDeepLab", "filters": 4, "layers": 3, "blocks": 1, "stem": (4, 4, 4), "affine": False}
        )
        self.heads = nn.ModuleList(nn.Linear(channels, CLASSES) for channels in self.backbone.out_channels)

    def forward(self, inputs, label=None, mode="tensor"):
        maps = self.backbone(inputs)
        logits = sum(head(y.mean((2, 3))) for head, y in zip(self.heads, maps, strict=True) if y is not None)
        if mode == "loss":
            return {"loss": F.cross_entropy(logits, label)}
        return [{"scores": s, "label": int(t)} for s, t in zip(logits, label, strict=True)] if mode == "predict" else logits


@DATASETS.register_module(force=True)
class TinyImages(Dataset):
    def __init__(self, size=24, offset=0, augment=False, double=False, classes=("a", "b", "c")):
        self.size, self.offset, self.augment, self.double = size, offset, augment, double
        self.metainfo = {"classes": list(classes)}

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(1000 + self.offset + index)
        label = (self.offset + index) % CLASSES
        image = torch.randn(3, 6, 6, generator=generator) + label
        if self.augment:
            if random.random() < 0.5:
                image = image.flip(2)
            image = image * float(np.random.uniform(0.8, 1.2)) + 0.1 * torch.randn(3, 6, 6)
        return {"inputs": image.double() if self.double else image, "label": label}


@METRICS.register_module(force=True)
class TinyAccuracy(BaseMetric):
    keys = ("top1",)

    def process(self, data_batch, data_samples):
        self.results += [int(s["scores"].argmax()) == s["label"] for s in data_samples]

    def compute_metrics(self, results):
        return {"top1": 100.0 * sum(results) / len(results)}


@TASKS.register_module(name="tiny", force=True)
class TinyTask:
    def prepare(self, cfg, work_dir):
        return cfg

    def input_size(self, cfg):
        return (3, 6, 6)


@HOOKS.register_module(force=True)
class Kill(Hook):
    """SIGKILL to this very process: after a step, at the end of an epoch, or with a checkpoint half written."""

    priority = "LOWEST"

    def __init__(self, where, at):
        self.where, self.at = where, at

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if self.where == "step" and runner.iter + 1 == self.at:
            os.kill(os.getpid(), signal.SIGKILL)

    def after_train_epoch(self, runner):
        if self.where == "epoch" and runner.epoch + 1 == self.at:
            os.kill(os.getpid(), signal.SIGKILL)

    def before_save_checkpoint(self, runner, checkpoint):
        if self.where != "write" or runner.train_loop.state_dict()["step"] < self.at:
            return

        def half(descriptor):
            # what was written so far stays in the temporary file
            os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

        os.fsync = half


@HOOKS.register_module(force=True)
class FullDisk(Hook):
    """From the end of an epoch (counted from 1) on no file may grow beyond 1000 bytes."""

    def __init__(self, epoch):
        self.epoch = epoch

    def before_train_epoch(self, runner):
        if runner.epoch == self.epoch:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@HOOKS.register_module(force=True)
class Dump(Hook):
    """Every rank's weights, buffers and logits after training, in rank<r>.pt of the work directory."""

    def after_train(self, runner):
        tensors = dict(runner.bare_model.state_dict())
        if hasattr(runner, "arch_params"):
            tensors.update({f"logits/{name}": p for name, p in runner.arch_params.logits.items()})
        detached = {name: value.detach().clone() for name, value in tensors.items()}
        torch.save(detached, Path(runner.work_dir) / f"rank{runner.rank}.pt")


def loader(size, offset, workers, batch=4, **dataset):
    return dict(
        batch_size=batch,
        num_workers=workers,
        collate_fn=dict(type="default_collate"),
        dataset=dict(type="search.TinyImages", size=size, offset=offset, **dataset),
    )


def scored(size, offset, **dataset):
    return {**loader(size, offset, 0, **dataset), "sampler": dict(type="DefaultSampler", shuffle=False)}


def config(work_dir, *, train=False, epochs=3, workers=0, augment=True, model=None, loop=None, **more):
    """A search (or a training of the derived network) of 6 steps an epoch, 4 images a step."""
    values = dict(
        task="tiny",
        work_dir=str(work_dir),
        seed=3,
        model={"type": "search.TinyNet", **(model or {"dropout": 0.2})},
        train_dataloader=loader(24, 0, workers, augment=augment),
        val_dataloader=scored(12, 100),
        val_evaluator=dict(type="search.TinyAccuracy"),
        score=dict(key="top1", rule="greater"),
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=3e-4), clip_grad=dict(max_norm=5.0)),
        param_scheduler=dict(type="CosineAnnealingLR", T_max=epochs, eta_min=0.001, by_epoch=True),
        log_level="WARNING",
    )
    if train:
        values["train_cfg"] = dict(type="search.TrainLoop", max_epochs=epochs, **(loop or {}))
    else:
        values.update(
            strategy=dict(type="PCDARTS", freeze_epochs=1),
            arch_dataloader=loader(20, 50, workers, augment=augment),
            arch_optimizer=dict(type="Adam", lr=0.01, betas=(0.5, 0.999), weight_decay=1e-3),
            train_cfg=dict(type="search.BilevelLoop", max_epochs=epochs, **(loop or {})),
        )
    values.update(more)
    return Config(values)


# the server imports everything once, in a process without threads, and forks a clean child for each run
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["torch", "mmengine.runner", "search.engine", "tests.search.engine.tiny"])


def in_children(work_dir, world=1, **kwargs):
    """Exit codes of a run in `world` processes of their own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = [CONTEXT.Process(target=_child, args=(str(work_dir), rank, world, port, kwargs)) for rank in range(world)]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
    return [child.exitcode for child in children]


def _child(work_dir, rank, world, port, kwargs):
    if world > 1:
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world))
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        kwargs = {**kwargs, "launcher": "pytorch"}
    try:
        run(work_dir, **kwargs)
    except ValueError as error:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        Path(work_dir, "said.txt").write_text(f"{type(error).__name__}: {error}")
        raise


ARCH = {
    "normal/n2/inputs": [1],
    "normal/n2<-1": "conv",
    "normal/n3/inputs": [2],
    "normal/n3<-2": "skip_connect",
}


def run(work_dir, train=False, **kwargs):
    """A whole run in this process, with one thread; for processes of a test's own."""
    from search import report
    from search.engine import search as run_search
    from search.engine import train as run_train

    torch.set_num_threads(1)
    # drawing takes longer than the rest of a tiny run
    report.write = lambda work_dir: None
    if train:
        kwargs["model"] = {"dropout": 0.2, **kwargs.get("model", {}), "arch": ARCH}
    return (run_train if train else run_search)(config(work_dir, train=train, **kwargs))


def state(work_dir):
    """All that a finished run leaves and a resumed one must equal: flat {name: tensor or value}."""
    saved = torch.load(Path(work_dir) / "checkpoint.pth", weights_only=True)
    loop = {k: v for k, v in saved["visnas"]["loop"].items() if k != "seconds"}
    loop["sums"] = {}
    kept = {k: saved[k] for k in ("state_dict", "optimizer", "param_schedulers")}
    kept["ema"] = saved.get("ema_state_dict", {})
    kept["loop"], kept["random"] = loop, saved["visnas"]["ranks"]
    flat = {}

    def walk(name, value):
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(f"{name}.{key}", inner)
        elif isinstance(value, list | tuple) and name.count(".") < 8:
            for i, inner in enumerate(value):
                walk(f"{name}.{i}", inner)
        else:
            flat[name] = value

    walk("", kept)
    found = Path(work_dir) / "architecture.json"
    if found.exists():
        file = json.loads(found.read_text())
        flat["architecture"] = file["parts"], file["provenance"]["score"]
    return flat


def differences(a, b):
    """Names at which two `state`s differ in any bit."""
    assert a.keys() == b.keys(), sorted(a.keys() ^ b.keys())
    return [k for k in a if not (torch.equal(a[k], b[k]) if torch.is_tensor(a[k]) else a[k] == b[k])]
