"""What the hooks of a test run ask of a runner, and what hooks see of a forward."""

from collections import Counter

import torch
from mmengine.config import ConfigDict
from torch import nn

from search.cost.count import run_on
from search.registry import DATASETS, HOOKS


class Runner:
    """A model, and the data set that a config (`dataset`) names, read one image after the other."""

    def __init__(self, model, dataset, cfg=None):
        self.model, self.cfg = model, ConfigDict(cfg or {})
        self.dataset = DATASETS.build(dataset)
        self.test_dataloader = self

    def test(self, *hooks):
        """As mmengine's test loop; yields what the model finds in each image."""
        built = [HOOKS.build(hook) for hook in hooks]
        for hook in built:
            hook.before_test(self)
        for i, sample in enumerate(self.dataset):
            batch = {key: [value] for key, value in sample.items()}
            if isinstance(sample["inputs"], list):
                batch = {key: [[one] for one in value] for key, value in sample.items()}
            with torch.no_grad():
                outputs = self.model.test_step(batch)
            for hook in built:
                hook.after_test_iter(self, i, batch, outputs)
            yield outputs[0]
        for hook in built:
            hook.after_test(self)


def outputs_of(model, images):
    """Numbers in the outputs of each convolution and linear layer, by its name, of a real forward."""
    made = Counter()
    handles = [
        layer.register_forward_hook(lambda layer, args, output, name=name: made.update({name: output.numel()}))
        for name, layer in model.named_modules()
        if isinstance(layer, nn.modules.conv._ConvNd | nn.Linear)
    ]
    with torch.no_grad():
        run_on(model, images)
    for handle in handles:
        handle.remove()
    return made
