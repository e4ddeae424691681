import pytest
import torch

from search.registry import METRICS


def brute_force(scores, labels, k):
    hits = 0
    for row, label in zip(scores.tolist(), labels.tolist(), strict=True):
        order = sorted(range(len(row)), key=lambda c: (-row[c], c))
        hits += label in order[:k]
    return 100 * hits / len(labels)


def test_topk_equals_brute_force_with_ties():
    generator = torch.Generator().manual_seed(0)
    # few distinct scores, so ties are common
    scores = torch.randint(0, 4, (200, 7), generator=generator).float()
    labels = torch.randint(0, 7, (200,), generator=generator)
    metric = METRICS.build(dict(type="search.TopK", topk=(1, 3, 5)))
    samples = [{"scores": s, "label": int(t)} for s, t in zip(scores, labels, strict=True)]
    metric.process({}, samples[:150])
    metric.process({}, samples[150:])
    found = metric.evaluate(200)
    assert found == pytest.approx({f"top{k}": brute_force(scores, labels, k) for k in (1, 3, 5)})
    assert found["top1"] < found["top3"] < found["top5"]


def test_not_a_number_is_never_right():
    metric = METRICS.build(dict(type="search.TopK", topk=(1, 2)))
    metric.process({}, [{"scores": torch.full((3,), float("nan")), "label": 0}])
    assert metric.evaluate(1) == {"top1": 0.0, "top2": 0.0}


def test_top5_of_three_classes_is_refused():
    metric = METRICS.build(dict(type="search.TopK"))
    with pytest.raises(ValueError, match="top5 of 3 classes"):
        metric.process({}, [{"scores": torch.zeros(3), "label": 0}])
