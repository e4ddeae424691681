"""COCO's average precision of boxes, by pycocotools."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

import numpy as np
from mmdet.datasets.api_wrappers import COCO, COCOeval
from mmdet.evaluation import CocoMetric
from mmengine.logging import MMLogger

from search.engine.errors import UserError
from search.registry import METRICS
from tasks.detection.annotations import Coco

# of pycocotools' twelve numbers the first six, by mmdet's names
_NAMES = ("bbox_mAP", "bbox_mAP_50", "bbox_mAP_75", "bbox_mAP_s", "bbox_mAP_m", "bbox_mAP_l")


@METRICS.register_module()
class BoxAP(CocoMetric):
    """mmdet's CocoMetric of boxes with COCO's own settings (100 boxes an image), on the images that were scored.

    mmdet's scores count all images of the annotation file, also those outside of a split, have three digits, and are missing
    where nothing was detected at all, as at the start of a training. Here an image counts when it was predicted, scores aren't
    rounded, and without detections they are 0. They are in percent, as papers print them; -1, as in COCO, where there is no
    box of a size to be found.

    Args:
        ann_file: the annotation file; the task's adapter writes that of the data.
        classwise: also each class's average precision, ``<class>_precision``.
        collect_device, prefix: as mmdet's; the prefix is 'coco'.

    Raises UserError for a file that isn't COCO's, one that lacks a class of the data set, and where no image has a box.
    """

    def __init__(self, ann_file: str, classwise: bool = False, collect_device: str = "cpu", prefix: str | None = None) -> None:
        super().__init__(metric="bbox", classwise=classwise, collect_device=collect_device, prefix=prefix)
        # as mmdet's, which also prints while it reads
        self._coco_api = Coco(ann_file, masks=False)

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of the scores, without the prefix; known before anything is scored."""
        return _NAMES

    def compute_metrics(self, results: list[tuple[dict, dict]]) -> dict[str, float]:
        """Scores of (ground truth, prediction) of images, as mmdet's CocoMetric collects them."""
        predictions = [prediction for _, prediction in results]
        classes = self.dataset_meta["classes"]
        cat_ids = self._coco_api.get_cat_ids(cat_names=classes)
        found = [box for prediction in predictions for box in detections(prediction, cat_ids)]
        evaluation = self._evaluated(found, [prediction["img_id"] for prediction in predictions], cat_ids)
        scores = dict(zip(_NAMES, map(_percent, evaluation.stats), strict=False))
        if self.classwise:
            # [thresholds, recalls, classes, areas, limits]: all areas, 100 boxes
            precision = evaluation.eval["precision"][..., 0, -1]
            for number, name in enumerate(classes):
                own = precision[:, :, number]
                scores[f"{name}_precision"] = _percent(own[own > -1].mean() if (own > -1).any() else -1)
        return scores

    def _evaluated(self, found: list[dict], images: Sequence, cat_ids: Sequence) -> COCOeval:
        truth = self._coco_api
        wanted = set(cat_ids)
        boxes = (entry for image in images for entry in truth.img_ann_map[image])
        if not any(entry["category_id"] in wanted and not entry["iscrowd"] for entry in boxes):
            raise UserError(
                f"none of the {len(images)} scored images has a box in {truth.path}, so there is no precision of them"
            )
        with redirect_stdout(StringIO()) as table:
            evaluation = COCOeval(truth, truth.loadRes(found) if found else _nothing(truth), "bbox")
            evaluation.params.catIds, evaluation.params.imgIds = list(cat_ids), list(images)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        summary = [line for line in table.getvalue().splitlines() if line.startswith(" Average")]
        MMLogger.get_current_instance().debug("\n".join(["boxes:", *summary]))
        return evaluation


def detections(prediction: dict[str, Any], cat_ids: Sequence) -> list[dict]:
    """An image's boxes in COCO's format of results.

    ``prediction``: 'img_id', and arrays 'bboxes' [N, 4] (left, top, right, bottom), 'scores' [N], 'labels' [N].
    """
    corners = np.asarray(prediction["bboxes"], np.float64).reshape(-1, 4)
    boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1).tolist()
    rows = zip(boxes, prediction["scores"].tolist(), prediction["labels"].tolist(), strict=True)
    image = prediction["img_id"]
    return [dict(image_id=image, category_id=cat_ids[label], bbox=box, score=score) for box, score, label in rows]


def _percent(share: float) -> float:
    return 100.0 * float(share) if share >= 0 else -1.0


def _nothing(truth: Coco) -> COCO:
    # pycocotools can't load an empty list
    empty = COCO()
    empty.dataset = {**truth.dataset, "annotations": []}
    empty.createIndex()
    return empty
