"""mmseg's intersection over union, and beside it the mean over the classes that the ground truth has."""

from __future__ import annotations

from collections.abc import Sequence

from mmseg.evaluation import IoUMetric

from search.engine.errors import UserError
from search.registry import METRICS

_KEYS = {"mIoU": ("mIoU", "mAcc"), "mDice": ("mDice", "mAcc"), "mFscore": ("mFscore", "mPrecision", "mRecall")}


@METRICS.register_module()
class MeanIoU(IoUMetric):
    """mmseg's IoUMetric with one score more, ``mIoU_present``, in percent.

    mmseg's ``mIoU`` leaves out a class that neither labels nor predictions have, and counts 0 for one that a single pixel was
    mistaken for: where labels lack classes, its denominator depends on the mistakes. ``mIoU_present`` is the mean over the
    classes that at least one label has. Unlike mmseg's scores it isn't rounded.

    Args:
        iou_metrics: of mmseg's 'mIoU', 'mDice', 'mFscore'; ``mIoU_present`` comes with 'mIoU'.
        ignore_index, collect_device, prefix: as mmseg's.

    Raises UserError for another iou_metrics, and where no label of all images is a class.
    """

    def __init__(
        self,
        iou_metrics: Sequence[str] = ("mIoU",),
        ignore_index: int = 255,
        collect_device: str = "cpu",
        prefix: str | None = None,
    ) -> None:
        wanted = [iou_metrics] if isinstance(iou_metrics, str) else list(iou_metrics)
        if not wanted or not set(wanted) <= _KEYS.keys():
            raise UserError(f"iou_metrics={iou_metrics!r}: known are {', '.join(_KEYS)}")
        super().__init__(ignore_index=ignore_index, iou_metrics=wanted, collect_device=collect_device, prefix=prefix)

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of the scores, without the prefix; known before anything is scored."""
        names = [key for metric in self.metrics for key in _KEYS[metric]]
        if "mIoU" in self.metrics:
            names.insert(0, "mIoU_present")
        return tuple(dict.fromkeys(["aAcc", *names]))

    def compute_metrics(self, results: list) -> dict[str, float]:
        """mmseg's scores and ``mIoU_present``. ``results``: for each image four counts of pixels by class, each [K]."""
        # in double precision: mmseg's single one can't count beyond 2^24 pixels of a class
        intersections, unions, _, labels = (sum(c.double() for c in counts) for counts in zip(*results, strict=True))
        present = labels > 0
        if not present.any():
            raise UserError(f"every label of the {len(results)} images is ignored, so there is nothing to score")
        scores = {key: float(value) for key, value in super().compute_metrics(results).items()}
        if "mIoU" in self.metrics:
            scores["mIoU_present"] = 100.0 * float((intersections[present] / unions[present]).mean())
        return scores
