"""What torch says of a user's values becomes one sentence; what it says of ours stays."""

import pytest
import torch
from torch import nn

from search.engine.errors import UserError, single_values_are_the_users


def test_one_pixel_of_one_image_cannot_be_normalised():
    norm = nn.BatchNorm2d(3)
    with pytest.raises(UserError, match="set batch_size=2 or more in train_dataloader"), single_values_are_the_users():
        norm(torch.randn(1, 3, 1, 1))
    with pytest.raises(ValueError, match="expected 4D input"), single_values_are_the_users():
        norm(torch.randn(1, 3))
