from types import SimpleNamespace

import pytest
from mmengine.dataset import DefaultSampler
from torch.utils.data import RandomSampler, SequentialSampler

from tasks.classification.predictions import PredictionsHook

DATA = range(4)


def start(sampler, tmp_path):
    PredictionsHook(str(tmp_path / "out.json")).before_test(SimpleNamespace(test_dataloader=SimpleNamespace(sampler=sampler)))


@pytest.mark.parametrize("sampler", [DefaultSampler(DATA, shuffle=True), RandomSampler(DATA)])
def test_shuffled_test_data_are_refused(tmp_path, sampler):
    with pytest.raises(ValueError, match=r"sampler\.shuffle=False"):
        start(sampler, tmp_path)


@pytest.mark.parametrize("sampler", [DefaultSampler(DATA, shuffle=False), SequentialSampler(DATA)])
def test_test_data_in_order_are_taken(tmp_path, sampler):
    start(sampler, tmp_path)
