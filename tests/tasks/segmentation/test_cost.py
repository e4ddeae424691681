"""What whole segmentors cost, as real forwards do it."""

import pytest
import torch

pytest.importorskip("mmseg")

from search.cost import copy_to_meta, count
from tests.tasks.hooked import outputs_of
from tests.tasks.segmentation.test_downstream import SIZE, build


@pytest.mark.parametrize("family", ["resnet", "auto_deeplab"])
def test_activations_are_what_a_real_forward_makes(family):
    """Of backbone and decode head; the auxiliary head doesn't run."""
    model = build(family).eval()
    made = outputs_of(model, torch.randn(1, 3, *SIZE))
    assert any(name.startswith("decode_head") for name in made) and not any(name.startswith("aux") for name in made)
    assert sum(made.values()) == count(copy_to_meta(model), (3, *SIZE)).activations
