"""Image classification; importing it registers its datasets, transforms, metric, model and task adapter."""

from . import adapter, classifier, datasets, metric, predictions, transforms  # noqa: F401
