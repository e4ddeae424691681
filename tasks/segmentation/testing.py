"""What a test run can do beside its scores: averaging over scales and mirror images, label maps, painted images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dataset import Compose
from mmengine.hooks import Hook
from mmseg.datasets import BaseSegDataset
from mmseg.engine.hooks import SegVisualizationHook
from mmseg.models.segmentors import SegTTAModel
from mmseg.visualization import SegLocalVisualizer
from PIL import Image

from search.engine.errors import UserError
from search.registry import HOOKS


@HOOKS.register_module()
class AugmentedTestHook(Hook):
    """Tests by mmseg's SegTTAModel: the mean of probabilities over the config's ``tta_pipeline``, as mmseg's ``--tta``.

    Raises UserError for a config without a ``tta_pipeline``.
    """

    # before hooks that look at the model, such as EMA's
    priority = "VERY_HIGH"

    def before_test(self, runner: Any) -> None:
        """Wrap the model and give the test data the pipeline of many versions."""
        pipeline = runner.cfg.get("tta_pipeline")
        if pipeline is None:
            raise UserError("--tta: the config has no tta_pipeline, which says at which scales an image is tested")
        dataset = _whole(runner, "--tta")
        dataset.pipeline = Compose(pipeline)
        runner.model = SegTTAModel(module=runner.model)

    def after_test(self, runner: Any) -> None:
        """Unwrap it."""
        runner.model = runner.model.module


@HOOKS.register_module()
class LabelMapsHook(Hook):
    """Writes every prediction as a PNG file of class numbers, under the image's name below the data's image folder, without
    its suffix.

    ``out``: a folder. Raises UserError for a name that ends like a file's.
    """

    def __init__(self, out: str):
        if Path(out).suffix in (".json", ".pkl", ".png"):
            raise UserError(f"--out {out}: predictions of a segmentation are many files, give the name of a folder")
        self.out = Path(out)

    def before_test(self, runner: Any) -> None:
        """Find out early whether the folder can be written to."""
        self._data = _whole(runner, "--out")
        self.out.mkdir(parents=True, exist_ok=True)

    def after_test_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Sequence | None = None) -> None:
        """Write a batch's."""
        for sample in outputs or ():
            name = Path(sample.img_path).relative_to(self._data.data_prefix["img_path"]).as_posix()
            name = name.removesuffix(self._data.img_suffix) + ".png"
            (self.out / name).parent.mkdir(parents=True, exist_ok=True)
            labels = sample.pred_sem_seg.data.squeeze().cpu().numpy().astype(np.uint8)
            Image.fromarray(labels).save(self.out / name)


@HOOKS.register_module()
class PaintedImagesHook(SegVisualizationHook):
    """Writes every image painted with its labels (left) and with its predictions (right): mmseg's own drawing.

    ``show_dir``: a folder, which gets a file ``test_<image>_<number>.png`` for each.
    """

    def __init__(self, show_dir: str):
        super().__init__(draw=True)
        self.show_dir = show_dir

    def before_test(self, runner: Any) -> None:
        """A visualiser that writes to the folder, with the data's classes and colours."""
        Path(self.show_dir).mkdir(parents=True, exist_ok=True)
        here = dict(type="LocalVisBackend", save_dir=self.show_dir, img_save_dir="")
        self._visualizer = SegLocalVisualizer(vis_backends=[here], save_dir=self.show_dir)
        self._visualizer.dataset_meta = runner.test_dataloader.dataset.metainfo

    def after_val_iter(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: only tests are drawn."""


def _whole(runner: Any, option: str) -> BaseSegDataset:
    """The test data. UserError where they are put together of several data sets, or repeated."""
    dataset = runner.test_dataloader.dataset
    if not isinstance(dataset, BaseSegDataset):
        raise UserError(f"{option} reads one data set of mmseg's kind, but test_dataloader has a {type(dataset).__name__}")
    return dataset
