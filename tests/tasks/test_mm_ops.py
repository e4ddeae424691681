"""torchvision's operations under mmcv's names: equal to references, gradients included, and clear where there are none."""

import sys

import pytest
import torch
import torchvision

from tasks import mm_ops
from tasks.mm_ops.__main__ import main
from tests.devices import on_every_device
from tests.tasks.scripts import WITH_OPERATIONS, python

mm_ops.install()
mmcv_ops = pytest.importorskip("mmcv.ops")
stands_in = sys.modules["mmcv._ext"].__spec__.origin == mm_ops.__name__
pytestmark = [pytest.mark.upstream, pytest.mark.skipif(not stands_in, reason="mmcv is compiled here")]


def boxes(n: int, seed: int = 0) -> torch.Tensor:
    """[n, 4] boxes within 32 pixels, at least 2 wide and high."""
    corner, size = torch.rand(2, n, 2, generator=torch.Generator().manual_seed(seed))
    return torch.cat([corner * 20, corner * 20 + 2 + size * 10], dim=1)


def brute_force_nms(boxes: list, scores: list, threshold: float, offset: int) -> list[int]:
    def overlap(a, b):
        w, h = (max(min(a[k + 2], b[k + 2]) - max(a[k], b[k]) + offset, 0) for k in (0, 1))
        areas = [(c[2] - c[0] + offset) * (c[3] - c[1] + offset) for c in (a, b)]
        return w * h / (sum(areas) - w * h)

    kept = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        if all(overlap(boxes[i], boxes[j]) <= threshold for j in kept):
            kept.append(i)
    return kept


@on_every_device
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("threshold", [0.2, 0.6])
def test_nms_equals_brute_force(offset, threshold, device):
    given, scores = boxes(60).to(device), torch.rand(60, generator=torch.Generator().manual_seed(1)).to(device)
    kept, indices = mmcv_ops.nms(given, scores, threshold, offset=offset)
    expected = brute_force_nms(given.tolist(), scores.tolist(), threshold, offset)
    assert indices.tolist() == expected and 5 < len(expected) < 60
    assert torch.equal(kept, torch.cat([given, scores[:, None]], 1)[expected])


def test_an_offset_of_one_pixel_changes_what_is_kept():
    # 1/7 of the areas overlap; as pixels 4/14
    pair, scores = torch.tensor([[0.0, 0, 2, 2], [1, 1, 3, 3]]), torch.tensor([0.9, 0.8])
    assert len(mmcv_ops.nms(pair, scores, 0.2)[1]) == 2
    assert len(mmcv_ops.nms(pair, scores, 0.2, offset=1)[1]) == 1


def test_nms_of_half_precision_and_of_nothing():
    assert mmcv_ops.nms(boxes(4), torch.rand(4).half(), 0.5)[1].dtype == torch.int64
    assert len(mmcv_ops.nms(torch.zeros(0, 4), torch.zeros(0), 0.5)[1]) == 0


@on_every_device
def test_batched_nms_keeps_classes_apart(device):
    same = boxes(1).expand(3, 4).to(device)
    scores, classes = torch.tensor([0.5, 0.9, 0.7], device=device), torch.tensor([0, 0, 1], device=device)
    cfg = dict(type="nms", iou_threshold=0.5)
    kept, indices = mmcv_ops.batched_nms(same, scores, classes, cfg)
    assert indices.tolist() == [1, 2] and torch.equal(kept[:, 4], scores[[1, 2]])
    assert mmcv_ops.batched_nms(same, scores, classes, cfg, class_agnostic=True)[1].tolist() == [1]


@on_every_device
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_sigmoid_focal_loss_equals_its_formula(weighted, reduction, device):
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(5, 3, generator=generator, dtype=torch.float64).to(device)
    # class 3 is the background; weights are looked up by class, and mmcv takes none for it
    target = torch.tensor([0, 1, 2, 2 if weighted else 3, 1], device=device)
    weight = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64, device=device) if weighted else None
    gamma, alpha = 1.5, 0.3

    def formula(x):
        p, positive = x.sigmoid(), target[:, None] == torch.arange(3, device=device)
        loss = torch.where(positive, -alpha * (1 - p) ** gamma * p.log(), -(1 - alpha) * p**gamma * (1 - p).log())
        loss = loss * weight[target][:, None] if weighted else loss
        return {"none": loss, "sum": loss.sum(), "mean": loss.sum() / 5}[reduction]

    mine, reference = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    got = mmcv_ops.sigmoid_focal_loss(mine, target, gamma, alpha, weight, reduction)
    expected = formula(reference)
    torch.testing.assert_close(got, expected)
    got.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(mine.grad, reference.grad)
    assert mine.grad.abs().min() > 0


@on_every_device
@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_roi_align_equals_torchvision(aligned, sampling_ratio, device):
    layers = [mmcv_ops.RoIAlign(3, 0.5, sampling_ratio, aligned=aligned, use_torchvision=tv) for tv in (False, True)]
    rois = torch.cat([torch.tensor([[0.0], [1], [1]]), boxes(3)], dim=1).to(device)
    weight = torch.randn(3, 2, 3, 3, device=device)
    results = []
    for layer in layers:
        features = torch.arange(2 * 2 * 16 * 16.0, device=device).reshape(2, 2, 16, 16).sin().requires_grad_()
        output = layer(features, rois)
        (output * weight).sum().backward()
        results.append((output, features.grad))
    assert results[0][0].abs().max() > 0.1 and results[0][1].abs().max() > 0
    torch.testing.assert_close(results[0], results[1])


