import copy

import pytest
import torch
from mmengine.config import Config

from search.cost import bytes_kept
from search.engine import config
from search.engine.data import random_states
from search.engine.errors import UserError
from search.engine.fake_step import need_of
from search.engine.memory_plan import with_options
from search.engine.run import adapter_of
from search.registry import MODELS, STRATEGIES
from search.supernet import ArchParams, Relax, building, record
from tests.search.engine import tiny
from tests.search.engine.resident import ROOT, grows_as_predicted, growth, needs_proc

CONFIGS = ROOT / "configs" / "classification"
SMALL = {
    "model.backbone.plan": "reference",
    "model.backbone.channels": 8,
    "model.backbone.layers": 2,
    "model.backbone.reductions": (1,),
    "model.backbone.nodes": 2,
    "train_dataloader.batch_size": 4,
    "arch_dataloader.batch_size": 4,
    "val_dataloader.batch_size": 2,
    "train_dataloader.dataset.pipeline.0.size": 16,
    "arch_dataloader.dataset.pipeline.0.size": 16,
}
ONE_NODE = {"model.backbone.nodes": 1}


def settings(name, **options):
    return with_options(config.load(CONFIGS / f"{name}.py"), {**SMALL, **options})


def measured(cfg):
    """Bytes kept by a forward on real tensors, built as a search builds them: logits with gradients, and without."""
    strategy = STRATEGIES.get(cfg.strategy.type)(**{k: v for k, v in cfg.strategy.items() if k != "type"})
    space = record(lambda: MODELS.build(copy.deepcopy(cfg.model))).space
    params = ArchParams(space, edge_logits=strategy.edge_logits)
    with building(Relax(params)):
        model = MODELS.build(copy.deepcopy(cfg.model))
    batch = cfg.train_dataloader.batch_size
    size = cfg.train_dataloader.dataset.pipeline[0].size
    images, labels = torch.randn(batch, 3, size, size), torch.randint(10, (batch,))

    def forward():
        with params.gated(strategy.gate):
            return sum(model(images, labels, mode="loss").values())

    found = {}
    for phase in ("architecture", "weights"):
        params.requires_grad_(phase == "architecture")
        found[phase] = bytes_kept(forward, [*model.parameters(), *model.buffers(), *params.parameters()])
    return found


EXECUTIONS = [("reference", "fast"), ("batched", "fast"), ("batched", "balanced"), ("batched", "small")]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "k"), [("cells_darts_cifar10", 1), ("cells_pc_darts_cifar10", 4)])
def test_bytes_kept_equal_the_measured(name, k):
    kept = []
    for plan, memory in EXECUTIONS:
        execution = {"model.backbone.partial": k, "model.backbone.plan": plan, "model.backbone.memory": memory}
        cfg = settings(name, **execution, **{"strategy.order": 1})
        need = need_of(cfg, adapter_of(cfg))
        # 5 % is promised
        assert dict(need.kept) == pytest.approx(measured(cfg), rel=5e-3)
        kept.append(need.most_kept)
    assert kept == sorted(kept, reverse=True) and kept[0] > 2 * kept[-1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="compares with Triton's interpreter on the CPU")
@pytest.mark.slow
@pytest.mark.parametrize("memory", ["fast", "balanced"])
def test_bytes_kept_by_the_triton_plan_are_counted_without_its_kernels(memory):
    pytest.importorskip("triton")
    one_cell = {"layers": 1, "reductions": (), "nodes": 1, "channels": 4, "partial": 1, "plan": "triton", "memory": memory}
    images = {f"{name}_dataloader.dataset.pipeline.0.size": 8 for name in ("train", "arch")}
    batches = {f"{name}_dataloader.batch_size": 2 for name in ("train", "arch")}
    model = {f"model.backbone.{name}": value for name, value in one_cell.items()}
    cfg = settings("cells_pc_darts_cifar10", **model, **images, **batches)
    assert dict(need_of(cfg, adapter_of(cfg)).kept) == pytest.approx(measured(cfg), rel=5e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "partial"), [("cells_pc_darts_cifar10", 4), ("cells_darts_cifar10", 2)])
