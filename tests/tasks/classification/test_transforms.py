import pytest
import torch

from search.registry import TRANSFORMS
from tasks.classification.transforms import Cutout, Normalize, Pipeline


@pytest.mark.parametrize("length", [2, 8, 16])
def test_cutout_zeroes_exactly_the_square_of_the_official_code(length):
    height, width = 20, 12
    for seed in range(50):
        torch.manual_seed(seed)
        y, x = int(torch.randint(height, ())), int(torch.randint(width, ()))
        expected = torch.ones(height, width)
        for row in range(height):
            for column in range(width):
                if y - length // 2 <= row < y + length // 2 and x - length // 2 <= column < x + length // 2:
                    expected[row, column] = 0
        image = torch.ones(3, height, width)
        torch.manual_seed(seed)
        assert torch.equal(Cutout(length)(image), expected.expand(3, -1, -1))
        assert bool((image == 1).all())


def test_cutout_reaches_every_border():
    corners = torch.ones(1, 8, 8)
    seen = torch.zeros(8, 8)
    for seed in range(200):
        torch.manual_seed(seed)
        seen += Cutout(2)(corners)[0] == 0
    assert bool((seen > 0).all())


def test_odd_cutout_is_refused():
    with pytest.raises(ValueError, match="length=7"):
        Cutout(7)


def test_normalize_is_mean_free_by_hand():
    image = torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 2).expand(3, 1, 2)
    out = Normalize(mean=[0.5, 0.0, 1.0], std=[0.5, 1.0, 2.0])(image)
    assert torch.allclose(out[:, 0], torch.tensor([[-1.0, 1.0], [0.0, 1.0], [-0.5, 0.0]]))
    assert torch.equal(Normalize([0.5] * 3, [1.0] * 3)(image.float() / 255), Normalize([0.5] * 3, [1.0] * 3)(image))


@pytest.mark.parametrize(
    "transform, size",
    [
        (dict(type="search.RandomCrop", size=32, padding=4), (32, 32)),
        (dict(type="search.RandomResizedCrop", size=24), (24, 24)),
        (dict(type="search.Resize", size=40), (40, 53)),
        (dict(type="search.CenterCrop", size=20), (20, 20)),
        (dict(type="search.RandomHorizontalFlip"), (36, 48)),
        (dict(type="search.ColorJitter", brightness=0.4, contrast=0.4, saturation=0.4, hue=0.2), (36, 48)),
        (dict(type="search.Cutout", length=8), (36, 48)),
    ],
)
def test_shapes_and_ranges(transform, size):
    image = torch.randint(0, 256, (3, 36, 48), dtype=torch.uint8)
    assert TRANSFORMS.build(transform)(image).dtype == torch.uint8
    out = Pipeline([transform])(image)
    assert out.shape == (3, *size) and out.dtype == torch.float32
    assert out.min() >= 0 and 0.5 < out.max() <= 1
