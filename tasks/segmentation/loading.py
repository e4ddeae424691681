"""Reading label maps by mmseg's transform, with one sentence for a file that can't be used.

The task adapter puts this, and `tasks.image_files.LoadImage`, in place of the packages' own, so configs name those.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import mmengine.fileio as fileio
import numpy as np
from mmseg.datasets.transforms import LoadAnnotations
from PIL import Image

from search.engine.errors import UserError
from search.registry import TRANSFORMS
from tasks.image_files import unreadable

# of Pillow: one channel, so that a pixel can be a class number
ONE_CHANNEL = ("L", "P", "1", "I", "I;16", "I;16B", "I;16L")


def colours(path: str | Path, mode: str) -> UserError:
    """The sentence for a label file of several channels."""
    return UserError(
        f"the label file {path} is a colour image ({mode}): a pixel must be its class's number, so give a file of one channel"
    )


@TRANSFORMS.register_module()
class LoadLabels(LoadAnnotations):
    """mmseg's LoadAnnotations, which then looks whether the labels can be trained on.

    Args:
        num_classes: K; labels are 0 to K - 1, after mmseg has mapped them.
        ignore_index: the label that means none.
        others: as mmseg's.

    Raises UserError, naming the file, for one that can't be read, has several channels, another size than its image, or
    a label that is neither a class nor ignored.
    """

    def __init__(self, num_classes: int, ignore_index: int = 255, **kwargs) -> None:
        super().__init__(**kwargs)
        self.num_classes, self.ignore_index = num_classes, ignore_index

    def _load_seg_map(self, results: dict[str, Any]) -> None:
        path = results["seg_map_path"]
        try:
            with Image.open(BytesIO(fileio.get(path, backend_args=self.backend_args))) as image:
                mode = image.mode
                deep = np.asarray(image).max() if mode.startswith("I") else 0
            if mode in ONE_CHANNEL:
                super()._load_seg_map(results)
        except (OSError, ValueError, SyntaxError) as error:
            raise unreadable(path, error) from error
        if mode not in ONE_CHANNEL:
            raise colours(path, mode)
        labels = results["gt_seg_map"]
        if "img_shape" in results and tuple(labels.shape) != tuple(results["ori_shape"]):
            raise UserError(
                f"the label file {path} has {labels.shape[1]}x{labels.shape[0]} pixels, but its image "
                f"{results['ori_shape'][1]}x{results['ori_shape'][0]}"
            )
        wrong = deep if deep > 255 else labels.max(initial=0, where=labels != self.ignore_index)
        if wrong >= self.num_classes:
            raise UserError(
                f"the label file {path} has the label {wrong}, but the classes are 0 to {self.num_classes - 1} and "
                f"{self.ignore_index} is ignored: correct the file, or name all classes in metainfo.classes of the data "
                "sets or in classes.txt of the data's folder"
            )
