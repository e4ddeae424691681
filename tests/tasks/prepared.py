"""What a prepared config's loaders read."""

from search.engine.task_data import datasets_of
from search.registry import DATASETS


def built(cfg, loader):
    """The data set of a loader."""
    (dataset,) = datasets_of(cfg[loader])
    return DATASETS.build(dict(dataset))


def images(cfg, loader):
    """The paths of its images."""
    dataset = built(cfg, loader)
    return {dataset.get_data_info(i)["img_path"] for i in range(len(dataset))}
