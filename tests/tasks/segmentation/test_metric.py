import pytest
import torch
from mmengine.logging import MMLogger

pytest.importorskip("mmseg")

import tasks.segmentation  # noqa: F401, I001  (before mmseg's models)
from mmseg.evaluation import IoUMetric
from search.engine.errors import UserError
from search.registry import METRICS


def scores(metric, labels, predictions, classes=4):
    metric.dataset_meta = {"classes": [str(i) for i in range(classes)]}
    MMLogger.get_instance("iou", log_level="ERROR")
    for label, prediction in zip(labels, predictions, strict=True):
        sample = {"gt_sem_seg": {"data": label}, "pred_sem_seg": {"data": prediction}}
        metric.process({}, [sample])
    return metric.evaluate(len(labels))


def build(**settings):
    return METRICS.build(dict(type="search.MeanIoU", **settings))


def test_a_class_that_labels_lack_counts_in_mmsegs_mean_only():
    # labels have 0 and 1; one pixel is mistaken for 2; nobody mentions 3; one pixel is ignored
    label, prediction = torch.tensor([[0, 0, 0, 1, 1, 255]]), torch.tensor([[0, 0, 2, 1, 1, 3]])
    found = scores(build(), [label], [prediction])
    assert found["mIoU"] == pytest.approx(100 * (2 / 3 + 1 + 0) / 3, abs=0.01)
    assert found["mIoU_present"] == pytest.approx(100 * (2 / 3 + 1) / 2)


def test_mmsegs_scores_stay_and_images_add_up():
    generator = torch.Generator().manual_seed(0)
    labels, predictions = (torch.randint(0, 4, (5, 1, 8, 9), generator=generator) for _ in range(2))
    found, mmsegs = scores(build(), labels, predictions), scores(IoUMetric(), labels, predictions)
    assert {key: found[key] for key in mmsegs} == pytest.approx(mmsegs)
    inter = [((labels == k) & (predictions == k)).sum() for k in range(4)]
    union = [((labels == k) | (predictions == k)).sum() for k in range(4)]
    assert found["mIoU_present"] == pytest.approx(100 * sum(float(i / u) for i, u in zip(inter, union, strict=True)) / 4)


def test_scores_are_known_beforehand():
    label = torch.zeros(1, 2, 2, dtype=torch.long)
    for wanted in ("mIoU", ["mIoU", "mDice"], ["mFscore"]):
        metric = build(iou_metrics=wanted)
        assert set(scores(metric, [label], [label])) == set(metric.keys)


def test_mistakes_are_told():
    with pytest.raises(UserError, match=r"iou_metrics='mIou': known are mIoU, mDice, mFscore"):
        build(iou_metrics="mIou")
    ignored = torch.full((1, 2, 2), 255)
    with pytest.raises(UserError, match="every label of the 1 images is ignored"):
        scores(build(), [ignored], [torch.zeros(1, 2, 2, dtype=torch.long)])
