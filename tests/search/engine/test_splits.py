from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.engine import splits

SEARCH = {"weights": 0.45, "architecture": 0.45, "validation": 0.1}


@given(
    counts=st.lists(st.integers(3, 60), min_size=1, max_size=6),
    fractions=st.sampled_from(
        [SEARCH, {"weights": 0.5, "architecture": 0.5, "validation": 0.0}, {"train": 0.9, "validation": 0.1}]
    ),
    seed=st.integers(0, 5),
)
def test_disjoint_complete_and_stratified(counts, fractions, seed):
    labels = [label for label, n in enumerate(counts) for _ in range(n)]
    parts = splits.stratified(labels, fractions, seed)
    everything = [i for part in parts.values() for i in part]
    assert sorted(everything) == list(range(len(labels)))
    for name, fraction in fractions.items():
        per_class = Counter(labels[i] for i in parts[name])
        for label, n in enumerate(counts):
            # within one image, or one for each split that would have been empty
            assert abs(per_class[label] - fraction * n) <= (1 if fraction * n >= 1 else 2)
            assert fraction == 0 or per_class[label] >= 1


def test_imagenet_protocol_of_pc_darts():
    labels = [label for label in range(3) for _ in range(1300)]
    parts = splits.stratified(labels, {"weights": 0.10, "architecture": 0.025, "validation": 0.0}, seed=0)
    assert Counter(labels[i] for i in parts["weights"]) == {0: 130, 1: 130, 2: 130}
    assert set(Counter(labels[i] for i in parts["architecture"]).values()) <= {32, 33}
    assert not set(parts["weights"]) & set(parts["architecture"]) and parts["validation"] == []


def test_validation_is_the_same_for_search_and_retraining():
    labels = [0] * 37 + [1] * 53 + [2] * 4
    search = splits.stratified(labels, SEARCH, seed=3)
    retrain = splits.stratified(labels, {"train": 0.9, "validation": 0.1}, seed=3)
    assert search["validation"] == retrain["validation"]
    assert splits.stratified(labels, SEARCH, seed=4)["validation"] != search["validation"]


@pytest.mark.parametrize("per_class", [500, None])
def test_no_search_sees_what_a_larger_retraining_validates_on(per_class):
    labels = [label for label in range(3) for _ in range(600)]
    search = splits.stratified(labels, SEARCH, seed=1, per_class=200)
    retrain = splits.stratified(labels, {"train": 0.9, "validation": 0.1}, seed=1, per_class=per_class)
    assert not set(retrain["validation"]) & {*search["weights"], *search["architecture"]}
    assert set(search["validation"]) <= set(retrain["validation"])
    assert Counter(labels[i] for i in search["weights"]) == {0: 90, 1: 90, 2: 90}


def test_per_class_limits_every_class():
    labels = [0] * 50 + [1] * 7
    parts = splits.stratified(labels, SEARCH, seed=0, per_class=10)
    counts = Counter(labels[i] for part in parts.values() for i in part)
    assert counts == {0: 10, 1: 7}


@pytest.mark.parametrize(
    "labels, fractions, words",
    [
        ([0, 0], SEARCH, "too few for 3 splits"),
        ([0] * 9, {"train": 0.9, "validation": 0.2}, "sum to at most 1"),
        ([0] * 9, {"train": -0.1}, "between 0 and 1"),
    ],
)
def test_impossible_splits_are_refused(labels, fractions, words):
    with pytest.raises(ValueError, match=words):
        splits.stratified(labels, fractions, seed=0)


def test_saved_lists_are_verified(tmp_path):
    settings = {"seed": 0, "fractions": SEARCH}
    assert splits.load(tmp_path, settings) is None
    hashes = splits.save(tmp_path, {"weights": ["a/1.jpg", "a/2.jpg"], "validation": ["b/1.jpg"]}, settings)
    assert splits.load(tmp_path, settings) == hashes
    assert splits.read(tmp_path / "weights.txt", hashes["weights"]) == ["a/1.jpg", "a/2.jpg"]
    other = splits.save(tmp_path / "other", {"weights": ["a/1.jpg", "a/3.jpg"]}, settings)
    assert other["weights"] != hashes["weights"]
    with pytest.raises(ValueError, match="seed=0, not 1"):
        splits.load(tmp_path, {**settings, "seed": 1})
    (tmp_path / "weights.txt").write_text("a/1.jpg\n")
    with pytest.raises(ValueError, match=r"weights\.txt was changed"):
        splits.load(tmp_path, settings)


def test_file_name_with_a_line_break_is_refused(tmp_path):
    with pytest.raises(ValueError, match="line break"):
        splits.save(tmp_path, {"train": ["a\nb.jpg"]}, {})