def test_of_the_papers_networks_bytes_kept_equal_the_measured(name, partial):
    batches = {f"{loader}_dataloader.batch_size": 32 for loader in ("train", "arch", "val")}
    cfg = with_options(config.load(CONFIGS / f"{name}.py"), {"model.backbone.partial": partial, **batches})
    assert dict(need_of(cfg, adapter_of(cfg)).kept) == pytest.approx(measured(cfg), rel=0.05)


def test_fake_equals_real():
    # second order and clipping included
    cfg = settings("cells_darts_cifar10", **ONE_NODE)
    assert need_of(cfg, adapter_of(cfg)) == need_of(cfg, adapter_of(cfg), fake=False)


def test_fake_nearly_equals_real_with_autocast():
    # autocast's cache of cast weights holds a few kB less with fakes
    cfg = settings("cells_pc_darts_cifar10", **ONE_NODE, **{"optim_wrapper.type": "AutocastOptimWrapper"})
    fake, real = need_of(cfg, adapter_of(cfg)), need_of(cfg, adapter_of(cfg), fake=False)
    assert dict(fake.kept) == pytest.approx(real.kept, rel=2e-3)
    assert dict(fake.peaks) == pytest.approx(real.peaks, rel=5e-3)
    assert fake.most_kept < 0.7 * need_of(settings("cells_pc_darts_cifar10", **ONE_NODE), adapter_of(cfg)).most_kept


def test_parts():
    cfg = settings("cells_pc_darts_cifar10")
    need = need_of(cfg, adapter_of(cfg))
    params = ArchParams(record(lambda: MODELS.build(copy.deepcopy(cfg.model))).space, edge_logits=True)
    logits = 4 * sum(p.numel() for p in params.parameters())
    with building(Relax(params)):
        model = MODELS.build(copy.deepcopy(cfg.model))
    weights = 4 * sum(p.numel() for p in model.parameters())
    assert need.parameters == need.gradients == weights + logits
    assert need.buffers == sum(b.numel() * b.element_size() for b in model.buffers())
    # momentum of the weights; two moments and a step counter for each logit vector
    assert need.optimizer == weights + 2 * logits + 4 * len(params.logits)
    # logits without gradients keep less
    assert need.kept["weights"] < need.kept["architecture"] < need.peaks["architecture"] == need.peak
    assert need.peaks["validation"] < need.peaks["weights"]


def test_averaged_weights_and_accumulation_count():
    cfg = settings("cells_pc_darts_cifar10", **ONE_NODE)
    need = need_of(cfg, adapter_of(cfg))
    averaged = need_of(with_options(cfg, {"custom_hooks": [dict(type="EMAHook")]}), adapter_of(cfg))
    assert averaged.optimizer - need.optimizer == averaged.peak - need.peak
    assert averaged.optimizer - need.optimizer > 0
    accumulated = need_of(with_options(cfg, {"optim_wrapper.accumulative_counts": 4}), adapter_of(cfg))
    # the weights' gradients stay while the logits move
    assert accumulated.peaks["architecture"] > need.peaks["architecture"]


@pytest.mark.slow
def test_a_parted_batch_needs_little_more_than_a_part():
    batches = {f"{loader}_dataloader.batch_size": 16 for loader in ("train", "arch", "val")}
    cfg = settings("cells_pc_darts_cifar10", **batches)
    whole = need_of(cfg, adapter_of(cfg))
    parted = need_of(with_options(cfg, {"train_cfg.batch_parts": 4}), adapter_of(cfg))
    of_a_part = need_of(settings("cells_pc_darts_cifar10"), adapter_of(cfg))
    images = 16 * 3 * 16 * 16 * 4
    # the first layer keeps its part of the images, whose storage is the batch's
    assert parted.kept == pytest.approx(of_a_part.kept, abs=images)
    for phase in ("weights", "architecture"):
        # gradients of the parts before, and all images of both batches
        assert of_a_part.peaks[phase] < parted.peaks[phase] <= of_a_part.peaks[phase] + parted.gradients + 2 * images
        assert parted.peaks[phase] < 0.4 * whole.peaks[phase]


