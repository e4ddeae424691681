"""What a test run can do beside its scores: averaging over scales and mirror images, boxes as JSON, painted images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mmcv
from mmdet.engine.hooks import DetVisualizationHook
from mmdet.models.test_time_augs import DetTTAModel
from mmdet.visualization import DetLocalVisualizer
from mmengine.config import ConfigDict
from mmengine.dataset import Compose
from mmengine.fileio import get
from mmengine.hooks import Hook

from search.engine.checkpoint import write_json
from search.engine.errors import UserError
from search.registry import HOOKS
from tasks.detection.annotations import Coco
from tasks.detection.metric import detections
from tasks.image_files import checked

# of a detector that names no suppression of its own, as mmdet's script for tests
_SUPPRESSION = dict(nms=dict(type="nms", iou_threshold=0.5), max_per_img=100)


@HOOKS.register_module()
class AugmentedDetectionHook(Hook):
    """Tests by mmdet's DetTTAModel: boxes of all versions of an image in the config's ``tta_pipeline``, suppressed together.

    Suppression and the number of boxes an image are the detector's own, of ``model.test_cfg``. Raises UserError for a config
    without a ``tta_pipeline``.
    """

    # before hooks that look at the model, such as EMA's
    priority = "VERY_HIGH"

    def before_test(self, runner: Any) -> None:
        """Wrap the model and give the test data the pipeline of many versions."""
        pipeline = runner.cfg.get("tta_pipeline")
        if pipeline is None:
            raise UserError("--tta: the config has no tta_pipeline, which says at which scales an image is tested")
        runner.test_dataloader.dataset.pipeline = checked(Compose(pipeline))
        own = runner.cfg.model.get("test_cfg") or {}
        own = own.get("rcnn", own)
        settings = {key: own.get(key, value) for key, value in _SUPPRESSION.items()}
        runner.model = DetTTAModel(tta_cfg=ConfigDict(settings), module=runner.model)

    def after_test(self, runner: Any) -> None:
        """Unwrap it."""
        runner.model = runner.model.module


@HOOKS.register_module()
class DetectionsHook(Hook):
    """Writes all boxes that were found to a file in COCO's format of results, which pycocotools' ``loadRes`` reads.

    Images and categories have the annotation file's ids. ``out``: a file's name that ends in ``.json``; UserError for another.
    """

    def __init__(self, out: str):
        if Path(out).suffix != ".json":
            raise UserError(f"--out {out}: boxes are written as JSON, give the name of a file that ends in .json")
        self.out = Path(out)

    def before_test(self, runner: Any) -> None:
        """Find out early whether the file can be written; the numbers of classes in it."""
        self.out.parent.mkdir(parents=True, exist_ok=True)
        dataset = runner.test_dataloader.dataset
        self._cat_ids = Coco(dataset.ann_file, masks=False).get_cat_ids(cat_names=dataset.metainfo["classes"])
        self._found: list[dict] = []

    def after_test_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Sequence | None = None) -> None:
        """Keep a batch's."""
        for sample in outputs or ():
            predicted = sample.pred_instances.cpu().numpy()
            arrays = {key: predicted[key] for key in ("bboxes", "scores", "labels")}
            self._found += detections(dict(arrays, img_id=sample.img_id), self._cat_ids)

    def after_test(self, runner: Any) -> None:
        """Write them."""
        write_json(self.out, self._found)


@HOOKS.register_module()
class PaintedBoxesHook(DetVisualizationHook):
    """Writes every image with its true boxes (left) and those that were found with a score of at least 0.3 (right).

    ``show_dir``: a folder, in which an image has the name that it has below the data's image folder. mmdet's own drawing.
    """

    def __init__(self, show_dir: str):
        super().__init__(draw=True)
        self.show_dir = Path(show_dir)

    def before_test(self, runner: Any) -> None:
        """A visualiser with the data's classes and colours."""
        self.show_dir.mkdir(parents=True, exist_ok=True)
        self._visualizer = DetLocalVisualizer(vis_backends=[], save_dir=str(self.show_dir))
        self._visualizer.dataset_meta = runner.test_dataloader.dataset.metainfo
        self._images = runner.test_dataloader.dataset.data_prefix["img"]

    def after_test_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Sequence | None = None) -> None:
        """Draw a batch's."""
        for sample in outputs or ():
            file = self.show_dir / Path(sample.img_path).relative_to(self._images)
            file.parent.mkdir(parents=True, exist_ok=True)
            image = mmcv.imfrombytes(get(sample.img_path, backend_args=self.backend_args), channel_order="rgb")
            self._visualizer.add_datasample(file.name, image, sample, pred_score_thr=self.score_thr, out_file=str(file))

    def after_val_iter(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: only tests are drawn."""
