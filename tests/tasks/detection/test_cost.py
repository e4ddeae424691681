"""What whole detectors cost, by published figures and by the sums of their parts."""

import random
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

pytest.importorskip("mmdet")

import tasks.detection  # noqa: F401, I001  (before mmdet's models)
import mmdet.registry
from mmengine.registry import init_default_scope
from search.cost import count
from search.cost.operations import narrow
from search.engine.budget import Budget, settings_of
from search.engine.budgeted_search import BudgetedSearch
from search.engine.errors import UserError
from search.engine.networks import networks_of
from search.registry import MODELS, TASKS
from search.space import Architecture
from search.strategies import PCDARTS
from search.supernet import ArchParams, record
from tasks.detection.cost import on_fixed_boxes, stages_of
from tests.tasks.detection.test_downstream import faster_rcnn, retinanet
from tests.tasks.families import FAMILIES
from tests.tasks.hooked import outputs_of

CAFFE = dict(style="caffe", norm_cfg=dict(type="BN", requires_grad=False))


def model_of(name, **backbone):
    model = Config.fromfile(f"configs/detection/{name}_resnet50_coco_retrain.py").model
    model.backbone.update(init_cfg=None, **backbone)
    return model


@pytest.mark.parametrize(
    ("name", "backbone", "params", "macs"),
    [
        # mmdet's own figures of its baselines at 1280x800, FCOS on Caffe's ResNet
        ("retinanet", {}, 37.74, 239.32),
        ("faster_rcnn", {}, 41.53, 207.07),
        ("fcos", CAFFE, 32.02, 200.55),
    ],
)
def test_published_figures(name, backbone, params, macs):
    built = []
    cost = count(lambda: built.append(MODELS.build(model_of(name, **backbone))) or built[0], (3, 800, 1280))
    # printed without the stem and the first stage, which are frozen
    trained = sum(p.numel() for p in built[0].parameters() if p.requires_grad)
    assert round(trained / 1e6, 2) == params and cost.params == sum(p.numel() for p in built[0].parameters())
    # printed with biases, norms and activations
    assert 0.98 * macs < cost.macs / 1e9 < macs


def test_mmdets_nas_fpn_and_a_detector_with_attention():
    configs = Path(find_spec("mmdet").submodule_search_locations[0]) / ".mim" / "configs"
    if not configs.is_dir():
        pytest.skip("mmdet was installed without its configs")

    # their inner parts' types have no scope
    init_default_scope("mmdet")

    def params(name):
        model = Config.fromfile(configs / name).model
        return count(lambda: mmdet.registry.MODELS.build(model), (3, 640, 640)).params

    assert params("nas_fpn/retinanet_r50_nasfpn_crop640-50e_coco.py") == 59_979_828
    # arXiv 2005.12872, table 1: 41 M, without norms, whose parameters are fixed there
    detr = params("detr/detr_r50_8xb2-150e_coco.py")
    assert 41.0e6 < detr - 53_120 < 42.0e6


def test_a_box_head_is_counted_on_thousand_boxes():
    model = model_of("faster_rcnn")
    whole = count(lambda: MODELS.build(model), (3, 64, 64)).macs
    without = count(lambda: MODELS.build(model), (3, 64, 64), forward=lambda m, x: m.rpn_head(m.extract_feat(x))).macs
    per_box = 256 * 7 * 7 * 1024 + 1024 * 1024 + 1024 * (81 + 4 * 80)
    assert whole - without == 1000 * per_box


@pytest.mark.parametrize("detector", [retinanet, faster_rcnn])
def test_activations_are_what_a_real_forward_makes(detector):
    torch.manual_seed(0)
    backbone = FAMILIES["mobilenet_v2"]
    model = MODELS.build(Config(detector(backbone, list(MODELS.build(backbone).out_channels)))).eval()
    made = outputs_of(model, torch.randn(1, 3, 64, 96))
    parts = {name.partition(".")[0] for name in made}
    assert parts == {"backbone", "neck", *(["bbox_head"] if detector is retinanet else ["rpn_head", "roi_head"])}
    assert sum(made.values()) == count(model, (3, 64, 96)).activations


