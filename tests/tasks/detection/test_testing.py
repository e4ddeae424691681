"""Averaging over versions, boxes as JSON and painted images, against plain predictions."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("mmdet")

import tasks.detection  # noqa: F401, I001  (before mmdet's models)
from mmcv.ops import batched_nms
from mmdet.datasets.api_wrappers import COCO
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope
from mmengine.visualization import Visualizer
from search.engine.errors import UserError
from search.registry import HOOKS, TASKS
from tests.tasks.detection.test_downstream import build, faster_rcnn, retinanet
from tests.tasks.hooked import Runner

META = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor", "flip", "flip_direction")
LOADING = [
    dict(type="LoadImageFromFile"),
    dict(type="mmdet.Resize", scale=(64, 48), keep_ratio=True),
    dict(type="mmdet.LoadAnnotations", with_bbox=True),
    dict(type="mmdet.PackDetInputs", meta_keys=META),
]


def runner_of(root, model, cfg=None):
    files = dict(ann_file="annotations/instances_val.json", data_prefix=dict(img="val/"))
    dataset = dict(type="search.CocoImages", data_root=str(root), **files, test_mode=True, pipeline=LOADING)
    return Runner(model, dataset, cfg)


def detector(kind=retinanet):
    init_default_scope("mmdet")
    return build(kind, "mobilenet_v2").eval()


def versions(*flips):
    transforms = [[LOADING[1]], [dict(type="mmdet.RandomFlip", prob=p) for p in flips], [LOADING[2]], [LOADING[3]]]
    return [LOADING[0], dict(type="TestTimeAug", transforms=transforms)]


def two_stage(backbone, in_channels):
    made = faster_rcnn(backbone, in_channels)
    # mmdet can't handle a map of one position with one anchor
    made["rpn_head"]["anchor_generator"]["ratios"] = [0.5, 1.0]
    return made


@pytest.mark.parametrize("kind", [retinanet, two_stage], ids=lambda f: f.__name__)
def test_versions_are_suppressed_together(kind, make_coco):
    model, root = detector(kind), make_coco()
    settings = kind({}, [])["test_cfg"]
    own = settings.get("rcnn", settings)
    runner = runner_of(root, model, dict(tta_pipeline=versions(0.0, 1.0), model=dict(test_cfg=settings)))
    plain = [sample.pred_instances.clone() for sample in runner.test()]
    runner.dataset.pipeline = Compose([LOADING[0], LOADING[1], dict(type="mmdet.RandomFlip", prob=1.0), *LOADING[2:]])
    mirrored = [sample.pred_instances.clone() for sample in runner.test()]
    merged = [sample.pred_instances for sample in runner.test(dict(type="search.AugmentedDetectionHook"))]
    assert runner.model is model and len(merged) == 4
    for a, b, found in zip(plain, mirrored, merged, strict=True):
        b.bboxes = torch.stack([64 - b.bboxes[:, 2], b.bboxes[:, 1], 64 - b.bboxes[:, 0], b.bboxes[:, 3]], dim=1)
        boxes, scores, labels = (torch.cat([x[key], y[key]]) for x, y in [(a, b)] for key in ("bboxes", "scores", "labels"))
        expected, kept = batched_nms(boxes, scores, labels, dict(own["nms"]))
        torch.testing.assert_close(found.bboxes, expected[:10, :4])
        assert torch.equal(found.labels, labels[kept][:10])


def test_versions_read_checked_files(make_coco):
    root = make_coco()
    runner = runner_of(root, detector(), dict(tta_pipeline=versions(0.0), model={}))
    image = root / "val" / "001.png"
    image.write_bytes(image.read_bytes()[:-300])
    with pytest.raises(UserError, match=f"cannot read {image}"):
        list(runner.test(dict(type="search.AugmentedDetectionHook")))


def test_without_versions_there_is_nothing_to_merge(make_coco):
    with pytest.raises(UserError, match="--tta: the config has no tta_pipeline"):
        list(runner_of(make_coco(), detector()).test(dict(type="search.AugmentedDetectionHook")))


def test_boxes_are_written_as_coco_reads_them(make_coco, tmp_path, capsys):
    root = make_coco()
    out = tmp_path / "new" / "boxes.json"
    (hook,) = TASKS.build(dict(type="detection")).test_hooks(str(out), None, False)
    predicted = {s.img_id: s.pred_instances.clone() for s in runner_of(root, detector()).test(hook)}
    truth = COCO(str(root / "annotations" / "instances_val.json"))
    found = truth.loadRes(str(out))
    capsys.readouterr()
    assert {entry["category_id"] for entry in found.dataset["annotations"]} <= {3, 7, 90}
    for image, boxes in predicted.items():
        entries = found.img_ann_map[image] if hasattr(found, "img_ann_map") else found.imgToAnns[image]
        corners = [[x, y, x + w, y + h] for x, y, w, h in (entry["bbox"] for entry in entries)]
        np.testing.assert_allclose(corners, boxes.bboxes.numpy(), rtol=1e-5)
        assert [entry["score"] for entry in entries] == pytest.approx(boxes.scores.tolist())
        assert [{3: 0, 7: 1, 90: 2}[entry["category_id"]] for entry in entries] == boxes.labels.tolist()
    assert len(json.loads(out.read_text())) == sum(map(len, predicted.values())) > 0
    with pytest.raises(UserError, match=r"give the name of a file that ends in \.json"):
        HOOKS.build(dict(type="search.DetectionsHook", out="boxes"))


def test_painted_images(make_coco, tmp_path):
    # as every runner has one
    Visualizer.get_instance("painted")
    (hook,) = TASKS.build(dict(type="detection")).test_hooks(None, str(tmp_path / "show"), False)
    assert len(list(runner_of(make_coco(), detector()).test(hook))) == 4
    painted = sorted((tmp_path / "show").glob("*.png"))
    # true boxes left, found ones right
    assert [path.name for path in painted] == [f"{i:03d}.png" for i in range(4)]
    assert [Image.open(path).size for path in painted] == [(128, 48)] * 4
