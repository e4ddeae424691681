"""Average precision against mmdet's on the same boxes, and where mmdet's has none."""

import json

import numpy as np
import pytest
import torch

pytest.importorskip("mmdet")

import tasks.detection  # noqa: F401, I001  (before mmdet's models)
from mmdet.evaluation import CocoMetric
from mmengine.logging import MMLogger
from search.engine.errors import UserError
from search.registry import METRICS

CLASSES = ("dot", "square", "ring")


@pytest.fixture
def truth(make_coco):
    return make_coco(val=8) / "annotations" / "instances_val.json"


def predictions(file, images=8, seed=0, wrong=0.3):
    """Boxes near the true ones, some with a wrong class, some doubled; as a detector hands them over."""
    rng = np.random.default_rng(seed)
    content = json.loads(file.read_text())
    labels = {category["id"]: CLASSES.index(category["name"]) for category in content["categories"]}
    samples = []
    for image in content["images"][:images]:
        own = [entry for entry in content["annotations"] if entry["image_id"] == image["id"]] * 2
        boxes = np.array([entry["bbox"] for entry in own], float).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        found = dict(
            bboxes=torch.tensor(boxes + rng.normal(0, 1.5, boxes.shape)),
            scores=torch.tensor(rng.random(len(own))),
            labels=torch.tensor([(labels[e["category_id"]] + int(rng.random() < wrong)) % 3 for e in own], dtype=torch.long),
        )
        samples.append(dict(pred_instances=found, img_id=image["id"], ori_shape=(image["height"], image["width"])))
    return samples


def scored(metric, samples, classes=CLASSES):
    MMLogger.get_instance("metric")
    metric.dataset_meta = dict(classes=classes)
    metric.process({}, samples)
    return metric.evaluate(len(samples))


def test_scores_are_mmdets_times_hundred_and_not_rounded(truth, capsys):
    samples = predictions(truth)
    ours = METRICS.build(dict(type="search.BoxAP", ann_file=str(truth), classwise=True))
    found = scored(ours, samples)
    theirs = scored(CocoMetric(ann_file=str(truth), classwise=True), samples)
    capsys.readouterr()
    assert list(found) == [f"coco/{key}" for key in ours.keys] + [f"coco/{name}_precision" for name in CLASSES]
    assert 0 < found["coco/bbox_mAP"] < found["coco/bbox_mAP_50"] < 100
    for key, value in theirs.items():
        expected = -1 if value == -1 else 100 * value
        assert found[key] == pytest.approx(expected, abs=0.051)
    assert any(abs(value - round(value, 1)) > 0.01 for value in found.values())


def test_perfect_boxes_score_hundred(truth):
    samples = predictions(truth, wrong=0.0)
    content = json.loads(truth.read_text())
    for sample in samples:
        own = np.array([e["bbox"] for e in content["annotations"] if e["image_id"] == sample["img_id"]] * 2, float)
        own[:, 2:] += own[:, :2]
        # the doubles come after
        sample["pred_instances"].update(bboxes=torch.tensor(own), scores=torch.linspace(1, 0.1, len(own)))
    assert scored(METRICS.build(dict(type="search.BoxAP", ann_file=str(truth))), samples)["coco/bbox_mAP"] == pytest.approx(100)


def test_only_images_that_were_predicted_count(truth):
    samples = predictions(truth, images=3)
    half = scored(METRICS.build(dict(type="search.BoxAP", ann_file=str(truth))), samples)
    # against a file of these images alone
    content = json.loads(truth.read_text())
    content["images"] = content["images"][:3]
    kept = {image["id"] for image in content["images"]}
    content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] in kept]
    alone = truth.with_name("three.json")
    alone.write_text(json.dumps(content))
    assert half == scored(METRICS.build(dict(type="search.BoxAP", ann_file=str(alone))), samples)
    assert half["coco/bbox_mAP"] > scored(CocoMetric(ann_file=str(truth)), samples)["coco/bbox_mAP"] * 100


def test_nothing_found_is_zero(truth):
    samples = predictions(truth)
    for sample in samples:
        sample["pred_instances"] = {key: value[:0] for key, value in sample["pred_instances"].items()}
    found = scored(METRICS.build(dict(type="search.BoxAP", ann_file=str(truth))), samples)
    assert found["coco/bbox_mAP"] == 0 and set(found.values()) <= {0.0, -1.0}
    # mmdet gives no score at all
    assert "coco/bbox_mAP" not in scored(CocoMetric(ann_file=str(truth)), samples)


def test_a_match_with_the_first_annotation_counts(truth):
    content = json.loads(truth.read_text())
    for number, entry in enumerate(content["annotations"]):
        entry["id"] = number
    truth.write_text(json.dumps(content))
    zero = scored(METRICS.build(dict(type="search.BoxAP", ann_file=str(truth))), predictions(truth))
    for entry in content["annotations"]:
        entry["id"] += 1
    truth.write_text(json.dumps(content))
    assert zero == scored(METRICS.build(dict(type="search.BoxAP", ann_file=str(truth))), predictions(truth))


def test_classes_in_another_order_and_too_few(truth):
    samples = predictions(truth)
    straight = scored(METRICS.build(dict(type="search.BoxAP", ann_file=str(truth))), samples)
    for sample in samples:
        sample["pred_instances"]["labels"] = 2 - sample["pred_instances"]["labels"]
    assert scored(METRICS.build(dict(type="search.BoxAP", ann_file=str(truth))), samples, CLASSES[::-1]) == straight
    with pytest.raises(UserError, match="has no category 'bird'"):
        scored(METRICS.build(dict(type="search.BoxAP", ann_file=str(truth))), samples, ("bird",))


def test_images_without_boxes_have_no_precision(truth):
    content = json.loads(truth.read_text())
    first = content["images"][0]["id"]
    content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] != first]
    samples = predictions(truth, images=1)
    truth.write_text(json.dumps(content))
    with pytest.raises(UserError, match="none of the 1 scored images has a box"):
        scored(METRICS.build(dict(type="search.BoxAP", ann_file=str(truth))), samples)
