"""Top-k accuracy in percent."""

from collections.abc import Sequence

import torch
from mmengine.evaluator import BaseMetric

from search.registry import METRICS


@METRICS.register_module()
class TopK(BaseMetric):
    """The share of images, in percent, whose class is among the k highest scores: {'top1': .., 'top5': ..}.

    Reads the classifier's predictions: dicts with 'scores' (float [classes]) and 'label' (int). Among equal
    scores the lower class number ranks higher. Raises ValueError for a k above the number of classes.
    """

    def __init__(self, topk: Sequence[int] = (1, 5), collect_device: str = "cpu", prefix: str | None = None):
        super().__init__(collect_device=collect_device, prefix=prefix)
        if not topk or any(k < 1 for k in topk):
            raise ValueError(f"topk={topk!r} must be positive numbers, for instance (1, 5)")
        self.topk = tuple(topk)

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of the scores, without the prefix; known before anything is scored."""
        return tuple(f"top{k}" for k in self.topk)

    def process(self, data_batch: object, data_samples: Sequence[dict]) -> None:
        """Keep each image's rank of the true class (0 is best)."""
        if not data_samples:
            return
        scores = torch.stack([sample["scores"] for sample in data_samples])
        labels = torch.tensor([int(sample["label"]) for sample in data_samples], device=scores.device)[:, None]
        classes = scores.shape[1]
        if max(self.topk) > classes:
            raise ValueError(f"top{max(self.topk)} of {classes} classes says nothing; set val_evaluator.topk lower")
        true = scores.gather(1, labels)
        lower = torch.arange(classes, device=scores.device)[None] < labels
        ahead = (scores > true) | ((scores == true) & lower)
        # a score that isn't a number is never right
        rank = torch.where(true.isnan()[:, 0], classes, ahead.sum(1))
        self.results.extend(rank.tolist())

    def compute_metrics(self, results: list[int]) -> dict[str, float]:
        """Percent of ranks below each k."""
        ranks = torch.tensor(results)
        return {f"top{k}": 100.0 * float((ranks < k).double().mean()) for k in self.topk}