@pytest.mark.parametrize("detector", [retinanet, faster_rcnn])
def test_a_budget_of_activations_binds_in_what_is_decoded(detector):
    """One number too few for what is decoded freely; what takes its place makes as many as its real forward does."""
    torch.manual_seed(0)
    backbone, size = FAMILIES["mobilenet_v2"], (3, 64, 96)
    channels = list(MODELS.build(backbone).out_channels)
    neck = dict(type="search.AutoFPN", in_channels=channels, channels=16, start_level=2, fused=2, nodes=1)
    networks = networks_of(Config(dict(detector(backbone, channels), neck=neck)))
    spaces = record(networks).parts
    (space,) = spaces.values()
    # decoding takes convolutions
    params = ArchParams(space, edge_logits=True)
    for name, logit in params.logits.items():
        options = [str(option) for option in space[name].options]
        logit.data.copy_(torch.tensor([3.0 if "conv" in option else 0.0 for option in options]))
    budget = Budget(settings_of({"activations": 1e9}), networks, spaces, size)
    search = BudgetedSearch.prepared(budget, PCDARTS(freeze_epochs=0), space, params.probabilities(), 0)
    free = search.decode(params.probabilities())
    limit = budget.figures(free)["activations"] - 1
    assert search.smallest["activations"] <= limit
    budget.settings = settings_of({"activations": limit})
    search = BudgetedSearch(budget, search.strategy, search.cost, search.expected, search.smallest, free, {"activations": 0.1})
    found = search.decode(params.probabilities())
    made = outputs_of(narrow(networks, found).eval(), torch.randn(1, *size))
    assert found != free and sum(made.values()) == budget.figures(found)["activations"] <= limit
    loss = {name: torch.randn_like(logit) for name, logit in params.logits.items()}
    pulled = search.add_gradients(dict(loss), params.logits, params.probabilities())
    with torch.no_grad():
        before = search.line(params.logits, found)["activations"]["expected"]
        for name, logit in params.logits.items():
            logit -= 0.1 * (pulled[name] - loss[name])
    assert search.line(params.logits, found)["activations"]["expected"] < before


def test_the_shipped_budget_of_a_pyramid_binds():
    """Most networks of the space are over each of its limits, the cheapest is within both."""
    cfg = Config.fromfile("configs/detection/nas_fpn_oneshot_budget_scenes_cpu.py")
    cfg.model.bbox_head.num_classes = 10
    networks = networks_of(cfg.model, scope="mmdet")
    space = record(networks).space
    budget = Budget(settings_of(cfg.budget), networks, {"neck": space}, TASKS.build(dict(type="detection")).input_size(cfg))
    drawn = [space.sample(random.Random(seed)) for seed in range(12)]
    for metric, limit in budget.limits.items():
        assert sum(budget.figures(one)[metric] > limit for one in drawn) > 6
    # the cells of free levels make the coarsest one
    assert budget.within(Architecture({**drawn[0], "nas_fpn/n5/level": 7, "nas_fpn/n6/level": 7}))


def test_every_map_gives_boxes_and_gets_gradients():
    torch.manual_seed(0)
    backbone = FAMILIES["mobilenet_v2"]
    model = MODELS.build(Config(faster_rcnn(backbone, list(MODELS.build(backbone).out_channels))))
    maps = [torch.randn(2, 16, 64 // s, 64 // s, requires_grad=True) for s in (4, 8, 16, 32, 64)]
    model.extract_feat = lambda images: maps
    _, [(cls, reg)] = on_fixed_boxes(model, torch.zeros(2, 3, 64, 64))
    assert cls.shape == (2000, 4) and reg.shape == (2000, 12)
    cls.sum().backward()
    # the box head reads all but the last
    assert [m.grad is not None and bool(m.grad.any()) for m in maps] == [True, True, True, True, False]


def test_a_cascade_has_its_stages_and_others_are_refused():
    box = dict(type="mmdet.Shared2FCBBoxHead", in_channels=8, fc_out_channels=8, num_classes=3, reg_class_agnostic=True)
    pool = dict(
        type="mmdet.SingleRoIExtractor",
        roi_layer=dict(type="RoIAlign", output_size=7, sampling_ratio=0),
        out_channels=8,
        featmap_strides=[4, 8],
    )
    cascade = dict(
        type="mmdet.CascadeRoIHead",
        num_stages=3,
        stage_loss_weights=[1, 0.5, 0.25],
        bbox_roi_extractor=pool,
        bbox_head=[box] * 3,
    )
    assert len(stages_of(MODELS.build(Config(cascade)))) == 3
    masks = dict(type="mmdet.FCNMaskHead", num_convs=1, in_channels=8, conv_out_channels=8, num_classes=3)
    standard = dict(type="mmdet.StandardRoIHead", bbox_roi_extractor=pool, bbox_head=box)
    with pytest.raises(UserError, match="cost of a StandardRoIHead with masks can't be counted"):
        stages_of(MODELS.build(Config(dict(standard, mask_roi_extractor=pool, mask_head=masks))))
    with pytest.raises(UserError, match="cost of a DoubleHeadRoIHead can't be counted"):
        double = dict(type="mmdet.DoubleHeadRoIHead", reg_roi_scale_factor=1.3, bbox_roi_extractor=pool, bbox_head=box)
        stages_of(MODELS.build(Config(double)))