@on_every_device
def test_roi_pool_equals_torchvision(device):
    rois = torch.cat([torch.tensor([[0.0], [1]]), boxes(2)], dim=1).to(device)
    weight = torch.randn(2, 2, 3, 3, device=device)
    results = []
    for pool in (mmcv_ops.RoIPool(3, 0.5), torchvision.ops.RoIPool(3, 0.5)):
        features = torch.arange(2 * 2 * 16 * 16.0, device=device).reshape(2, 2, 16, 16).sin().requires_grad_()
        output = pool(features, rois)
        (output * weight).sum().backward()
        results.append((output, features.grad))
    torch.testing.assert_close(results[0], results[1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layer", [mmcv_ops.RoIAlign, mmcv_ops.RoIPool])
def test_boxes_are_pooled_in_16_bits_both_ways(layer, dtype):
    # values that 16 bits hold, so that the precision inside is all that may differ
    rois = torch.cat([torch.tensor([[0.0], [1]]), boxes(2).round()], dim=1)
    source = torch.arange(2 * 2 * 16 * 16.0).reshape(2, 2, 16, 16) % 64
    results = []
    for features in (source.to(dtype), source):
        features = features.requires_grad_()
        output = layer(3, 0.5)(features, rois.to(features.dtype))
        output.sum().backward()
        assert output.dtype == features.grad.dtype == features.dtype
        results.append((output.float(), features.grad.float()))
    torch.testing.assert_close(results[0], results[1], rtol=1e-2, atol=1e-2)


def test_an_operation_that_torchvision_lacks_says_what_it_needs():
    with pytest.raises(RuntimeError, match=r"operation 'softnms' needs a compiled mmcv .*mmcv\._ext.* isn't installed"):
        mmcv_ops.soft_nms(boxes(2), torch.rand(2))
    with pytest.raises(RuntimeError, match="RoIAlign with pool_mode='max' needs a compiled mmcv"):
        mmcv_ops.RoIAlign(2, pool_mode="max")(torch.rand(1, 1, 8, 8), torch.tensor([[0.0, 0, 0, 4, 4]]))
    with pytest.raises(AttributeError):
        _ = sys.modules["mmcv._ext"].__path__


def test_installing_twice_is_installing_once():
    before = list(sys.meta_path)
    mm_ops.install()
    assert sys.meta_path == before and before.count(mm_ops.FINDER) == 1


@pytest.mark.skipif(bool(WITH_OPERATIONS), reason="upstream's mmdet.apis can't be imported before ours with mmcv-lite")
def test_a_fresh_interpreter_has_mmdet_and_mmseg_and_reports_its_environment():
    pytest.importorskip("mmdet")
    pytest.importorskip("mmseg")
    out = python(
        "-c",
        # as a user's script: mmdet's and mmseg's first modules before ours
        "import mmdet.apis, mmseg.apis\n"
        "import tasks.detection, tasks.segmentation\n"
        "import mmdet.models, mmseg.models, mmcv.ops\n"
        "import mmdet.apis.inference, mmseg.models.losses.focal_loss, mmdet.structures.mask.structures\n"
        "assert mmdet.apis.inference.RoIPool is mmcv.ops.RoIPool\n"
        "assert mmdet.structures.mask.structures.roi_align is mmcv.ops.roi_align\n"
        "assert mmseg.models.losses.focal_loss._sigmoid_focal_loss is mmcv.ops.sigmoid_focal_loss\n"
        "from mmengine.utils.dl_utils import collect_env\n"
        "from mmcv.utils import collect_env as collect_all\n"
        "assert collect_env()['PyTorch']\n"
        "print(collect_all()['MMCV Compiler'])\n",
    )
    assert f"torchvision {torchvision.__version__} stands in" in out


def test_a_script_has_the_operations_from_its_start(tmp_path):
    pytest.importorskip("mmdet")
    (tmp_path / "beside.py").write_text("FOUND = 7\n")
    script = tmp_path / "script.py"
    script.write_text("import sys\nimport mmdet.apis\nimport beside\nprint(__name__, sys.argv[1:], beside.FOUND)\n")
    out = python("-m", "tasks.mm_ops", script, "a", "--b", cwd=tmp_path.parent)
    assert "__main__ ['a', '--b'] 7" in out


@pytest.mark.parametrize("arguments", [[], ["nowhere.py", "a"]])
def test_a_missing_script_is_named(arguments, capsys):
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert "python -m tasks.mm_ops SCRIPT" in said and (not arguments or "no script 'nowhere.py'" in said)


@pytest.mark.slow
def test_our_registry_finds_models_of_mmdet_by_itself():
    pytest.importorskip("mmdet")
    assert "RetinaHead" in python("-c", "from search.registry import MODELS\nprint(MODELS.get('mmdet.RetinaHead'))")


def test_compiled_operations_are_left_alone(tmp_path):
    # a package of mmcv's name with an extension of its own
    (tmp_path / "mmcv").mkdir()
    (tmp_path / "mmcv" / "__init__.py").touch()
    (tmp_path / "mmcv" / "_ext.py").write_text("def nms(): return 'compiled'\n")
    source = "import mmcv, tasks.mm_ops\nfrom mmcv import _ext\nprint(_ext.nms(), hasattr(_ext, 'softnms'))"
    assert python("-c", source, path=tmp_path).splitlines()[-1] == "compiled False"


def test_without_mmcv_nothing_happens(tmp_path):
    (tmp_path / "mmcv.py").write_text("raise ModuleNotFoundError('no mmcv')\n")
    source = "import sys, tasks.mm_ops\nprint('mmcv' in sys.modules)"
    assert python("-c", source, path=tmp_path).splitlines()[-1] == "False"
