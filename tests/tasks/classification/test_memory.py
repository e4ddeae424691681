import pytest
import torch

from tasks.classification import memory

FOLDER = dict(type="search.ImageFolder", folder="train", pipeline=[dict(type="search.RandomHorizontalFlip")])


def config(dataset, batch=4):
    loader = dict(batch_size=batch, dataset=dataset)
    return dict(train_dataloader=loader, arch_dataloader=loader)


@pytest.mark.parametrize(
    ("dataset", "size"),
    [
        (
            dict(FOLDER, pipeline=[dict(type="search.Resize", size=256), dict(type="search.CenterCrop", size=224)]),
            (3, 224, 224),
        ),
        (dict(FOLDER, pipeline=[dict(type="search.RandomCrop", size=[48, 64])]), (3, 48, 64)),
        (dict(FOLDER, size=32), (3, 32, 32)),
        (dict(FOLDER, size=32, pipeline=[dict(type="search.RandomCrop", size=28)]), (3, 28, 28)),
        (dict(type="search.CIFAR10", folder="train"), (3, 32, 32)),
        (dict(type="search.Digits", channels=1), (1, 8, 8)),
        (dict(type="RepeatDataset", times=2, dataset=dict(FOLDER, size=16)), (3, 16, 16)),
        (dict(type="ConcatDataset", datasets=[dict(FOLDER, size=16), dict(FOLDER, size=16)]), (3, 16, 16)),
    ],
)
def test_sizes_without_images(dataset, size):
    cfg = config(dataset, batch=5)
    assert memory.image_size(cfg) == size
    batch = memory.memory_batch(cfg, "train_dataloader")
    assert batch["inputs"].shape == (5, *size)
    assert batch["label"].shape == (5,) and batch["label"].dtype == torch.long


def test_a_pipeline_that_fixes_no_size():
    with pytest.raises(ValueError, match="RandomResizedCrop"):
        memory.image_size(config(FOLDER))


def test_crops_become_options():
    crop = dict(FOLDER, pipeline=[dict(type="search.RandomResizedCrop", size=224)])
    places = ("train_dataloader.dataset", "arch_dataloader.dataset")
    assert memory.crop_options(config(crop), 192) == {f"{place}.pipeline.0.size": 192 for place in places}
    # images are read smaller where they are read at the crop's size
    both = dict(FOLDER, size=32, pipeline=[dict(type="search.RandomCrop", size=32, padding=4)])
    keys = [f"{place}.{key}" for place in places for key in ("size", "pipeline.0.size")]
    assert memory.crop_options(config(both), 28) == dict.fromkeys(keys, 28)
    # a larger size from which crops are taken stays
    larger = dict(FOLDER, size=40, pipeline=[dict(type="search.RandomCrop", size=32)])
    assert set(memory.crop_options(config(larger), 28)) == {f"{place}.pipeline.0.size" for place in places}
    two = dict(type="ConcatDataset", datasets=[both, crop])
    assert "train_dataloader.dataset.datasets.0.size" in memory.crop_options(config(two), 28)


def test_images_that_can_not_be_made_smaller():
    assert memory.crop_options(config(dict(FOLDER, pipeline=[dict(type="search.RandomCrop", size=[48, 64])])), 32) == {}
    assert memory.crop_options(config(dict(type="search.CIFAR10", folder="train")), 28) == {}
