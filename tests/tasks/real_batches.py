"""Real batches and the model's own losses, to which the memory planner's predictions are held."""

import random

import numpy as np
import torch
from mmengine.dataset import pseudo_collate

from search.engine.data import kept_random_states
from search.engine.fake_step import need_of
from tests.tasks.prepared import built


def predicted_and_measured(task, cfg, work_dir):
    """What a step of a config needs, without its images and with them."""
    predicted = need_of(task.without_images(cfg), task)
    measured = need_of(task.prepare(cfg, work_dir), RealBatches(), fake=False)
    assert predicted.parameters == measured.parameters
    return predicted, measured


class RealBatches:
    """In the place of a task's adapter: batches of a prepared config's data, the model's own losses and predictions."""

    def __init__(self, seed=0):
        self.seed = seed

    def memory_batch(self, cfg, loader):
        with kept_random_states():
            for seed in (torch.manual_seed, np.random.seed, random.seed):
                seed(self.seed)
            data = built(cfg, loader)
            return pseudo_collate([data[i] for i in range(cfg[loader].batch_size)])

    def memory_predictions(self, cfg, model, inputs, data_samples):
        model(inputs, data_samples, mode="predict")