def test_the_largest_parts_count():
    # 9 images in 4 parts: 2, 2, 2 and 3; in 3 parts: 3, 3 and 3
    def kept(batch, parts):
        batches = {f"{loader}_dataloader.batch_size": batch for loader in ("train", "arch")}
        cfg = settings("cells_pc_darts_cifar10", **ONE_NODE, **batches, **{"train_cfg.batch_parts": parts})
        return need_of(cfg, adapter_of(cfg)).kept

    assert kept(9, 4) == kept(9, 3)


def test_random_states_stay_as_they_are():
    cfg = settings("cells_pc_darts_cifar10")
    before = random_states()
    need_of(cfg, adapter_of(cfg))
    assert torch.equal(before["torch"], random_states()["torch"])


class Adapter(tiny.TinyTask):
    def memory_batch(self, cfg, loader):
        size = cfg[loader]["batch_size"]
        return {"inputs": torch.empty(size, 3, 6, 6), "label": torch.zeros(size, dtype=torch.long)}


class WithLoss(Adapter):
    def memory_loss(self, cfg, model, inputs, label):
        """The forward on the fake tensors there are, the loss of their sum."""
        return {"loss": model(inputs, label, mode="tensor").square().sum()}


def test_a_loss_that_depends_on_values_needs_the_adapter(monkeypatch, tmp_path):
    cfg = tiny.config(tmp_path)
    usual = need_of(cfg, Adapter())
    forward = tiny.TinyNet.forward

    def selecting(self, inputs, label=None, mode="tensor"):
        y = forward(self, inputs, label, "tensor")
        return {"loss": y[y > 0].sum()} if mode == "loss" else y

    monkeypatch.setattr(tiny.TinyNet, "forward", selecting)
    with pytest.raises(UserError, match="has no memory_loss"):
        need_of(cfg, Adapter())
    assert need_of(cfg, WithLoss()).most_kept == pytest.approx(usual.most_kept, rel=0.05)


# a step of each holds some hundred MiB
GROWING = {
    "batched, balanced": ("pc_darts", 2, 448, {"model.backbone.plan": "batched", "model.backbone.memory": "balanced"}),
    "reference, two parts": ("pc_darts", 2, 512, {"model.backbone.plan": "reference", "train_cfg.batch_parts": 2}),
    "DARTS, order 1": ("darts", 1, 320, {"model.backbone.plan": "batched", "strategy.order": 1}),
    "DARTS, order 2": ("darts", 1, 128, {"model.backbone.plan": "reference", "strategy.order": 2}),
}


def growths():
    """For each of `GROWING` what `resident.growth` finds."""
    found = {}
    for name, (method, k, batch, options) in {"": ("pc_darts", 2, 4, {}), **GROWING}.items():
        batches = {f"{loader}_dataloader.batch_size": batch for loader in ("train", "arch")}
        cfg = settings(f"cells_{method}_cifar10", **{"model.backbone.partial": k}, **batches, **options)
        found[name] = growth(cfg, adapter_of(cfg))
    # python's and torch's own objects, which a first step makes
    del found[""]
    return found


@pytest.mark.slow
@needs_proc
def test_resident_memory_grows_as_predicted():
    grows_as_predicted(__name__)


def test_config_and_loss_are_left_alone(tmp_path):
    cfg = tiny.config(tmp_path)
    before = copy.deepcopy(cfg.to_dict())
    need_of(cfg, Adapter())
    assert cfg.to_dict() == before
    assert isinstance(cfg, Config)
